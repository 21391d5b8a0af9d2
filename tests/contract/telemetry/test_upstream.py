"""What every provider's calls have in common, over real HTTP: bounds, the breaker, waiting, typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.adapters.telemetry import guard
from pipeline.adapters.telemetry.guard import BREAKER_REST_S, BREAKER_THRESHOLD, MAX_REST_S, Guard, failure_of
from pipeline.adapters.telemetry.upstream import Access, Lenient, NotFound, Upstream, parse_answer, retry_after_s
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.telemetry import SourceFailure
from tests.contract.telemetry.faults import RETRY_AFTER_S, SAID, Fault, FaultyServer


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(guard, "monotonic", clock)
    return clock


@asynccontextmanager
async def upstream_of(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    *,
    access: Access | None = None,
    refusal: str = SAID,
    **arguments: Any,
) -> AsyncIterator[tuple[FaultyServer, Upstream]]:
    app = web.Application()
    app.router.add_route("*", "/base/{rest:.*}", handler)
    async with FaultyServer(app, refusal=refusal) as server:
        upstream = Upstream("vendor", f"{server.url}/base/", access=access or Access(), **arguments)
        yield server, upstream
        await upstream.close()


async def fine(request: web.Request) -> web.Response:
    return web.json_response({"path": request.path, "query": dict(request.query), "body": await request.text()})


async def fails(upstream: Upstream) -> str:
    with pytest.raises(TemporaryError) as caught:
        await upstream.get("/x")
    return str(caught.value)


async def test_requests_as_they_arrive() -> None:
    async with upstream_of(fine, access=Access(headers={"Authorization": "Bearer t0k3n"})) as (server, upstream):
        assert b'"/base/a/b"' in await upstream.get("/a/b", {"q": 'x & "y"'})
        assert server.headers["Authorization"] == "Bearer t0k3n"
        assert b'{\\"a\\": 1}' in await upstream.post("/j", json={"a": 1})
        assert b"k=v+w" in await upstream.post("/f", form={"k": "v w"}, params={"p": "1"})


async def test_a_user_and_password() -> None:
    async with upstream_of(fine, access=Access(basic=("sre", "pass:word"))) as (server, upstream):
        await upstream.get("/x")
        assert server.headers["Authorization"] == "Basic c3JlOnBhc3M6d29yZA=="


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (Fault.BUSY, TemporaryError, "HTTP 503: <html>too much to do</html>"),
        (Fault.LIMITED, TemporaryError, "HTTP 429: slower, please"),
        (Fault.REFUSED, PermanentError, f"HTTP 403: {SAID}"),
        (Fault.REDIRECT, PermanentError, "HTTP 302: no explanation (redirects are not followed: write the address"),
        (Fault.HUGE, PermanentError, "the answer is larger than 10 MiB"),
        (Fault.DOWN, TemporaryError, "Connection refused"),
    ],
)
async def test_each_trouble_has_its_type_and_words(fault: Fault, kind: type[Exception], reason: str) -> None:
    async with upstream_of(fine) as (server, upstream):
        await server.misbehave(fault)
        with pytest.raises((TemporaryError, PermanentError)) as caught:
            await upstream.get("/x")
        assert type(caught.value) is kind
        assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"status": "error", "error": "parse\\nerror"}', "parse error"),
        ('{"data": null, "errors": [{"code": 400, "msg": "no service"}]}', "no service"),
        ('{"errors": [{"message": "no such account"}]}', "no such account"),
        ('{"message": "not allowed", "code": 7}', "not allowed"),
        ('{"error": {"nested": 1}}', '{"error": {"nested": 1}}'),
        ('{"code": 7}', '{"code": 7}'),
        ("[1]", "[1]"),
        ("", "no explanation"),
    ],
)
async def test_the_vendors_own_words_are_kept(body: str, words: str) -> None:
    async with upstream_of(fine, refusal=body) as (server, upstream):
        await server.misbehave(Fault.REFUSED)
        with pytest.raises(PermanentError, match="HTTP 403") as caught:
            await upstream.get("/x")
        assert str(caught.value) == f"HTTP 403: {words}"


async def test_what_is_gone_can_be_told_from_what_is_refused() -> None:
    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=404, text="trace not found")

    async with upstream_of(gone) as (_, upstream):
        with pytest.raises(NotFound, match="HTTP 404: trace not found"):
            await upstream.get("/x")


async def test_a_body_that_ends_too_soon_may_be_whole_the_next_time() -> None:
    async with upstream_of(fine) as (server, upstream):
        await server.misbehave(Fault.CUT)
        assert await fails(upstream)
        await server.misbehave(None)
        assert await upstream.get("/x")


async def test_a_slow_drip_is_given_up() -> None:
    async with upstream_of(fine, timeout_s=0.3) as (server, upstream):
        await server.misbehave(Fault.DRIP)
        assert await fails(upstream) == "no answer within 0.3 s"


async def test_no_more_calls_at_once_than_agreed() -> None:
    both, release = asyncio.Event(), asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        if server.asked >= 2:
            both.set()
        await release.wait()
        return web.Response(text="{}")

    async with upstream_of(wait, concurrency=2, timeout_s=60.0) as (server, upstream):
        calls = [asyncio.create_task(upstream.get("/x")) for _ in range(6)]
        await both.wait()
        release.set()
        await asyncio.gather(*calls)
        assert (server.most_at_once, server.asked) == (2, 6)


async def test_the_breaker_opens_after_failures_in_a_row_and_closes_after_its_rest(clock: Clock) -> None:
    async with upstream_of(fine) as (server, upstream):
        await server.misbehave(Fault.BUSY)
        for _ in range(BREAKER_THRESHOLD):
            assert (await fails(upstream)).startswith("HTTP 503")
        said = await fails(upstream)
        assert said.startswith("vendor failed 5 times in a row (HTTP 503")
        assert said.endswith("left alone for 30 s more")
        assert server.asked == BREAKER_THRESHOLD

        clock.now_s += BREAKER_REST_S + 1  # still down: one call finds out, and the rest begins anew
        assert (await fails(upstream)).startswith("HTTP 503")
        assert (await fails(upstream)).startswith("vendor failed 6 times in a row")
        assert server.asked == BREAKER_THRESHOLD + 1

        await server.misbehave(None)
        clock.now_s += BREAKER_REST_S + 1
        await upstream.get("/x")
        await server.misbehave(Fault.BUSY)
        assert (await fails(upstream)).startswith("HTTP 503")  # counted from the beginning


async def test_an_answer_of_any_kind_ends_the_row(clock: Clock) -> None:
    async with upstream_of(fine) as (server, upstream):
        for fault in (Fault.REFUSED, None):
            await server.misbehave(Fault.BUSY)
            for _ in range(BREAKER_THRESHOLD - 1):
                await fails(upstream)
            await server.misbehave(fault)
            if fault is None:
                await upstream.get("/x")
            else:
                with pytest.raises(PermanentError):
                    await upstream.get("/x")
        await server.misbehave(Fault.BUSY)
        assert (await fails(upstream)).startswith("HTTP 503")


async def test_after_the_rest_one_call_alone_tries_the_provider(clock: Clock) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        asked.set()
        await release.wait()
        return web.Response(text="{}")

    async with upstream_of(wait, timeout_s=60.0) as (server, upstream):
        await server.misbehave(Fault.BUSY)
        for _ in range(BREAKER_THRESHOLD):
            await fails(upstream)
        await server.misbehave(None)
        clock.now_s += BREAKER_REST_S + 1
        first = asyncio.create_task(upstream.get("/x"))
        await asked.wait()
        assert (await fails(upstream)).endswith("one call is trying it again")
        release.set()
        assert await first == b"{}"
        assert await upstream.get("/x") == b"{}"


async def test_those_that_queued_when_it_broke_do_not_ask_any_more() -> None:
    async with upstream_of(fine, concurrency=1) as (server, upstream):
        await server.misbehave(Fault.BUSY)
        outcomes = await asyncio.gather(*(upstream.get("/x") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, TemporaryError) for outcome in outcomes)
        assert server.asked == BREAKER_THRESHOLD


async def test_calls_that_we_gave_up_ourselves_tell_nothing_about_the_provider() -> None:
    calls = Guard("vendor", timeout_s=60.0)

    async def endless() -> None:
        async with calls.call():
            await asyncio.Event().wait()

    for _ in range(BREAKER_THRESHOLD + 1):
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with calls.call():
        """Let in."""


async def test_a_wait_that_was_asked_for_is_kept_and_one_beyond_belief_is_shortened(clock: Clock) -> None:
    async with upstream_of(fine) as (server, upstream):
        await server.misbehave(Fault.LIMITED)
        await fails(upstream)
        await server.misbehave(None)
        assert await fails(upstream) == f"vendor asked us to wait, {MAX_REST_S:.0f} s are left"
        assert server.asked == 1
        assert RETRY_AFTER_S > MAX_REST_S
        clock.now_s += MAX_REST_S + 1
        assert await upstream.get("/x")


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after_s("7") == 7.0
    assert retry_after_s("-7") == 0.0
    for nonsense in ("", "soon", "nan", "inf", "Mon, 99 Foo 2026"):
        assert retry_after_s(nonsense) is None
    later = datetime.now(UTC) + timedelta(hours=1)
    assert retry_after_s(format_datetime(later, usegmt=True)) == pytest.approx(3600, abs=120)
    assert retry_after_s(format_datetime(later - timedelta(hours=2), usegmt=True)) == 0.0


def test_a_failure_says_whether_it_is_worth_waiting_for() -> None:
    assert failure_of("x", TemporaryError("busy")) == SourceFailure("x", "busy; asked again at the next reading")
    assert failure_of("x", PermanentError("who?")).reason == "who?; it will fail again until the settings are changed"


def test_an_answer_of_another_kind_is_named() -> None:
    class Answer(Lenient):
        count: int

    assert parse_answer(Answer, b'{"count": 3, "more": 1}', "the API").count == 3
    for body, words in ((b"Welcome", "Welcome"), (b"", "nothing"), (b'{"count": "x"}', '{"count": "x"}')):
        with pytest.raises(PermanentError) as caught:
            parse_answer(Answer, body, "the API")
        assert str(caught.value) == f"not an answer of the API: {words}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Upstream("vendor", "vendor:9090", access=Access()),
        lambda: Access(headers={"authorization": "Bearer t"}, basic=("u", "p")),
        lambda: Access(headers={"X-Key": "t\n"}),
        lambda: Access(client_key=Path("key.pem")),
        lambda: Upstream("vendor", "https://x", access=Access(ca_file=Path("/nowhere/ca.pem"))),
    ],
)
def test_settings_that_cannot_be_right_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


async def test_an_address_that_is_none_is_not_asked_again() -> None:
    upstream = Upstream("vendor", "http://:x/", access=Access())
    with pytest.raises(PermanentError, match="not a usable address"):
        await upstream.get("/x")
    await upstream.close()
