"""CloudWatch Logs through boto3: the contract of every LogsSource, and what is AWS' own."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.adapters.telemetry.aws_client import AwsClient
from pipeline.adapters.telemetry.cloudwatch_logs import CloudWatchLogsSource
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine
from tests.contract.telemetry.aws_server import REFUSAL, FakeAws, LogGroup, Refused, use_test_credentials
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.suite import AGAIN, CART, FOR_GOOD, SHOP, LogsContract, long_ago

GROUPS = {"/ecs/shop": SHOP, "/aws/lambda/cart": CART}


class World:
    def __init__(self, aws: FakeAws, server: FaultyServer) -> None:
        self.aws = aws
        self._server = server
        self._clients: list[AwsClient] = []
        self.source = self.reading()
        self.impatient = self.reading(timeout_s=0.3)

    def reading(
        self,
        *,
        timeout_s: float = 10.0,
        groups: Mapping[str, ServiceName] = GROUPS,
        query_timeout_s: float = 30.0,
    ) -> CloudWatchLogsSource:
        client = AwsClient(region="eu-central-1", endpoint_url=self._server.url, timeout_s=timeout_s)
        self._clients.append(client)
        return CloudWatchLogsSource(client, groups=groups, query_timeout_s=query_timeout_s)

    async def put(self, lines: Sequence[LogLine]) -> None:
        groups = {service: group for group, service in GROUPS.items()}
        for line in lines:
            group = self.aws.groups[groups[line.service]]
            group.events.append((int(line.at.timestamp() * 1000), "stream/1", line.text))

    async def misbehave(self, fault: Fault) -> None:
        await self._server.misbehave(fault)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    aws = FakeAws()
    aws.groups = {name: LogGroup() for name in GROUPS}
    async with AsyncExitStack() as stack:
        world = World(aws, await stack.enter_async_context(FaultyServer(aws.app, refusal=REFUSAL)))
        stack.push_async_callback(world.close)
        yield world


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    use_test_credentials(monkeypatch)
    async with a_world() as world:
        yield world


class TestContract(LogsContract):
    """The contract of every LogsSource."""


def at(start: datetime, second: int, text: str, service: ServiceName = SHOP) -> LogLine:
    return LogLine(start + timedelta(seconds=second), service, text)


async def test_a_tail_of_many_pages_ends_with_the_newest_and_asks_for_no_more(world: World) -> None:
    start = long_ago()
    world.aws.events_a_page = 3
    await world.put([at(start, n, f"line {n}") for n in range(30)])
    reading = await world.reading(groups={"/ecs/shop": SHOP}).tail(start, start + timedelta(minutes=1), limit=7)
    assert [line.text for line in reading.lines] == [f"line {n}" for n in range(23, 30)]
    assert reading.truncated
    assert len(world.aws.calls("FilterLogEvents")) == 3


async def test_one_group_that_is_gone_costs_its_own_lines_alone(world: World) -> None:
    start = long_ago()
    await world.put([at(start, 1, "here")])
    del world.aws.groups["/aws/lambda/cart"]
    reading = await world.source.tail(start, start + timedelta(minutes=1), limit=5)
    assert [line.text for line in reading.lines] == ["here"]
    (failure,) = reading.failures
    assert failure.source == "cloudwatch logs /aws/lambda/cart"
    assert failure.reason == f"ResourceNotFoundException: The specified log group does not exist.; {FOR_GOOD}"


async def test_results_are_waited_for_and_partial_ones_not_used(world: World) -> None:
    start = long_ago()
    world.aws.polls = 2
    await world.put([at(start, n, f"timeout {n}") for n in range(3)])
    reading = await world.source.search(SHOP, "timeout", start, start + timedelta(minutes=1), limit=5)
    assert [line.text for line in reading.lines] == ["timeout 0", "timeout 1", "timeout 2"]
    assert len(world.aws.calls("GetQueryResults")) == 3
    assert not world.aws.queries["query-0"].stopped


async def test_a_query_that_does_not_end_is_stopped(world: World) -> None:
    start = long_ago()
    world.aws.polls = 1_000_000
    source = world.reading(query_timeout_s=0.5)
    reading = await source.search(SHOP, "x", start, start + timedelta(minutes=1), limit=5)
    assert [failure.reason for failure in reading.failures] == [f"Logs Insights gave no result within 0.5 s; {AGAIN}"]
    assert world.aws.queries["query-0"].stopped


async def test_a_query_nobody_waits_for_any_more_is_stopped(world: World) -> None:
    start = long_ago()
    world.aws.polls = 1_000_000
    asking = asyncio.create_task(world.source.search(SHOP, "x", start, start + timedelta(minutes=1), limit=5))
    while not world.aws.calls("GetQueryResults"):
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert world.aws.queries["query-0"].stopped


@pytest.mark.parametrize("end", ["Failed", "Cancelled", "Timeout"])
async def test_a_query_that_failed_says_so(world: World, end: str) -> None:
    start = long_ago()
    world.aws.query_end = end
    await world.put([at(start, 1, "x")])
    reading = await world.source.search(SHOP, "x", start, start + timedelta(minutes=1), limit=5)
    assert reading.lines == ()
    assert [failure.reason for failure in reading.failures] == [f"Logs Insights ended the query: {end}; {AGAIN}"]


async def test_too_many_queries_at_once_is_a_matter_of_time(world: World) -> None:
    start = long_ago()
    world.aws.refuse["StartQuery"] = Refused("LimitExceededException", "Account maximum query concurrency of [30]")
    reading = await world.source.search(SHOP, "x", start, start + timedelta(minutes=1), limit=5)
    assert [failure.reason for failure in reading.failures] == [
        f"LimitExceededException: Account maximum query concurrency of [30]; {AGAIN}"
    ]


async def test_the_line_without_what_agents_put_around_it(world: World) -> None:
    start = long_ago()
    wrapped = '{"log": "GET /cart 200\\n", "stream": "stdout", "kubernetes": {"pod_name": "shop-1"}}'
    await world.put([at(start, 1, wrapped), at(start, 2, "END RequestId\n"), at(start, 3, '{"log": 7}')])
    reading = await world.source.tail(start, start + timedelta(minutes=1), limit=5)
    assert [line.text for line in reading.lines] == ["GET /cart 200", "END RequestId", '{"log": 7}']
    assert {line.instance for line in reading.lines} == {"stream/1"}


async def test_moto_holds_the_same_tail_and_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto is the second opinion on the requests' shapes; it knows plain FilterLogEvents."""
    import boto3
    from moto.server import ThreadedMotoServer

    use_test_credentials(monkeypatch)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        now = datetime.now(UTC).replace(microsecond=0)

        def fill() -> None:
            logs = boto3.client("logs", region_name="eu-central-1", endpoint_url=url)
            logs.create_log_group(logGroupName="/ecs/shop")
            logs.create_log_stream(logGroupName="/ecs/shop", logStreamName="web/1")
            events = [
                {"timestamp": int((now - timedelta(seconds=30 - n)).timestamp() * 1000), "message": f"line {n}"}
                for n in range(5)
            ]
            logs.put_log_events(logGroupName="/ecs/shop", logStreamName="web/1", logEvents=events)

        await asyncio.to_thread(fill)
        client = AwsClient(region="eu-central-1", endpoint_url=url)
        source = CloudWatchLogsSource(client, groups={"/ecs/shop": SHOP})
        reading = await source.tail(now - timedelta(minutes=1), now, limit=10)
        await source.close()
    finally:
        await asyncio.to_thread(server.stop)
    assert reading.failures == ()
    assert [(line.text, line.instance) for line in reading.lines] == [(f"line {n}", "web/1") for n in range(5)]
    assert reading.lines[0].at == now - timedelta(seconds=30)


@pytest.mark.parametrize("groups", [{}, {"a b": SHOP}, {"/ecs/shop": ServiceName("")}])
async def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch, groups: Mapping[str, ServiceName]) -> None:
    use_test_credentials(monkeypatch)
    client = AwsClient(region="eu-central-1")
    with pytest.raises(ConfigurationError, match="CloudWatch Logs"):
        CloudWatchLogsSource(client, groups=groups)
    await client.close()
