"""Pixie through gRPC-web: metrics, call edges and activity, and the messages as Google's protobuf writes them."""

import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.adapters.telemetry.pixie import PixieActivitySource, PixieSource, PixieTopologySource
from pipeline.adapters.telemetry.pixie_client import Pixie, service_name
from pipeline.adapters.telemetry.pixie_wire import WireError, read_result
from pipeline.domain.activity import ActivityKind
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Reading, SeriesKey, Signal
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.pixie_server import CLUSTER, KEY, REFUSAL, FakePixie
from tests.contract.telemetry.suite import AGAIN, CART, ENDING, FOR_GOOD, SHOP, TopologyContract, long_ago, told

NOW = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
END = NOW - timedelta(seconds=10)
FROM_PROTOBUF = bytes.fromhex(
    "000000005e12017122590a490a0b0a077365727669636510050a0c0a08726571756573747310020a0f0a0b6572726f725f726174696f10040a060a02757010010a090a0574696d655f10060a080a04757069641003120872657175657374731a023766000000007c1201711a770a750a1932170a0970726f642f73686f700a0a70726f642f6bc3a472740a10120e0a0cac02ffffffffffffffffff010a142a120a10000000000000d03f00000000000000000a060a040a0201000a0e220c0a0a8080a8b1e39fe7cb17000a0e1a0c0a04080110020a04080310041002180120012a023766000000000d1201711a0812060a020805100c800000001e677270632d7374617475733a300d0a677270632d6d6573736167653a0d0a"
)
"""A table of two rows with a column of each type, statistics and trailers, written by Google's protobuf 5.29 from
Pixie's published messages."""
REFUSED_BY_PROTOBUF = bytes.fromhex(
    "000000002e0a2c08031207636f6d70696c65221f0a1d080410021a176e616d6520277827206973206e6f7420646566696e65648000000010677270632d7374617475733a20300d0a"
)


class World:
    """One cluster, for all ports."""

    def __init__(self, pixie: FakePixie, server: FaultyServer) -> None:
        self.pixie = pixie
        self.server = server
        self.patient_client = Pixie(server.url, KEY, CLUSTER)
        self.impatient_client = Pixie(server.url, KEY, CLUSTER, timeout_s=0.3)

    @property
    def source(self) -> PixieTopologySource:
        return PixieTopologySource(self.patient_client)

    @property
    def impatient(self) -> PixieTopologySource:
        return PixieTopologySource(self.impatient_client)

    async def put(self, edges: Sequence[CallEdge], since: datetime, until: datetime) -> None:
        window_s = (until - since).total_seconds()
        for edge in edges:
            address = f"10.0.0.{len(self.pixie.pods)}"
            self.pixie.pods[address] = f"prod/{edge.caller}"
            calls = round(edge.calls_per_s * window_s)
            for n in range(calls):
                request(self, since + timedelta(seconds=n * window_s / calls), str(edge.callee), remote_addr=address)

    async def misbehave(self, fault: Fault) -> None:
        await self.server.misbehave(fault)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    pixie = FakePixie()
    async with AsyncExitStack() as stack:
        world = World(pixie, await stack.enter_async_context(FaultyServer(pixie.app, refusal=REFUSAL)))
        stack.push_async_callback(world.patient_client.close)
        stack.push_async_callback(world.impatient_client.close)
        yield world


def request(
    world: World, at: datetime, service: str, *, status: int = 200, latency_s: float = 0.1, **columns: Any
) -> None:
    latency = int(latency_s * 1e9)
    world.pixie.put("http_events", at, f"prod/{service}", resp_status=status, latency=latency, **columns)


def values(reading: Reading) -> dict[tuple[str, Signal], float]:
    return {(sample.key.service, sample.key.signal): sample.value for sample in reading.samples}


class TestTopology(TopologyContract):
    """The contract of every TopologySource; the world is this module's."""


async def test_a_service_by_the_requests_that_reached_it(world: World) -> None:
    for n in range(100):
        at = END - timedelta(seconds=1 + n % 50)
        request(world, at, "shop", status=503 if n < 5 else 404 if n < 20 else 200, latency_s=2.0 if n < 3 else 0.1)
        request(world, at, "shop", trace_role=1, status=500)  # what it asked of others is not its own
    for at in (END + timedelta(seconds=1), END - timedelta(seconds=61)):
        request(world, at, "shop", status=500)
    reading = await PixieSource(world.patient_client).read(NOW)
    assert (reading.failures, reading.rejected) == ((), {})
    assert values(reading) == {
        ("shop", Signal.TRAFFIC): pytest.approx(100 / 60),
        ("shop", Signal.ERROR_RATIO): pytest.approx(0.05),
        ("shop", Signal.LATENCY_P99): pytest.approx(2.0),
    }
    assert {sample.at for sample in reading.samples} == {END}


async def test_traffic_that_ends_is_zero_while_the_pods_live(world: World) -> None:
    source = PixieSource(world.patient_client)
    processes: dict[str, Any] = {
        "cpu_utime_ns": 1,
        "cpu_ktime_ns": 1,
        "rss_bytes": 1,
        "rchar_bytes": 1,
        "wchar_bytes": 1,
    }
    request(world, END - timedelta(seconds=5), "shop")
    for service in ("shop", "batch"):
        for minute in (0, 2):
            at = END + timedelta(minutes=minute, seconds=-5)
            world.pixie.put("process_stats", at, f"prod/{service}", **processes)
    assert ("shop", Signal.TRAFFIC) in values(await source.read(NOW))
    silent = await source.read(NOW + timedelta(minutes=2))
    assert values(silent) == {("shop", Signal.TRAFFIC): 0.0}
    assert silent.samples[0].key == SeriesKey(SHOP, Signal.TRAFFIC)
    assert values(await source.read(NOW + timedelta(minutes=4))) == {}  # the pods are gone, and so is the series


async def test_one_namespace_of_several(world: World) -> None:
    request(world, END - timedelta(seconds=5), "shop")
    world.pixie.put("http_events", END - timedelta(seconds=5), "test/shop", resp_status=500, latency=9)
    reading = await PixieSource(world.patient_client, namespace="prod").read(NOW)
    assert values(reading)["shop", Signal.ERROR_RATIO] == 0.0


async def test_connections_where_there_is_no_http(world: World) -> None:
    start = long_ago()
    until = start + timedelta(minutes=1)
    world.pixie.pods["10.0.0.9"] = "prod/ledger"
    for second, opened in ((1, 100), (30, 130), (59, 160)):
        at = start + timedelta(seconds=second)
        columns: dict[str, Any] = {
            "conn_open": opened,
            "conn_active": 3,
            "bytes_sent": 1,
            "bytes_recv": 1,
            "remote_addr": "10.0.0.9",
        }
        world.pixie.put("conn_stats", at, "prod/cart", trace_role=1, **columns)
        world.pixie.put("conn_stats", at, "prod/ledger", trace_role=2, **columns)
    await world.put([CallEdge(SHOP, CART, 4.0)], start, until)
    reading = await world.source.edges(start, until)
    assert set(reading.edges) == {CallEdge(CART, ServiceName("ledger"), 1.0), CallEdge(SHOP, CART, 4.0)}


async def test_processes_system_calls_and_flows_of_a_service(world: World) -> None:
    start = long_ago()
    until = start + timedelta(minutes=1)
    who: dict[str, Any] = {"pod": "prod/shop-7d-a", "cmdline": "/app/shop --port 80", "upid": 5}
    for second in (1, 11):
        at = start + timedelta(seconds=second)
        world.pixie.put(
            "process_stats",
            at,
            "prod/shop",
            **who,
            cpu_utime_ns=second * 600_000_000,
            cpu_ktime_ns=second * 200_000_000,
            rss_bytes=256 * 2**20,
            rchar_bytes=second * 5000,
            wchar_bytes=7,
        )
        world.pixie.put("process_stats", at, "prod/shop-canary", pod="prod/x", cpu_utime_ns=0, cpu_ktime_ns=0,
                        rss_bytes=0, rchar_bytes=0, wchar_bytes=0)  # fmt: skip
        world.pixie.put(
            "conn_stats",
            at,
            "prod/shop",
            **who,
            trace_role=1,
            remote_addr="10.0.3.7",
            remote_port=5432,
            conn_open=1,
            conn_active=4,
            bytes_sent=second * 1000,
            bytes_recv=second * 3000,
        )
    reading = await PixieActivitySource(world.patient_client).activity(SHOP, start, until)
    assert reading.failures == ()
    assert [(one.kind, one.instance, one.statement, one.value) for one in reading.activities] == [
        (ActivityKind.SYSCALLS, "shop-7d-a", "/app/shop --port 80 read 5.0 kB/s by system calls", 5000.0),
        (
            ActivityKind.NETWORK_FLOW,
            "shop-7d-a",
            "to 10.0.3.7:5432: 1.0 kB/s sent, 3.0 kB/s received, 4 open",
            4000.0,
        ),
        (
            ActivityKind.PROCESS,
            "shop-7d-a",
            "/app/shop --port 80: 0.80 CPUs, 256 MiB resident",
            pytest.approx(0.8),
        ),
    ]
    assert {(one.service, one.at) for one in reading.activities} == {(SHOP, until)}


async def test_no_more_than_the_largest_figures(world: World) -> None:
    start = long_ago()
    for n in range(40):
        for second in (0, 10):
            columns: dict[str, Any] = {
                "conn_open": 1,
                "conn_active": 1,
                "bytes_sent": second * n * 100,
                "bytes_recv": 0,
            }
            at = start + timedelta(seconds=second)
            world.pixie.put("conn_stats", at, "prod/shop", pod="prod/a", remote_addr=f"10.0.1.{n}", **columns)
    reading = await PixieActivitySource(world.patient_client).activity(SHOP, start, start + timedelta(minutes=1))
    assert [one.value for one in reading.activities] == [n * 100.0 for n in range(39, 19, -1)]


async def test_a_name_that_is_none_never_comes_into_a_script(world: World) -> None:
    start = long_ago()
    name = ServiceName("x')\npx.display(px.DataFrame('http_events'))#")
    reading = await PixieActivitySource(world.patient_client).activity(name, start, start + timedelta(minutes=1))
    assert (reading.activities, reading.failures, world.pixie.scripts) == ((), (), [])


@pytest.mark.parametrize(
    ("code", "ending"), [(14, AGAIN), (8, AGAIN), (4, AGAIN), (7, FOR_GOOD), (16, FOR_GOOD), (3, FOR_GOOD)]
)
@pytest.mark.parametrize("late", [False, True])
async def test_refusals_of_grpc(world: World, code: int, ending: str, late: bool) -> None:
    refusal = (code, "in%20Pixie%27s words")
    world.pixie.refuse, world.pixie.refuse_late = (None, refusal) if late else (refusal, None)
    (failure,) = (await PixieSource(world.patient_client).read(NOW)).failures
    assert "in Pixie's words; " in failure.reason
    assert failure.reason.endswith(ending)


@pytest.mark.parametrize(
    ("key", "cluster", "reason"),
    [("other", CLUSTER, "failed to fetch token"), (KEY, CLUSTER.replace("1e", "2e"), "Vizier not found")],
)
async def test_a_wrong_key_or_cluster(world: World, key: str, cluster: str, reason: str) -> None:
    client = Pixie(world.server.url, key, cluster)
    (failure,) = (await PixieSource(client).read(NOW)).failures
    await client.close()
    assert failure.reason == f"{reason}; {FOR_GOOD}"


async def test_a_script_that_does_not_compile_says_where(world: World) -> None:
    world.pixie.body = REFUSED_BY_PROTOBUF
    (failure,) = (await PixieSource(world.patient_client).read(NOW)).failures
    assert failure.reason == f"compile; line 4: name 'x' is not defined; {FOR_GOOD}"


async def test_half_a_stream(world: World) -> None:
    world.pixie.body = FROM_PROTOBUF[:-20]
    (failure,) = (await PixieSource(world.patient_client).read(NOW)).failures
    assert failure.reason == f"the answer ended before its end; {AGAIN}"


async def test_values_that_make_no_sense(world: World) -> None:
    request(world, END - timedelta(seconds=5), "shop", latency_s=0.1)
    world.pixie.put("http_events", END - timedelta(seconds=5), "prod/cart", resp_status=200, latency=float("inf"))
    reading = await PixieSource(world.patient_client).read(NOW)
    assert reading.rejected == {"not finite": 1}
    assert ("cart", Signal.LATENCY_P99) not in values(reading)


@pytest.mark.parametrize("fault", ENDING)
async def test_a_provider_in_trouble_is_a_failure_in_the_reading(world: World, fault: Fault) -> None:
    await world.misbehave(fault)
    client = world.impatient_client if fault is Fault.DRIP else world.patient_client
    metrics = await PixieSource(client).read(NOW)
    activity = await PixieActivitySource(client).activity(SHOP, NOW - timedelta(minutes=1), NOW)
    assert (metrics.samples, activity.activities) == ((), ())
    told([*metrics.failures, *activity.failures], "pixie", fault)


def test_messages_as_protobuf_writes_them() -> None:
    result = read_result(FROM_PROTOBUF)
    assert result is not None
    assert (result.code, result.message) == (0, "")
    assert result.tables["requests"].rows == [
        {"service": "prod/shop", "requests": 300, "error_ratio": 0.25, "up": True, "time_": 1_700_000_000_000_000_000,
         "upid": "08011002"},
        {"service": "prod/kärt", "requests": -1, "error_ratio": 0.0, "up": False, "time_": 0, "upid": "08031004"},
    ]  # fmt: skip


def test_no_bytes_whatsoever_do_more_than_be_refused() -> None:
    for at in range(len(FROM_PROTOBUF)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(FROM_PROTOBUF)
            broken[at] ^= flip
            with suppress(WireError):
                read_result(bytes(broken))


@pytest.mark.parametrize(
    "body",
    [
        struct.pack(">BI", 1, 0),
        struct.pack(">BI", 0x80, 2) + b"no",
        struct.pack(">BI", 0, 11) + b"\xff" * 11,
        struct.pack(">BI", 0, 2) + b"\x08\x01",
    ],
)
async def test_frames_that_are_none(world: World, body: bytes) -> None:
    world.pixie.body = body
    (failure,) = (await PixieSource(world.patient_client).read(NOW)).failures
    assert failure.reason.startswith("not an answer of Pixie's API: ")


@pytest.mark.parametrize(
    ("value", "namespace", "name"),
    [
        ("prod/shop", "", "shop"),
        ("prod/shop", "prod", "shop"),
        ("prod/shop", "test", ""),
        ('["prod/shop-b","prod/shop"]', "", "shop"),
        ("shop", "prod", "shop"),
        ("", "", ""),
        (7, "", ""),
        (None, "", ""),
    ],
)
def test_names_of_services(value: Any, namespace: str, name: str) -> None:
    assert service_name(value, namespace) == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "work.example.com"}, "http"),
        ({"key": ""}, "API key"),
        ({"key": "a\nb"}, "API key"),
        ({"cluster_id": "prod"}, "UUID"),
    ],
)
def test_settings_that_cannot_be(arguments: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Pixie(**{"url": "https://work.example.com", "key": KEY, "cluster_id": CLUSTER, **arguments})


@pytest.mark.parametrize("arguments", [{"window_s": 5.0}, {"window_s": 900.0}, {"delay_s": -1.0}])
def test_windows_that_cannot_be(arguments: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        PixieSource(Pixie("https://work.example.com", KEY, CLUSTER), **arguments)
