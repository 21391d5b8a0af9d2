"""How the query API is asked and how its refusals are told; a local server stands for what a real one cannot be made
to say. What the queries mean is tested on a real Prometheus in test_metrics_sources."""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.adapters.telemetry.conventions import GAUGES, Convention
from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.telemetry import Reading, Signal, SourceFailure

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AGAIN = "asked again at the next reading"
FOR_GOOD = "it will fail again until the settings are changed"


TRAFFIC = "sum by (sre_service) (label_replace(sum by (service) (rate(http"
QUERIES = 12
"""In one reading: eight signals, calls, targets, places, and at first what the server knows."""


def vector(*rows: tuple[dict[str, str], float, str], **beside: Any) -> web.Response:
    result = [{"metric": metric, "value": [at_s, value]} for metric, at_s, value in rows]
    answer = {"status": "success", "data": {"resultType": "vector", "result": result}, "stats": {}, **beside}
    return web.json_response(answer)


def rank(convention: Convention, signal: Signal) -> str:
    return str([(gauge.convention, gauge.signal) for gauge in GAUGES].index((convention, signal)))


def is_traffic(query: str) -> bool:
    return query.startswith(TRAFFIC) and "_bucket" not in query


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

    access = Access(headers={"Authorization": "Bearer t0k3n"})
    reading = await read(answer, access=access, tenant="shop", extra_matchers='environment="prod"', service_label="app")
    assert reading == Reading()
    assert len(asked) == QUERIES
    assert {(authorization, tenant) for authorization, tenant, _ in asked} == {("Bearer t0k3n", "shop")}
    selectors = [part for _, _, query in asked for part in re.findall(r"{[^}]*}", query)]
    assert selectors
    assert all('environment="prod"}' in selector for selector in selectors)


async def test_a_user_and_password_are_sent_as_basic_authentication() -> None:
    sent: set[str | None] = set()

    async def answer(request: web.Request) -> web.Response:
        sent.add(request.headers.get("Authorization"))
        return vector()

    await read(answer, access=Access(basic=("sre", "pass:word")))
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
        (
            refusal(302, ""),
            f"HTTP 302: no explanation (redirects are not followed: write the address that it leads to); {FOR_GOOD}",
        ),
        (refusal(200, "Welcome"), f"not an answer of Prometheus' query API: Welcome; {FOR_GOOD}"),
        (refusal(200, '{"status":"suc'), f'not an answer of Prometheus\' query API: {{"status":"suc; {FOR_GOOD}'),
        (refusal(200, "x" * (11 * 2**20)), f"the answer is larger than 10 MiB; {FOR_GOOD}"),
    ],
)
async def test_a_server_that_refuses_everything_is_told_once(handler: Handler, reason: str | None) -> None:
    expected = reason or f"every query: HTTP 400: parse error; {FOR_GOOD}"
    assert (await read(handler)).failures == (SourceFailure("prometheus", expected),)


async def test_one_query_that_fails_is_named_and_the_others_count() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        if "histogram_quantile" in query:
            return web.json_response({"status": "error", "errorType": "execution", "error": "too many"}, status=422)
        return vector(({"sre_service": "web"}, time.time(), "3.5")) if is_traffic(query) else vector()

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
    assert failure == SourceFailure("prometheus", f"no answer within 0.4 s; {AGAIN}")


async def test_a_server_that_is_away() -> None:
    async with asking(refusal(200, "")) as source:
        pass
    (failure,) = (await source.read(datetime.now(UTC))).failures
    await source.close()
    assert failure == SourceFailure("prometheus", f"Connection refused; {AGAIN}")


async def test_an_answer_from_long_ago_is_ignored_and_told() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        return vector(({"sre_service": "web"}, time.time() - 900, "3.5")) if is_traffic(query) else vector()

    reading = await read(answer)
    assert reading.samples == ()
    (failure,) = reading.failures
    assert failure.source == "prometheus traffic"
    assert "s old and was ignored" in failure.reason


async def test_what_is_no_number_or_names_no_service_is_left_out() -> None:
    async def answer(_: web.Request) -> web.Response:
        now_s = time.time()
        return vector(
            ({"sre_service": "web"}, now_s, "NaN"),
            ({"instance": "web-1"}, now_s, "1"),
            ({"service": "web", "instance": "web-1", "sre_rank": "99"}, now_s, "1"),
            ({"client": "web", "server": ""}, now_s, "1"),
            ({"client": "web", "server": "checkout"}, now_s, "+Inf"),
        )

    reading = await read(answer)
    assert (reading.samples, reading.edges) == ((), ())
    # Of three signals of services and five of instances.
    assert reading.rejected == {"not finite": 3, "names no service": 3 * 4 + 5 * 5}


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "prometheus:9090"},
        {"service_label": "a-b"},
        {"instance_label": ""},
        {"window": "1 minute"},
        {"window": ""},
        {"service_label": "service,"},
        {"conventions": ("otel", "otl")},
        {"namespaces": ("shop", 'sh"op')},
        {"access": Access(ca_file=Path("/nowhere/ca.pem"))},
    ],
)
def test_settings_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        PrometheusSource(**{"url": "http://127.0.0.1:9090", **arguments})


async def test_what_the_server_remarks_is_told_once_and_its_figures_count() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        if not is_traffic(query):
            return vector(infos=["two\nlines"])
        return vector(({"sre_service": "web"}, time.time(), "3.5"), warnings=["a store is away"])

    reading = await read(answer)
    said = "answered with a remark, figures may be incomplete: "
    assert reading.failures == (
        SourceFailure("prometheus traffic", f"{said}a store is away"),
        SourceFailure("prometheus error_ratio", f"{said}two lines"),
    )
    assert [sample.value for sample in reading.samples] == [3.5]


@pytest.mark.parametrize(("knows", "asks"), [(True, True), (False, False)])
async def test_native_histograms_are_asked_for_where_the_server_knows_them(knows: bool, asks: bool) -> None:
    queries: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        queries.append(query)
        if "histogram_count" in query and not knows:
            said = '1:1: parse error: unknown function with name "histogram_count"'
            return web.json_response({"status": "error", "errorType": "bad_data", "error": said}, status=400)
        return vector()

    async with asking(answer) as source:
        for _ in range(2):
            assert (await source.read(datetime.now(UTC))).failures == ()
    assert queries.count("histogram_count(vector(1))") == 1
    assert any("histogram_count(rate" in query for query in queries) is asks


async def test_a_server_that_cannot_be_reached_is_asked_again_what_it_knows() -> None:
    away = True
    queries: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        queries.append(str((await request.post())["query"]))
        return web.Response(status=404, text="starting") if away else vector()

    async with asking(answer) as source:
        assert len((await source.read(datetime.now(UTC))).failures) == 1
        away = False
        assert (await source.read(datetime.now(UTC))).failures == ()
    assert queries.count("histogram_count(vector(1))") == 2
    assert any("histogram_count(rate" in query for query in queries)


async def test_a_server_that_asks_for_patience_is_left_alone_and_its_reason_is_told() -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=429, text="slower", headers={"Retry-After": "60"})

    async with asking(answer, concurrency=1) as source:
        (failure,) = (await source.read(datetime.now(UTC))).failures
        again = (await source.read(datetime.now(UTC))).failures
    assert asked == 1
    assert failure.reason == f"HTTP 429: slower; {AGAIN}"
    assert "asked us to wait" in again[0].reason


async def test_a_server_that_goes_on_failing_is_left_alone() -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503, text="busy")

    async with asking(answer, concurrency=1) as source:
        for _ in range(6):
            (failure,) = (await source.read(datetime.now(UTC))).failures
    assert asked == 5
    assert "left alone" in failure.reason


async def test_several_services_of_one_name_are_told() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        if not query.startswith("group by"):
            return vector()
        places = [("cart", "shop"), ("cart", "staging"), ("web", "shop")]
        return vector(*(({"service": name, "namespace": place}, time.time(), "1") for name, place in places))

    reading = await read(answer)
    assert reading.namespaces == {"web": "shop"}
    (failure,) = reading.failures
    assert failure.source == "prometheus names"
    assert "cart (shop, staging)" in failure.reason


async def test_of_two_conventions_that_measure_a_service_the_preferred_one_counts() -> None:
    of_pod = {"namespace": "shop", "pod": "web-0", "sre_rank": rank(Convention.KUBERNETES, Signal.MEMORY_RATIO)}
    of_target = {"service": "web", "instance": "10.0.0.7:80", "sre_rank": rank(Convention.RED, Signal.MEMORY_RATIO)}

    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        now_s = time.time()
        return vector((of_target, now_s, "0.5"), (of_pod, now_s, "0.4")) if "memory_working_set" in query else vector()

    for conventions, instance in ((("kubernetes", "red"), "web-0"), (("red", "kubernetes"), "10.0.0.7:80")):
        reading = await read(answer, conventions=conventions)
        assert [(s.key.service, s.key.instance) for s in reading.samples] == [("web", instance)]


async def test_of_two_pods_of_one_name_the_fuller_counts() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        if "memory_working_set" not in query:
            return vector()
        of = {"pod": "web-0", "sre_rank": rank(Convention.KUBERNETES, Signal.MEMORY_RATIO)}
        return vector(*(({**of, "namespace": f"n{n}"}, time.time(), f"0.{n}") for n in (3, 9, 5)))

    (sample,) = (await read(answer)).samples
    assert (sample.key.instance, sample.value) == ("web-0", 0.9)


async def test_targets_that_are_down_are_named_up_to_a_point() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        down = [({"service": "web", "instance": f"web-{n}"}, time.time(), "0") for n in range(25)]
        return vector(*down, ({"instance": "nobody"}, time.time(), "0")) if query.endswith("== 0") else vector()

    failures = (await read(answer)).failures
    assert failures[0] == SourceFailure("prometheus web-0", "Prometheus cannot scrape it")
    assert failures[-1] == SourceFailure("prometheus targets", "Prometheus cannot scrape 5 more")
    assert len(failures) == 21


@pytest.mark.parametrize(
    "metric",
    [
        {"namespace": "shop"},
        {"client": "web"},
        {"sre_service": ""},
        {"sre_rank": "-1", "service": "web", "instance": "1"},
    ],
)
async def test_renamed_labels_are_counted_and_break_nothing(metric: dict[str, str]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return vector((metric, time.time(), "1"))

    reading = await read(answer)
    assert reading.samples == ()
    assert reading.rejected == {"names no service": len(Signal)}


async def test_a_native_histogram_where_a_number_was_asked_for_is_no_value() -> None:
    async def answer(_: web.Request) -> web.Response:
        whole = {"count": "1", "sum": "1", "buckets": []}
        result = [{"metric": {"sre_service": "web"}, "histogram": [time.time(), whole]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    reading = await read(answer)
    assert (reading.samples, reading.failures) == ((), ())
    assert reading.rejected["not finite"] == 3


@pytest.mark.parametrize("at_s", [1e300, -5.0, float("nan"), float("inf")])
async def test_a_moment_that_no_date_can_hold_is_no_answer(at_s: float) -> None:
    async def answer(_: web.Request) -> web.Response:
        return vector(({"sre_service": "web"}, at_s, "1"))

    reading = await read(answer)
    assert reading.samples == ()
    assert "not an answer of Prometheus' query API" in reading.failures[0].reason


async def test_a_server_whose_clock_runs_ahead_is_counted() -> None:
    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        return vector(({"sre_service": "web"}, time.time() + 900, "3.5")) if is_traffic(query) else vector()

    reading = await read(answer)
    assert (reading.samples, reading.failures) == ((), ())
    assert reading.rejected == {"from the future": 1}


async def test_a_figure_that_was_not_asked_for_is_nobodys() -> None:
    async def answer(_: web.Request) -> web.Response:
        of = {"service": "web", "instance": "web-1", "sre_rank": rank(Convention.RED, Signal.MEMORY_RATIO)}
        return vector((of, time.time(), "0.5"))

    reading = await read(answer, conventions=("node",))
    assert reading.samples == ()
    # A node's memory, disk and CPU were.
    assert reading.rejected == {"names no service": 3}
