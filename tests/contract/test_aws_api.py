"""The AWS client of the targets: one write is one request, and what an error says of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from botocore.session import Session

from executors.targets.aws_api import READ_ATTEMPTS, Answer, AwsApi
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    SreBotError,
    TemporaryError,
)
from tests.aws_server import AwsServer, aws_credentials
from tests.ecs_world import REGION, EcsWorld, ServiceRecord
from tests.faults import Answer as Answered
from tests.faults import Fault, Proxy

WRITE = ("update_service", {"cluster": "shop", "service": "checkout", "desiredCount": 5})
READ = ("describe_services", {"cluster": "shop", "services": ["checkout"]})


class _Place:
    def __init__(self, proxy: Proxy, service: ServiceRecord) -> None:
        self.proxy, self.service = proxy, service
        self._apis: list[AwsApi] = []

    def api(self, *, timeout_s: float = 20.0, url: str = "") -> AwsApi:
        made = AwsApi("ecs", policy="p.json", region=REGION, endpoint_url=url or self.proxy.url, timeout_s=timeout_s)
        self._apis.append(made)
        return made

    def close(self) -> None:
        for api in self._apis:
            api.close()


@pytest.fixture
async def place() -> AsyncIterator[_Place]:
    with aws_credentials():
        async with AwsServer(EcsWorld("shop")) as server, Proxy(server.url) as proxy:
            made = _Place(proxy, server.world.create(ServiceRecord("shop", "checkout", desired=2)))
            yield made
            made.close()


def _refusal(status: int, code: str, **headers: str) -> Answered:
    body = f'{{"__type": "{code}", "message": "in the vendor\'s words"}}'
    return Answered(status, body.encode(), {"Content-Type": "application/x-amz-json-1.1", **headers})


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.LOST, OutcomeUnknown),
        (Fault.CUT, OutcomeUnknown),
        (_refusal(500, "ServerException"), OutcomeUnknown),
        (_refusal(503, "ServiceUnavailable", **{"Retry-After": "1"}), OutcomeUnknown),
        (Answered(502, b"<html>bad gateway</html>"), OutcomeUnknown),
        (_refusal(429, "TooManyRequestsException"), TemporaryError),
        (_refusal(400, "ThrottlingException"), TemporaryError),
        (_refusal(503, "RequestLimitExceeded"), TemporaryError),
        (_refusal(409, "ResourceConflictException"), TemporaryError),
        (_refusal(400, "ScalingActivityInProgress"), TemporaryError),
        (_refusal(412, "PreconditionFailedException"), PreconditionFailed),
        (_refusal(400, "ServiceNotFoundException"), PreconditionFailed),
        (_refusal(400, "ServiceNotActiveException"), PreconditionFailed),
        (_refusal(400, "InstanceRefreshInProgress"), PreconditionFailed),
        (_refusal(400, "AccessDeniedException"), PermanentError),
        (_refusal(403, "ExpiredTokenException"), PermanentError),
        (_refusal(400, "LimitExceededException"), PermanentError),
        (_refusal(400, "InvalidParameterException"), PermanentError),
    ],
)
async def test_one_write_is_one_request(place: _Place, fault: Fault | Answered, error: type[SreBotError]) -> None:
    place.proxy.strike(fault)
    with pytest.raises(error) as caught:
        await place.api().write(*WRITE)
    assert type(caught.value) is error
    assert len(place.proxy.requests) == 1
    if isinstance(fault, Answered) and fault.body.startswith(b"{"):
        assert "in the vendor's words" in str(caught.value)


async def test_a_read_is_tried_again_and_then_given_up(place: _Place) -> None:
    api = place.api()
    place.proxy.strike(Fault.LOST)
    await api.read(*READ, Answer)
    assert len(place.proxy.requests) == 2
    for _ in range(READ_ATTEMPTS):
        place.proxy.strike(_refusal(500, "ServerException"))
    with pytest.raises(TemporaryError, match="ServerException"):
        await api.read(*READ, Answer)
    assert len(place.proxy.requests) == 2 + READ_ATTEMPTS


async def test_a_throttled_write_says_when_to_come_back(place: _Place) -> None:
    place.proxy.strike(_refusal(400, "ThrottlingException", **{"Retry-After": "7"}))
    with pytest.raises(TemporaryError) as caught:
        await place.api().write(*WRITE)
    assert caught.value.retry_after_s == 7


async def test_without_a_connection_nothing_was_sent(place: _Place) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        api = place.api(url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(TemporaryError, match="nothing was sent"):
            await api.write(*WRITE)


async def test_a_silent_server_leaves_a_write_unknown_and_the_loop_free(place: _Place) -> None:
    api = place.api(timeout_s=0.5)
    await api.shown(*WRITE)  # reads the description of the API, which counts as part of a call
    place.proxy.strike(Fault.SILENT)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(OutcomeUnknown, match="ecs:UpdateService was sent to AWS and not answered"):
        await api.write(*WRITE)
    ticking.cancel()
    assert ticks > 1


async def test_a_call_that_was_given_up_does_not_leave_any_more(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    late = threading.Event()
    find = Session.get_credentials

    def slowly(session: Session) -> object:
        late.wait(60)
        return find(session)

    monkeypatch.setattr(Session, "get_credentials", slowly)
    api = place.api(timeout_s=0.2)
    with pytest.raises(TemporaryError, match="was not sent: no answer within"):
        await api.write(*WRITE)
    late.set()
    await asyncio.to_thread(api._threads.shutdown)
    assert place.proxy.requests == []
    assert place.service.desired == 2


async def test_an_account_without_credentials_sends_nothing(place: _Place) -> None:
    # Undone before the place's own patches are: the other way round these would stay for ever.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.Session", Session)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        with pytest.raises(PermanentError, match="no AWS credentials"):
            await place.api().write(*WRITE)
    assert place.proxy.requests == []


async def test_parameters_that_the_api_does_not_know_are_not_sent(place: _Place) -> None:
    with pytest.raises(PermanentError, match="ecs:UpdateService: Parameter validation failed"):
        await place.api().write("update_service", {"cluster": "shop"})
    assert place.proxy.requests == []


async def test_an_answer_of_another_shape_is_no_answer(place: _Place) -> None:
    class Strange(Answer):
        colour: str

    with pytest.raises(TemporaryError, match="not an answer of describe_services: colour"):
        await place.api().read(*READ, Strange)


def test_settings_that_cannot_work_are_named() -> None:
    with aws_credentials(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.Session", Session)
        with pytest.raises(ConfigurationError, match="no region"):
            AwsApi("ecs", policy="p.json")
        with pytest.raises(ConfigurationError, match="must start with http"):
            AwsApi("ecs", policy="p.json", region=REGION, endpoint_url="localhost")
        with pytest.raises(ConfigurationError, match="profile"):
            AwsApi("ecs", policy="p.json", region=REGION, profile="nobody")
