"""CloudWatch metrics through boto3, against a server of its protocol and, where moto does it rightly, against moto."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.adapters.telemetry import aws_client
from pipeline.adapters.telemetry.aws_client import AwsClient
from pipeline.adapters.telemetry.cloudwatch import CloudWatchSource
from pipeline.adapters.telemetry.cloudwatch_logs import CloudWatchLogsSource
from pipeline.adapters.telemetry.cloudwatch_series import CloudWatchExpression
from pipeline.adapters.telemetry.xray import XRayTopologySource, XRayTracesSource
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.telemetry import Reading, SeriesKey, Signal
from tests.contract.telemetry.aws_server import REFUSAL, FakeAws, LogGroup, Refused, use_test_credentials
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.suite import AGAIN, ENDING, FOR_GOOD, SHOP, told

NOW = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LAST = NOW.replace(second=0) - 2 * MINUTE
"""The start of the newest minute that is taken: a minute ended at 12:00 is too young at 12:00:30."""
ALB = {"LoadBalancer": "app/edge/50dc6c495c0c9188", "TargetGroup": "targetgroup/shop/6d0ecf831eec9f09"}
FUNCTION = {"FunctionName": "resize"}
ECS = {"ClusterName": "prod", "ServiceName": "shop"}


@asynccontextmanager
async def at_aws(aws: FakeAws, *, timeout_s: float = 10.0, **arguments: Any) -> AsyncIterator[CloudWatchSource]:
    async with FaultyServer(aws.app, refusal=REFUSAL) as server:
        client = AwsClient(region="eu-central-1", endpoint_url=server.url, timeout_s=timeout_s)
        source = CloudWatchSource(client, **arguments)
        yield source
        await source.close()


async def read(aws: FakeAws, now: datetime = NOW, **arguments: Any) -> Reading:
    async with at_aws(aws, **arguments) as source:
        return await source.read(now)


def newest(reading: Reading) -> dict[tuple[str, Signal, str], float]:
    return {(sample.key.service, sample.key.signal, sample.key.instance): sample.value for sample in reading.samples}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_test_credentials(monkeypatch)


@pytest.fixture
def aws() -> FakeAws:
    return FakeAws()


async def test_a_target_group_is_a_service_with_traffic_errors_and_latency(aws: FakeAws) -> None:
    aws.measure("AWS/ApplicationELB", "RequestCount", ALB, {LAST: [100.0, 140.0]})
    aws.measure("AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", ALB, {LAST: [6.0]})
    aws.measure("AWS/ApplicationELB", "TargetResponseTime", ALB, {LAST: [0.1] * 98 + [2.0] * 2})
    for less in ("LoadBalancer", "TargetGroup"):  # totals of other sets of dimensions are nobody's
        aws.measure("AWS/ApplicationELB", "RequestCount", {less: ALB[less]}, {LAST: [9999.0]})
    reading = await read(aws)
    assert reading.failures == ()
    assert {(sample.key, sample.at) for sample in reading.samples} == {
        (SeriesKey(SHOP, signal), LAST + MINUTE) for signal in (Signal.TRAFFIC, Signal.ERROR_RATIO, Signal.LATENCY_P99)
    }
    values = newest(reading)
    assert values["shop", Signal.TRAFFIC, ""] == 4.0
    assert values["shop", Signal.ERROR_RATIO, ""] == pytest.approx(0.025)
    assert values["shop", Signal.LATENCY_P99, ""] == pytest.approx(2.0, abs=0.1)
    asked = [query["MetricStat"]["Stat"] for query in aws.calls("GetMetricData")[0]["MetricDataQueries"]]
    assert sorted(asked) == ["Average", "Sum", "Sum", "p99"]  # the requests serve two signals and are asked for once


async def test_no_errors_are_a_ratio_of_zero_though_nobody_counted_them(aws: FakeAws) -> None:
    aws.measure("AWS/ApplicationELB", "RequestCount", ALB, {LAST: [60.0]})
    assert newest(await read(aws)) == {("shop", Signal.TRAFFIC, ""): 1.0, ("shop", Signal.ERROR_RATIO, ""): 0.0}


async def test_no_requests_are_a_traffic_of_zero_while_the_load_balancer_reports(aws: FakeAws) -> None:
    aws.measure("AWS/ApplicationELB", "RequestCount", ALB, {LAST - MINUTE: [60.0]})
    aws.measure("AWS/ApplicationELB", "HealthyHostCount", ALB, {LAST - MINUTE: [2.0], LAST: [2.0]})
    traffic = [sample for sample in (await read(aws)).samples if sample.key.signal is Signal.TRAFFIC]
    assert [(sample.at, sample.value) for sample in traffic] == [(LAST, 1.0), (LAST + MINUTE, 0.0)]


async def test_silence_is_no_traffic_of_zero(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Invocations", FUNCTION, {LAST - MINUTE: [60.0]})
    traffic = [sample for sample in (await read(aws)).samples if sample.key.signal is Signal.TRAFFIC]
    assert [sample.at for sample in traffic] == [LAST]


async def test_units_become_those_of_the_signal(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Invocations", FUNCTION, {LAST: [30.0]})
    aws.measure("AWS/Lambda", "Errors", FUNCTION, {LAST: [3.0]})
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST: [250.0]})
    aws.measure("AWS/ECS", "MemoryUtilization", ECS, {LAST: [40.0, 91.0]})
    aws.measure("AWS/ECS", "CPUUtilization", ECS, {LAST: [20.0, 40.0]})
    assert newest(await read(aws)) == {
        ("resize", Signal.TRAFFIC, ""): 0.5,
        ("resize", Signal.ERROR_RATIO, ""): 0.1,
        ("resize", Signal.LATENCY_P99, ""): 0.25,
        ("shop", Signal.MEMORY_RATIO, ""): 0.91,  # the fullest task counts
        ("shop", Signal.CPU_RATIO, ""): 0.3,
    }


async def test_shares_of_what_is_reserved_by_metric_math(aws: FakeAws) -> None:
    for metric, value in {"EphemeralStorageUtilized": 15.0, "EphemeralStorageReserved": 20.0}.items():
        aws.measure("ECS/ContainerInsights", metric, ECS, {LAST: [value]})
    assert newest(await read(aws)) == {("shop", Signal.DISK_RATIO, ""): 0.75}
    (body,) = aws.calls("GetMetricData")
    (math,) = [query for query in body["MetricDataQueries"] if "Expression" in query]
    assert [query["Id"] for query in body["MetricDataQueries"] if query["ReturnData"]] == [math["Id"]]


async def test_instances_take_the_place_of_their_mean(aws: FakeAws) -> None:
    memory = "pod_memory_utilization_over_pod_limit"
    pod = {"ClusterName": "prod", "Namespace": "web", "PodName": "shop"}
    aws.measure("ContainerInsights", memory, pod, {LAST: [50.0]})
    for name, value in {"shop-7d4-a": 40.0, "shop-7d4-b": 95.0}.items():
        aws.measure("ContainerInsights", memory, {**pod, "FullPodName": name}, {LAST: [value]})
    aws.measure("ContainerInsights", memory, {"ClusterName": "prod"}, {LAST: [50.0]})
    assert newest(await read(aws)) == {
        ("shop", Signal.MEMORY_RATIO, "shop-7d4-a"): 0.4,
        ("shop", Signal.MEMORY_RATIO, "shop-7d4-b"): 0.95,
    }


async def test_of_two_metrics_of_one_thing_one_is_taken(aws: FakeAws) -> None:
    aws.measure("AWS/ECS", "CPUUtilization", ECS, {LAST: [20.0]})
    for metric in ("CpuUtilized", "CpuReserved"):
        aws.measure("ECS/ContainerInsights", metric, ECS, {LAST: [512.0]})
    reading = await read(aws)
    assert newest(reading) == {("shop", Signal.CPU_RATIO, ""): 0.2}
    assert reading.rejected == {}


async def test_ids_that_are_no_names_need_one(aws: FakeAws) -> None:
    arn = "arn:aws:acm:eu-central-1:111122223333:certificate/12345678-aaaa"
    aws.measure("AWS/CertificateManager", "DaysToExpiry", {"CertificateArn": arn}, {NOW - timedelta(hours=11): [20.0]})
    aws.measure("AWS/CertificateManager", "DaysToExpiry", {"CertificateArn": arn + "b"}, {NOW: [3.0]})
    reading = await read(aws, names={arn: "shop"})
    values = newest(reading)
    # The measure is of the hour that began at 01:00; since then time has passed.
    assert values == {("shop", Signal.CERT_REMAINING, "12345678-aaaa"): 20 * 86400 - (11 * 3600 + 30)}
    assert [sample.at for sample in reading.samples] == [NOW]


async def test_machines_are_measured_every_five_minutes(aws: FakeAws) -> None:
    five = LAST.replace(minute=50)
    for machine in ("i-0a", "i-0b"):
        aws.measure("AWS/EC2", "CPUUtilization", {"InstanceId": machine}, {five: [70.0]})
    aws.measure("AWS/EC2", "CPUUtilization", {"AutoScalingGroupName": "web"}, {five: [60.0]})
    reading = await read(aws, five + timedelta(seconds=370), names={"i-0a": "batch"})
    assert newest(reading) == {("batch", Signal.CPU_RATIO, "i-0a"): 0.7, ("web", Signal.CPU_RATIO, ""): 0.6}
    assert {sample.at for sample in reading.samples} == {five + timedelta(minutes=5)}


async def test_disks_of_databases_by_what_was_allocated(aws: FakeAws) -> None:
    aws.databases_gib = {"ledger-db": 100, "orders-db": 40, "small-db": 0}
    for name in (*aws.databases_gib, "gone-db"):
        aws.measure("AWS/RDS", "FreeStorageSpace", {"DBInstanceIdentifier": name}, {LAST: [20.0 * 2**30, 10.0 * 2**30]})
    reading = await read(aws, names={"orders-db": "orders"})
    assert newest(reading) == pytest.approx(
        {("ledger-db", Signal.DISK_RATIO, "ledger-db"): 0.9, ("orders", Signal.DISK_RATIO, "orders-db"): 0.75}
    )
    assert len(aws.calls("DescribeDBInstances")) == 3


async def test_sizes_that_may_not_be_read_leave_the_rest_of_the_databases(aws: FakeAws) -> None:
    aws.measure("AWS/RDS", "CPUUtilization", {"DBInstanceIdentifier": "ledger-db"}, {LAST: [20.0]})
    aws.measure("AWS/RDS", "FreeStorageSpace", {"DBInstanceIdentifier": "ledger-db"}, {LAST: [2.0]})
    aws.refuse["DescribeDBInstances"] = Refused("AccessDenied", "rds:DescribeDBInstances", 403)
    reading = await read(aws)
    assert newest(reading) == {("ledger-db", Signal.CPU_RATIO, ""): 0.2}
    assert [failure.reason for failure in reading.failures] == [f"AccessDenied: rds:DescribeDBInstances; {FOR_GOOD}"]


async def test_another_cluster_is_left_out(aws: FakeAws) -> None:
    aws.measure("AWS/ECS", "CPUUtilization", ECS, {LAST: [20.0]})
    aws.measure("AWS/ECS", "CPUUtilization", {**ECS, "ClusterName": "test"}, {LAST: [99.0]})
    assert newest(await read(aws, only={"ClusterName": "prod"})) == {("shop", Signal.CPU_RATIO, ""): 0.2}


async def test_expressions_of_ones_own(aws: FakeAws) -> None:
    select = 'SELECT AVG(QueueShare) FROM "Shop"'
    aws.expressions[select] = {int(LAST.timestamp()): 0.8}
    own = CloudWatchExpression(SHOP, Signal.QUOTA_RATIO, select)
    assert newest(await read(aws, namespaces=(), expressions=(own,))) == {("shop", Signal.QUOTA_RATIO, ""): 0.8}


async def test_pages_of_metrics_and_of_values_and_no_more_than_500_queries_a_call(aws: FakeAws) -> None:
    aws.listed_a_page, aws.points_a_page = 250, 700
    for n in range(300):
        for metric in ("Invocations", "Errors", "Duration"):
            points = {LAST - MINUTE * k: [60.0] for k in range(3)}
            aws.measure("AWS/Lambda", metric, {"FunctionName": f"f{n:03}"}, points)
    reading = await read(aws, namespaces=("AWS/Lambda",))
    assert reading.failures == ()
    assert len(reading.samples) == 300 * 3 * 3
    assert len({sample.key.service for sample in reading.samples}) == 300
    bodies = aws.calls("GetMetricData")
    assert max(len(body["MetricDataQueries"]) for body in bodies) <= 500
    assert len(aws.calls("ListMetrics")) == 4
    assert any("NextToken" in body for body in bodies)


@pytest.mark.parametrize(("delay_s", "ends"), [(60.0, [0]), (30.0, [0, 1])])
async def test_minutes_that_may_still_change_are_waited_for(aws: FakeAws, delay_s: float, ends: list[int]) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST + n * MINUTE: [100.0] for n in (0, 1, 2)})
    reading = await read(aws, delay_s=delay_s)
    assert [sample.at for sample in reading.samples] == [LAST + MINUTE + n * MINUTE for n in ends]


async def test_what_was_told_is_not_told_again_and_gaps_are_filled_up(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST - MINUTE: [100.0], LAST: [200.0]})
    async with at_aws(aws) as source:
        first = await source.read(NOW)
        soon = await source.read(NOW + timedelta(seconds=10))
        asked = len(aws.requests)
        aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST + k * MINUTE: [300.0 + k] for k in (1, 2)})
        later = await source.read(NOW + 2 * MINUTE)
    assert [sample.value for sample in first.samples] == [0.1, 0.2]
    assert (soon.samples, soon.rejected, len(aws.requests) - asked) == ((), {}, 1)
    assert [sample.value for sample in later.samples] == [0.301, 0.302]
    assert later.rejected == {}
    assert [sample.at for sample in later.samples] == [LAST + 2 * MINUTE, LAST + 3 * MINUTE]


async def test_new_services_are_found_in_time(aws: FakeAws) -> None:
    async with at_aws(aws, namespaces=("AWS/Lambda",), discover_s=300) as source:
        assert (await source.read(NOW)).samples == ()
        aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST + 5 * MINUTE: [200.0]})
        assert (await source.read(NOW + 4 * MINUTE)).samples == ()
        assert len((await source.read(NOW + 5 * MINUTE)).samples) == 1


async def test_a_failure_stays_visible_between_polls(aws: FakeAws) -> None:
    aws.refuse["ListMetrics"] = Refused("AccessDenied", "not authorized to perform: cloudwatch:ListMetrics", 403)
    async with at_aws(aws) as source:
        first = await source.read(NOW)
        soon = await source.read(NOW + timedelta(seconds=10))
    (failure,) = first.failures
    assert failure.source == "cloudwatch"
    assert failure.reason == f"AccessDenied: not authorized to perform: cloudwatch:ListMetrics; {FOR_GOOD}"
    assert soon.failures == first.failures


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "RequestLimitExceeded", "InternalServiceFault"])
async def test_throttling_is_a_matter_of_time(aws: FakeAws, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_client, "_ATTEMPTS", 1)
    aws.refuse["ListMetrics"] = Refused(code, "Rate exceeded", 500 if code == "InternalServiceFault" else 400)
    (failure,) = (await read(aws)).failures
    assert failure.reason == f"{code}: Rate exceeded; {AGAIN}"
    assert len(aws.calls("ListMetrics")) == 1


async def test_a_throttled_call_is_repeated_once(aws: FakeAws) -> None:
    aws.refuse["ListMetrics"] = Refused("Throttling", "Rate exceeded")
    await read(aws)
    assert len(aws.calls("ListMetrics")) == 2


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidClientTokenId", "AccessDeniedException"])
async def test_refusals_say_that_something_must_be_changed(aws: FakeAws, code: str) -> None:
    aws.refuse["ListMetrics"] = Refused(code, "the security token is not valid", 403)
    (failure,) = (await read(aws)).failures
    assert failure.reason == f"{code}: the security token is not valid; {FOR_GOOD}"


async def test_one_forbidden_metric_leaves_the_others(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST: [200.0]})
    aws.measure("AWS/ECS", "CPUUtilization", ECS, {LAST: [20.0]})
    aws.forbidden.add("Duration")
    reading = await read(aws)
    assert newest(reading) == {("shop", Signal.CPU_RATIO, ""): 0.2}
    assert [failure.reason.endswith(FOR_GOOD) for failure in reading.failures] == [True]


async def test_a_listing_that_fails_keeps_what_was_known(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST: [200.0], LAST + 10 * MINUTE: [210.0]})
    async with at_aws(aws) as source:
        await source.read(NOW)
        aws.refuse["ListMetrics"] = Refused("AccessDenied", status=403)
        later = await source.read(NOW + 10 * MINUTE)
    assert [sample.value for sample in later.samples] == [0.21]
    assert len(later.failures) == 1


async def test_half_an_answer_is_not_used(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST - MINUTE: [100.0], LAST: [300.0]})
    aws.half_answer = True
    reading = await read(aws, namespaces=("AWS/Lambda",))
    assert reading.samples == ()
    assert [failure.reason for failure in reading.failures] == [
        f"half an answer: times and values do not match; {AGAIN}"
    ]


async def test_values_that_are_no_numbers_are_counted(aws: FakeAws) -> None:
    seconds = int(LAST.timestamp())
    aws.expressions["e"] = {seconds - 120: float("nan"), seconds - 60: float("inf"), seconds: 0.5}
    own = CloudWatchExpression(SHOP, Signal.QUOTA_RATIO, "e")
    reading = await read(aws, namespaces=(), expressions=(own,))
    assert reading.rejected == {"not finite": 2}
    assert [sample.value for sample in reading.samples] == [0.5]


async def test_values_that_come_too_late_are_counted(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST - 4 * MINUTE: [200.0]})
    reading = await read(aws, NOW + timedelta(seconds=25))
    assert (reading.samples, reading.rejected) == ((), {"too old": 1})


@pytest.mark.parametrize("fault", ENDING)
async def test_a_provider_in_trouble_is_a_failure_in_the_reading(aws: FakeAws, fault: Fault) -> None:
    async with FaultyServer(aws.app, refusal=REFUSAL) as server:
        timeout_s = 0.3 if fault is Fault.DRIP else 10.0
        source = CloudWatchSource(AwsClient(region="eu-central-1", endpoint_url=server.url, timeout_s=timeout_s))
        await server.misbehave(fault)
        reading = await source.read(NOW)
        await source.close()
    assert reading.samples == ()
    assert len(reading.failures) == 1
    told(reading.failures, "cloudwatch", fault)


async def test_the_event_loop_goes_on_while_aws_keeps_us_waiting(aws: FakeAws) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def late(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        asked.set()
        await answer.wait()
        response: web.StreamResponse = await handler(request)
        return response

    aws.app.middlewares.append(late)
    async with at_aws(aws) as source:
        reading = asyncio.create_task(source.read(NOW))
        await asked.wait()  # the server lives in this loop: it could not be asked if the loop were blocked
        answer.set()
        assert (await reading).failures == ()


async def test_a_reading_is_bounded_as_a_whole_and_what_was_listed_is_kept(aws: FakeAws) -> None:
    stuck = asyncio.Event()
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST: [200.0], LAST + MINUTE: [210.0]})

    @web.middleware
    async def holding(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if request.headers["X-Amz-Target"].endswith("GetMetricData") and not stuck.is_set():
            await stuck.wait()
        response: web.StreamResponse = await handler(request)
        return response

    aws.app.middlewares.append(holding)
    async with at_aws(aws, namespaces=("AWS/Lambda",), total_timeout_s=1.0) as source:
        first = await source.read(NOW)
        stuck.set()
        later = await source.read(NOW + MINUTE)
    assert [failure.reason for failure in first.failures] == [f"not read within 1 s; {AGAIN}"]
    assert [sample.value for sample in later.samples] == [0.2, 0.21]
    assert len(aws.calls("ListMetrics")) == 1


async def test_an_answer_that_drips_for_ever_holds_no_thread_for_ever(aws: FakeAws) -> None:
    async with FaultyServer(aws.app) as server:
        client = AwsClient(region="eu-central-1", endpoint_url=server.url, timeout_s=0.3)
        await server.misbehave(Fault.DRIP)
        assert (await CloudWatchSource(client).read(NOW)).failures
        await client.close()
        while any(thread.name.startswith("aws_") for thread in threading.enumerate()):
            await asyncio.sleep(0.02)


async def test_no_credentials(aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (failure,) = (await read(aws)).failures
    assert failure.reason == f"no AWS credentials: Unable to locate credentials; {FOR_GOOD}"
    assert aws.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"region": None}, "no region; set it here, as AWS_REGION or in the profile"),
        ({"profile": "nobody"}, "nobody"),
        ({"endpoint_url": "localhost:5000"}, "must start with http"),
    ],
)
def test_settings_of_the_account_that_cannot_be(arguments: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AwsClient(**{"region": "eu-central-1", **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"), [({"namespaces": ("AWS/Nothing",)}, "AWS/Nothing"), ({"delay_s": 900.0}, "delay")]
)
async def test_settings_that_cannot_be(arguments: Mapping[str, Any], words: str) -> None:
    client = AwsClient(region="eu-central-1")
    with pytest.raises(ConfigurationError, match=words):
        CloudWatchSource(client, **arguments)
    await client.close()


async def test_the_policy_we_ship_allows_what_is_asked_for_and_no_more(aws: FakeAws) -> None:
    aws.measure("AWS/Lambda", "Duration", FUNCTION, {LAST: [200.0]})
    aws.measure("AWS/RDS", "FreeStorageSpace", {"DBInstanceIdentifier": "ledger-db"}, {LAST: [2.0]})
    aws.groups["/ecs/shop"] = LogGroup()
    aws.polls = 1_000_000
    async with FaultyServer(aws.app) as server:
        client = AwsClient(region="eu-central-1", endpoint_url=server.url)
        await CloudWatchSource(client).read(NOW)
        logs = CloudWatchLogsSource(client, groups={"/ecs/shop": SHOP}, query_timeout_s=0.1)
        await logs.tail(NOW - MINUTE, NOW, limit=5)
        await logs.search(SHOP, "x", NOW - MINUTE, NOW, limit=5)
        aws.traces["1-00000001-000000000000000000000001"] = [
            {"id": "a", "name": "shop", "start_time": LAST.timestamp(), "end_time": LAST.timestamp()}
        ]
        await XRayTracesSource(client).search(SHOP, LAST, NOW, limit=5)
        await XRayTopologySource(client).edges(LAST, NOW)
        await client.close()
    policy = json.loads((Path(aws_client.__file__).parent / "aws-readonly-policy.json").read_text())
    statements = policy["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    assert {action for statement in statements for action in statement["Action"]} == aws.actions


async def test_moto_holds_the_same_listing_and_statistics() -> None:
    """moto is the second opinion on the requests' shapes. It knows no percentiles."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        now = datetime.now(UTC)
        minute = now.replace(second=0, microsecond=0) - 3 * MINUTE

        def put(metric: str, dimensions: Mapping[str, str], values: Sequence[float], namespace: str) -> None:
            cloudwatch = boto3.client("cloudwatch", region_name="eu-central-1", endpoint_url=url)
            named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
            data = [{"MetricName": metric, "Dimensions": named, "Value": v, "Timestamp": minute} for v in values]
            cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)

        await asyncio.to_thread(put, "Invocations", FUNCTION, [100.0, 140.0], "AWS/Lambda")
        await asyncio.to_thread(put, "Errors", FUNCTION, [6.0], "AWS/Lambda")
        await asyncio.to_thread(put, "MemoryUtilization", ECS, [40.0, 91.0], "AWS/ECS")
        client = AwsClient(region="eu-central-1", endpoint_url=url)
        source = CloudWatchSource(client, namespaces=("AWS/Lambda", "AWS/ECS"))
        reading = await source.read(now)
        await source.close()
    finally:
        await asyncio.to_thread(server.stop)
    assert reading.failures == ()
    assert newest(reading) == pytest.approx(
        {
            ("resize", Signal.TRAFFIC, ""): 4.0,
            ("resize", Signal.ERROR_RATIO, ""): 0.025,
            ("shop", Signal.MEMORY_RATIO, ""): 0.91,
        }
    )
    assert {sample.at for sample in reading.samples} == {minute + MINUTE}
