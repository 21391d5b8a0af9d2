"""Every telemetry provider by variables alone: what is set comes to its server, and what is set wrongly is named."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from bot import doctor
from bot.config import load
from bot.wiring.telemetry import NO_METRICS, sources_of
from pipeline.domain.activity import ActivityKind
from pipeline.domain.changes import ChangeKind
from pipeline.domain.logs import LogLine
from pipeline.domain.telemetry import CallEdge, Reading, Signal
from pipeline.stages.observe import Sources
from tests.contract.metrics_world import Metrics
from tests.contract.metrics_world import World as Instances
from tests.contract.targets.places import until
from tests.contract.telemetry import test_newrelic as newrelic
from tests.contract.telemetry import test_pixie as pixie
from tests.contract.telemetry import test_xray as xray
from tests.contract.telemetry.aws_server import FakeAws, LogGroup, use_test_credentials
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.jaeger_server import JaegerServer, Row
from tests.contract.telemetry.kube_log_server import TOKEN, KubeLogServer, owner, rfc3339
from tests.contract.telemetry.loki_server import Entry, LokiServer
from tests.contract.telemetry.newrelic_server import KEY as NEW_RELIC_KEY
from tests.contract.telemetry.newrelic_server import FakeNewRelic
from tests.contract.telemetry.pixie_server import CLUSTER, FakePixie
from tests.contract.telemetry.pixie_server import KEY as PIXIE_KEY
from tests.contract.telemetry.real_prometheus import real_prometheus
from tests.contract.telemetry.suite import CART, SHOP, long_ago, make_trace
from tests.contract.telemetry.tempo_server import TempoServer

MINUTE = timedelta(minutes=1)
START = long_ago()
END = START + 5 * MINUTE
NO_LABELS: tuple[tuple[str, str], ...] = ()
MEMORY = {
    "process_resident_memory_bytes": {NO_LABELS: 300e6},
    "container_spec_memory_limit_bytes": {NO_LABELS: 400e6},
}


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instances]:
    world = Instances(tmp_path_factory.mktemp("world"))
    world.start("shop", "shop-1", Metrics(gauges=MEMORY))
    yield world
    world.stop()


@asynccontextmanager
async def wired(**environ: str) -> AsyncIterator[Sources]:
    sources = sources_of(load(environ, env_file=None))
    yield sources
    await sources.close()


def counts(sources: Sources) -> list[int]:
    """Of metrics, topology, logs, changes, traces and activity."""
    return [len(getattr(sources, port)) for port in ("metrics", "topology", "logs", "changes", "traces", "activity")]


def figures(reading: Reading) -> dict[Signal, float]:
    assert reading.failures == ()
    return {sample.key.signal: sample.value for sample in reading.samples if sample.key.service == SHOP}


async def test_endpoints_of_a_file(instances: Instances) -> None:
    async with wired(SRE_SCRAPE_FILE=str(instances.file)) as sources:
        assert counts(sources) == [1, 0, 0, 0, 0, 0]
        assert figures(await sources.metrics[0].read(datetime.now(UTC))) == {Signal.MEMORY_RATIO: 0.75}


async def test_a_real_prometheus(instances: Instances, tmp_path: Path) -> None:
    with real_prometheus(tmp_path, instances.file) as url:
        async with wired(PROMETHEUS_URL=url, PROMETHEUS_INSTANCE_LABEL="instance_name") as sources:
            assert counts(sources) == [1, 0, 0, 0, 0, 0]

            async def scraped() -> bool:
                return figures(await sources.metrics[0].read(datetime.now(UTC))) == {Signal.MEMORY_RATIO: 0.75}

            await until(scraped)


async def test_loki(instances: Instances) -> None:
    loki = LokiServer(tenant="team-a")
    labels = {"app": "shop", "host": "h1", "cluster": "eu"}
    loki.push(labels, Entry(int(START.timestamp()) * 10**9, "ours"))
    loki.push({**labels, "cluster": "us"}, Entry(int(START.timestamp()) * 10**9, "theirs"))
    environ = {
        "LOKI_TENANT": "team-a",
        "LOKI_SERVICE_LABEL": "app",
        "LOKI_INSTANCE_LABEL": "host",
        "LOKI_MATCHERS": 'cluster="eu"',
    }
    async with (
        FaultyServer(loki.app()) as server,
        wired(SRE_SCRAPE_FILE=str(instances.file), LOKI_URL=server.url, **environ) as sources,
    ):
        assert counts(sources) == [1, 0, 1, 0, 0, 0]
        reading = await sources.logs[0].tail(START, END, limit=5)
        assert (reading.lines, reading.failures) == ((LogLine(START, SHOP, "ours", "h1"),), ())


async def test_jaeger_for_traces_and_calls(instances: Instances) -> None:
    jaeger = JaegerServer()
    jaeger.add(make_trace(START, 1, 0.4))
    jaeger.rows.append(Row(int(START.timestamp() * 1000), "shop", "cart", 1200))
    async with (
        FaultyServer(jaeger.app()) as server,
        wired(SRE_SCRAPE_FILE=str(instances.file), JAEGER_URL=f"{server.url}/jaeger") as sources,
    ):
        assert counts(sources) == [1, 1, 0, 0, 1, 0]
        assert len((await sources.traces[0].search(CART, START, END, limit=5)).traces) == 1
        assert (await sources.topology[0].edges(START, END)).edges == (CallEdge(SHOP, CART, 4.0),)


async def test_jaegers_daily_dependencies(instances: Instances) -> None:
    jaeger = JaegerServer()
    jaeger.rows.append(Row(int((START - timedelta(hours=20)).timestamp() * 1000), "shop", "cart", 86_400))
    environ = {"SRE_SCRAPE_FILE": str(instances.file), "JAEGER_DEPENDENCIES_LOOKBACK_S": "86400"}
    async with (
        FaultyServer(jaeger.app()) as server,
        wired(JAEGER_URL=f"{server.url}/jaeger", **environ) as sources,
    ):
        assert (await sources.topology[0].edges(START, END)).edges == (CallEdge(SHOP, CART, 1.0),)


async def test_tempo(instances: Instances) -> None:
    tempo = TempoServer(tenant="team-b")
    tempo.add(make_trace(START, 1, 0.4))
    async with (
        FaultyServer(tempo.app()) as server,
        wired(SRE_SCRAPE_FILE=str(instances.file), TEMPO_URL=server.url, TEMPO_TENANT="team-b") as sources,
    ):
        assert counts(sources) == [1, 0, 0, 0, 1, 0]
        reading = await sources.traces[0].search(CART, START, END, limit=5)
        assert (len(reading.traces), reading.failures) == (1, ())


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the file that kubectl would use, for the API server of a URL."""
    path = tmp_path / "kubeconfig"
    # The client has read KUBECONFIG when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    def write(url: str) -> None:
        content = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "bot"}}],
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "bot", "user": {"token": TOKEN}}],
        }
        path.write_text(yaml.safe_dump(content))

    return write


async def test_kubernetes_for_logs_and_rollouts(instances: Instances, kubeconfig: Callable[[str], None]) -> None:
    kube = KubeLogServer()
    labels = {"team/service": "shop"}
    kube.add_pod("web-1", labels=labels)
    kube.logs["web-1", "main", False] = [(START, "started")]
    uid = kube.add("deployments", "web", status={"conditions": []})["metadata"]["uid"]
    for revision, minutes in ((1, -60), (2, 1)):
        kube.add(
            "replicasets",
            f"web-{revision}",
            metadata={
                "labels": labels,
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
                "creationTimestamp": rfc3339(START + minutes * MINUTE),
                "ownerReferences": [owner("Deployment", "web", uid)],
            },
            spec={"template": {"spec": {"containers": [{"name": "main", "image": f"web:{revision}"}]}}},
        )
    environ = {"SRE_KUBERNETES_WATCH": "shop", "SRE_KUBERNETES_SERVICE_LABEL": "team/service"}
    async with FaultyServer(kube.app()) as server:
        kubeconfig(server.url)
        async with wired(SRE_SCRAPE_FILE=str(instances.file), **environ) as sources:
            assert counts(sources) == [1, 0, 1, 1, 0, 0]
            lines = await sources.logs[0].tail(START - MINUTE, END, limit=5)
            assert [(line.service, line.instance, line.text) for line in lines.lines] == [(SHOP, "web-1", "started")]
            (change,) = (await sources.changes[0].changes(START, END)).changes
            assert (change.service, change.kind, change.title) == (
                SHOP,
                ChangeKind.DEPLOYMENT,
                "web:2 (was web:1)",
            )


@pytest.fixture
def aws_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[FaultyServer], dict[str, str]]:
    use_test_credentials(monkeypatch)
    return lambda server: {"SRE_AWS_ENDPOINT_URL": server.url, "AWS_REGION": "eu-central-1"}


async def test_cloudwatch(aws_of: Callable[[FaultyServer], dict[str, str]], tmp_path: Path) -> None:
    aws, now = FakeAws(), datetime.now(UTC)
    minute = now.replace(second=0, microsecond=0) - 3 * MINUTE
    aws.measure("AWS/Lambda", "Invocations", {"FunctionName": "fn-17"}, {minute: [30.0]})
    aws.measure("AWS/ECS", "CPUUtilization", {"ClusterName": "prod", "ServiceName": "shop"}, {minute: [50.0]})
    aws.measure("AWS/ECS", "CPUUtilization", {"ClusterName": "test", "ServiceName": "cart"}, {minute: [99.0]})
    aws.expressions["SUM(REMOVE_EMPTY(x))"] = {int(minute.timestamp()): 0.25}
    own = tmp_path / "own.yaml"
    own.write_text("- {service: shop, signal: quota_ratio, expression: SUM(REMOVE_EMPTY(x))}\n")
    environ = {
        "SRE_CLOUDWATCH": "true",
        "SRE_CLOUDWATCH_NAMESPACES": "AWS/Lambda,AWS/ECS",
        "SRE_CLOUDWATCH_NAMES": "fn-17=shop",
        "SRE_CLOUDWATCH_ONLY": "ClusterName=prod",
        "SRE_CLOUDWATCH_EXPRESSIONS": str(own),
    }
    async with FaultyServer(aws.app) as server, wired(**aws_of(server), **environ) as sources:
        assert counts(sources) == [1, 0, 0, 0, 0, 0]
        reading = await sources.metrics[0].read(now)
    assert {sample.key.service for sample in reading.samples} == {SHOP}
    assert figures(reading) == {
        Signal.TRAFFIC: 0.5,
        Signal.ERROR_RATIO: 0.0,
        Signal.CPU_RATIO: 0.5,
        Signal.QUOTA_RATIO: 0.25,
    }


async def test_cloudwatch_logs_and_x_ray(
    aws_of: Callable[[FaultyServer], dict[str, str]], instances: Instances
) -> None:
    aws = FakeAws()
    aws.groups["/ecs/shop"] = LogGroup([(int(START.timestamp() * 1000), "stream/1", "a line")])
    environ = {
        "SRE_SCRAPE_FILE": str(instances.file),
        "SRE_CLOUDWATCH_LOG_GROUPS": "/ecs/shop=shop",
        "SRE_XRAY": "true",
    }
    async with FaultyServer(aws.app) as server, wired(**aws_of(server), **environ) as sources:
        assert counts(sources) == [1, 1, 1, 0, 1, 0]
        for world in (traced := xray.TracesAtAws(aws, server), called := xray.GraphAtAws(aws, server)):
            await world.close()
        await traced.put([make_trace(START, 1, 0.4)])
        await called.put([CallEdge(SHOP, CART, 4.0)], START, END)
        lines = await sources.logs[0].tail(START, END, limit=5)
        assert [(line.service, line.text) for line in lines.lines] == [(SHOP, "a line")]
        assert len((await sources.traces[0].search(CART, START, END, limit=5)).traces) == 1
        assert (await sources.topology[0].edges(START, END)).edges == (CallEdge(SHOP, CART, 4.0),)


async def test_new_relic_for_four_ports() -> None:
    relic, now = FakeNewRelic(), datetime.now(UTC)
    in_minute_ms = int((now.replace(second=0, microsecond=0) - MINUTE).timestamp() * 1000) - 20_000
    relic.put("SystemSample", timestamp=in_minute_ms, hostname="h", role="shop", memoryUsedPercent=71.0, cpuPercent=4.0)
    relic.put("Log", timestamp=int(START.timestamp() * 1000), message="a line", service__name="shop")
    async with FaultyServer(relic.app) as server:
        for world in (
            traced := newrelic.TracesAtNewRelic(relic, server),
            called := newrelic.MapAtNewRelic(relic, server),
        ):
            await world.close()
        await traced.put([make_trace(START, 1, 0.4)])
        await called.put([CallEdge(SHOP, CART, 4.0)], START, END)
        environ = {"NEW_RELIC_URL": server.url, "SRE_NEWRELIC_HOST_SERVICE": "role"}
        async with wired(NEW_RELIC_ACCOUNT_ID="7", NEW_RELIC_API_KEY=NEW_RELIC_KEY, **environ) as sources:
            assert counts(sources) == [1, 1, 1, 0, 1, 0]
            assert figures(await sources.metrics[0].read(now))[Signal.MEMORY_RATIO] == pytest.approx(0.71)
            lines = await sources.logs[0].tail(START, END, limit=5)
            assert [(line.service, line.text) for line in lines.lines] == [(SHOP, "a line")]
            assert len((await sources.traces[0].search(CART, START, END, limit=5)).traces) == 1
            assert (await sources.topology[0].edges(START, END)).edges == (CallEdge(SHOP, CART, 4.0),)


async def test_pixie_for_metrics_calls_and_activity() -> None:
    cluster, now = FakePixie(), datetime.now(UTC)
    async with FaultyServer(cluster.app) as server:
        world = pixie.World(cluster, server)
        await world.patient_client.close()
        await world.impatient_client.close()
        for second in range(12, 42):
            pixie.request(world, now - timedelta(seconds=second), "shop")
            cluster.put("http_events", now - timedelta(seconds=second), "test/shop", resp_status=500, latency=1)
        await world.put([CallEdge(SHOP, CART, 1.0)], START, START + MINUTE)
        for second in (1, 11):
            cluster.put(
                "process_stats",
                START + timedelta(seconds=second),
                "prod/shop",
                pod="prod/shop-1",
                cmdline="/app/shop",
                cpu_utime_ns=second * 800_000_000,
                cpu_ktime_ns=0,
                rss_bytes=2**20,
                rchar_bytes=0,
                wchar_bytes=0,
            )
        environ = {"PIXIE_API_KEY": PIXIE_KEY, "PIXIE_CLUSTER_ID": CLUSTER, "SRE_PIXIE_NAMESPACE": "prod"}
        async with wired(PIXIE_URL=server.url, **environ) as sources:
            assert counts(sources) == [1, 1, 0, 0, 0, 1]
            found = figures(await sources.metrics[0].read(now))
            assert found[Signal.TRAFFIC] == pytest.approx(0.5)
            assert found[Signal.ERROR_RATIO] == 0.0
            assert (await sources.topology[0].edges(START, START + MINUTE)).edges == (CallEdge(SHOP, CART, 1.0),)
            felt = await sources.activity[0].activity(SHOP, START, START + MINUTE)
            assert (felt.activities[0].kind, felt.failures) == (ActivityKind.PROCESS, ())


async def test_commits_and_log_files(instances: Instances, tmp_path: Path) -> None:
    clone, logs = tmp_path / "clone", tmp_path / "logs"
    (clone / "apps/shop").mkdir(parents=True)
    (clone / "apps/shop/values.yaml").write_text("replicas: 2\n")
    logs.mkdir()
    (logs / "shop-1.log").write_text(f"{START.isoformat()} INFO a line\n")
    identity = ("-c", "user.name=Ann", "-c", "user.email=a@x")
    for arguments in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "two replicas")):
        subprocess.run(["git", *identity, *arguments], cwd=clone, check=True)
    environ = {"SRE_CHANGES_REPO": str(clone), "SRE_CHANGES_FOLDER": "apps", "SRE_LOG_FOLDER": str(logs)}
    async with wired(SRE_SCRAPE_FILE=str(instances.file), **environ) as sources:
        assert counts(sources) == [1, 0, 1, 1, 0, 0]
        told = await sources.changes[0].changes(START, datetime.now(UTC) + MINUTE)
        assert [(change.service, change.title) for change in told.changes] == [(SHOP, "two replicas")]
        read = await sources.logs[0].tail(START, END, limit=5)
        assert [(line.service, line.text) for line in read.lines] == [(SHOP, "INFO a line")]


async def one_question(sources: Sources) -> None:
    if sources.logs:
        await sources.logs[0].tail(START, END, limit=5)
    elif sources.traces:
        await sources.traces[0].search(SHOP, START, END, limit=5)
    else:
        await sources.metrics[0].read(END)


@pytest.mark.parametrize(
    ("environ", "header", "value"),
    [
        ({"PROMETHEUS_TOKEN": "t"}, "Authorization", "Bearer t"),
        ({"PROMETHEUS_TENANT": "a"}, "X-Scope-OrgID", "a"),
        ({"PROMETHEUS_USER": "u", "PROMETHEUS_PASSWORD": "p"}, "Authorization", "Basic dTpw"),
        ({"LOKI_TOKEN": "t"}, "Authorization", "Bearer t"),
        ({"JAEGER_TOKEN": "t"}, "Authorization", "Bearer t"),
        ({"JAEGER_TENANT": "a"}, "x-tenant", "a"),
        ({"TEMPO_TOKEN": "t"}, "Authorization", "Bearer t"),
    ],
)
async def test_tokens_and_tenants_are_sent(
    instances: Instances, environ: dict[str, str], header: str, value: str
) -> None:
    provider = next(iter(environ)).partition("_")[0]
    metrics = {} if provider == "PROMETHEUS" else {"SRE_SCRAPE_FILE": str(instances.file)}
    async with FaultyServer(web.Application()) as server:
        async with wired(**metrics, **environ, **{f"{provider}_URL": server.url}) as sources:
            await one_question(sources)
        assert server.headers[header] == value


async def test_the_doctor_tells_of_each_source_though_one_is_down_and_one_hangs(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SOURCE_TIMEOUT_S", 4.0)
    async with FaultyServer(JaegerServer().app()) as well, FaultyServer(TempoServer().app()) as hanging:
        await hanging.misbehave(Fault.DRIP)
        async with FaultyServer(LokiServer().app()) as gone:
            pass
        environ = {"JAEGER_URL": f"{well.url}/jaeger", "LOKI_URL": gone.url, "TEMPO_URL": hanging.url}
        settings = load({"SRE_SCRAPE_FILE": str(instances.file), **environ}, env_file=None)
        said = [(one.what, one.state, one.said) async for one in doctor.examine(settings)]
    telemetry = [one for one in said if one[0].startswith("telemetry")]
    assert telemetry[0] == ("telemetry scrape", "ok", "1 samples in one reading")
    assert telemetry[1] == ("telemetry jaeger", "ok", "0 pairs of caller and callee in ten minutes")
    assert telemetry[2][:2] == ("telemetry loki", "wrong")
    assert telemetry[2][2].endswith("asked again at the next reading")
    assert telemetry[3] == ("telemetry jaeger", "ok", "traces of sre-bot-doctor can be searched")
    assert telemetry[4] == (
        "telemetry tempo",
        "wrong",
        "tempo: no reading within 4 s; asked again at the next reading",
    )
    assert any(one[0] == "runbooks" for one in said), "it goes on after the telemetry"


async def test_the_doctor_says_what_is_set_wrongly() -> None:
    settings = load({}, env_file=None)
    said = [(one.what, one.state, one.said) async for one in doctor.examine(settings)]
    assert ("telemetry", "wrong", NO_METRICS) in said
