"""How the query API is asked and how its refusals are told; a local server stands for what a real one cannot be made
to say. What the queries mean is tested on a real Prometheus in test_metrics_sources."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.telemetry import Reading, SourceFailure

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AGAIN = "asked again at the next reading"
FOR_GOOD = "it will fail again until the settings are changed"


def vector(*rows: tuple[dict[str, str], float, str]) -> web.Response:
    result = [{"metric": metric, "value": [at_s, value]} for metric, at_s, value in rows]
    answer = {"status": "success", "data": {"resultType": "vector", "result": result}, "infos": ["of no matter"]}
    return web.json_response(answer)


@asynccontextmanager
async def asking(handler: Handler, **arguments: Any) -> AsyncIterator[PrometheusSource]:
    app = web.Application()
    app.router.add_post("/prometheus/api/v1/query", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    source = PrometheusSource(f"http://127.0.0.1:{runner.addresses[0][1]}/prometheus/", **arguments)
    yield source
    await source.close()
    await runner.cleanup()


async def read(handler: Handler, **arguments: Any) -> Reading:
    async with asking(handler, **arguments) as source:
        return await source.read(datetime.now(UTC))


async def test_each_query_carries_token_tenant_and_matchers() -> None:
    asked: list[tuple[str | None, str | None, str]] = []

    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        asked.append((request.headers.get("Authorization"), request.headers.get("X-Scope-OrgID"), query))
        return vector()

    reading = await read(
        answer, bearer_token="t0k3n", tenant="shop", extra_matchers='environment="prod"', service_label="app"
    )
    assert reading == Reading()
    assert len(asked) == 8
    assert {(authorization, tenant) for authorization, tenant, _ in asked} == {("Bearer t0k3n", "shop")}
    assert all('environment="prod"}' in query for _, _, query in asked)


async def test_a_user_and_password_are_sent_as_basic_authentication() -> None:
    sent: set[str | None] = set()

    async def answer(request: web.Request) -> web.Response:
        sent.add(request.headers.get("Authorization"))
        return vector()

    await read(answer, basic_auth=("sre", "pass:word"))
    assert sent == {"Basic " + base64.b64encode(b"sre:pass:word").decode()}


def refusal(status: int, body: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    return answer


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (refusal(401, "who are you?\n"), f"HTTP 401: who are you?; {FOR_GOOD}"),
        (refusal(400, json.dumps({"status": "error", "errorType": "bad_data", "error": "parse\nerror"})), None),
        (refusal(429, ""), f"HTTP 429: no explanation; {AGAIN}"),
        (refusal(503, "<html>busy"), f"HTTP 503: <html>busy; {AGAIN}"),
        (refusal(302, ""), f"HTTP 302: no explanation; {FOR_GOOD}"),
        (refusal(200, "Welcome"), f"not an answer of Prometheus' query API: Welcome; {FOR_GOOD}"),
        (refusal(200, "x" * (11 * 2**20)), f"the answer is larger than 10 MiB; {FOR_GOOD}"),
    ],
)
async def test_a_server_that_refuses_everything_is_told_once(handler: Handler, reason: str | None) -> None:
    expected = f"every query: {reason or f'HTTP 400: parse error; {FOR_GOOD}'}"
    assert (await read(handler)).failures == (SourceFailure("prometheus", expected),)


async def test_one_query_that_fails_is_named_and_the_others_count() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        if "histogram_quantile" in query:
            return web.json_response({"status": "error", "errorType": "execution", "error": "too many"}, status=422)
        return vector(({"service": "web"}, time.time(), "3.5")) if query.startswith("sum by (service)") else vector()

    reading = await read(answer)
    assert reading.failures == (SourceFailure("prometheus latency_p99", f"HTTP 422: too many; {FOR_GOOD}"),)
    assert [sample.value for sample in reading.samples] == [3.5]


async def test_a_server_that_hangs_is_given_up() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        drip = web.StreamResponse()
        await drip.prepare(request)
        for _ in range(600):
            await drip.write(b" ")
            await asyncio.sleep(0.05)
        return drip

    (failure,) = (await read(answer, timeout_s=0.4)).failures
    assert failure == SourceFailure("prometheus", f"every query: no answer within 0.4 s; {AGAIN}")


async def test_a_server_that_is_away() -> None:
    async with asking(refusal(200, "")) as source:
        pass
    (failure,) = (await source.read(datetime.now(UTC))).failures
    await source.close()
    assert failure == SourceFailure("prometheus", f"every query: Connection refused; {AGAIN}")


async def test_an_answer_from_long_ago_is_ignored_and_told() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        return (
            vector(({"service": "web"}, time.time() - 900, "3.5")) if query.startswith("sum by (service)") else vector()
        )

    reading = await read(answer)
    assert reading.samples == ()
    (failure,) = reading.failures
    assert failure.source == "prometheus traffic"
    assert "s old and was ignored" in failure.reason


async def test_what_is_no_number_or_names_no_service_is_left_out() -> None:
    async def answer(_: web.Request) -> web.Response:
        now_s = time.time()
        return vector(
            ({"service": "web", "instance": "web-1"}, now_s, "NaN"),
            ({"instance": "web-1"}, now_s, "1"),
            ({"client": "web", "server": ""}, now_s, "1"),
            ({"client": "web", "server": "checkout"}, now_s, "+Inf"),
        )

    reading = await read(answer)
    assert (reading.samples, reading.edges) == ((), ())


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "prometheus:9090"},
        {"bearer_token": "t", "basic_auth": ("u", "p")},
        {"service_label": "a-b"},
        {"instance_label": ""},
        {"window": "1 minute"},
        {"window": ""},
    ],
)
def test_settings_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        PrometheusSource(**{"url": "http://127.0.0.1:9090", **arguments})
