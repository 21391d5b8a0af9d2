"""History out of Prometheus: pieces that the server bears, put together again."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from aiohttp import web

from pipeline.adapters.telemetry.prometheus_api import MAX_POINTS, PrometheusApi
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import PermanentError, TemporaryError
from tests.contract.metrics_world import World
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.real_prometheus import real_prometheus

START = datetime(2026, 3, 1, tzinfo=UTC)
EPOCH_S = START.timestamp()
MANY = " or ".join(f'label_replace(vector(time()), "n", "{n}", "", "")' for n in range(20))


@pytest.fixture(scope="module")
def prometheus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    world = World(tmp_path_factory.mktemp("world"))
    with real_prometheus(tmp_path_factory.mktemp("prometheus"), world.file) as url:
        yield url


@pytest.mark.parametrize(
    ("step_s", "steps"), [(60.0, 1), (15.0, 500), (15.0, 501), (60.0, MAX_POINTS + 500), (1.0, 30_000), (0.25, 1200)]
)
async def test_every_step_is_there_once_and_in_order(prometheus_url: str, step_s: float, steps: int) -> None:
    api = PrometheusApi(prometheus_url, Access(), timeout_s=30)
    # The end lies within the last step.
    end = START + timedelta(seconds=(steps - 1) * step_s + step_s / 2)
    ((labels, at, values),) = await api.range("vector(time())", START, end, step_s)
    await api.close()
    assert labels == {}
    np.testing.assert_allclose(at, EPOCH_S + np.arange(steps) * step_s, atol=1e-3)
    np.testing.assert_allclose(values, at, atol=1e-3)


async def test_many_series_come_in_smaller_pieces_and_one_that_begins_late_is_shorter(prometheus_url: str) -> None:
    api = PrometheusApi(prometheus_url, Access(), timeout_s=30)
    late_s = EPOCH_S + 8_000
    query = f'{MANY} or label_replace(vector(time()) > {late_s:.0f}, "n", "late", "", "")'
    found = await api.range(query, START, START + timedelta(seconds=8_999), 1.0)
    await api.close()
    assert {labels["n"]: len(at) for labels, at, _ in found} == {**{str(n): 9_000 for n in range(20)}, "late": 999}
    assert all((np.diff(at) == 1.0).all() for _, at, _ in found)


async def test_a_value_that_is_no_number_leaves_a_gap(prometheus_url: str) -> None:
    api = PrometheusApi(prometheus_url, Access())
    query = f"vector(time()) / (vector(time()) != bool {EPOCH_S + 3:.0f})"
    ((_, at, values),) = await api.range(query, START, START + timedelta(seconds=5), 1.0)
    assert (at - EPOCH_S).tolist() == [0.0, 1.0, 2.0, 4.0, 5.0]
    assert np.isfinite(values).all()
    assert await api.range("absent_metric", START, START + timedelta(days=30), 60.0) == ()
    await api.close()


@pytest.mark.parametrize(
    ("query", "end", "step_s", "said"),
    [
        ("sum(", START, 60.0, "HTTP 400: .*parse error"),
        ("up", START - timedelta(seconds=1), 60.0, "an end after its start"),
        ("up", START, 0.0, "a step of at least"),
        ("up", START, float("nan"), "a step of at least"),
    ],
)
async def test_a_wrong_question_is_refused(
    prometheus_url: str, query: str, end: datetime, step_s: float, said: str
) -> None:
    api = PrometheusApi(prometheus_url, Access())
    with pytest.raises(PermanentError, match=said):
        await api.range(query, START, end, step_s)
    await api.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.BUSY, TemporaryError),
        (Fault.LIMITED, TemporaryError),
        (Fault.REFUSED, PermanentError),
        (Fault.BROKEN, PermanentError),
        (Fault.CUT, TemporaryError),
        (Fault.DRIP, TemporaryError),
        (Fault.REDIRECT, PermanentError),
        (Fault.HUGE, PermanentError),
        (Fault.DOWN, TemporaryError),
    ],
)
async def test_a_server_that_misbehaves(fault: Fault, error: type[Exception]) -> None:
    async with FaultyServer(web.Application()) as server:
        await server.misbehave(fault)
        api = PrometheusApi(server.url, Access(), timeout_s=0.5)
        with pytest.raises(error):
            await api.range("up", START, START, 60.0)
        await api.close()


def recorded(*series: dict[str, object], **beside: object) -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        data = {"resultType": "matrix", "result": list(series)}
        return web.json_response({"status": "success", "data": data, **beside})

    app = web.Application()
    app.router.add_post("/api/v1/query_range", answer)
    return app


async def test_a_native_histogram_is_no_series_of_values() -> None:
    whole = {"count": "2", "sum": "3", "buckets": [[0, "0.5", "1", "2"]]}
    async with FaultyServer(recorded({"metric": {}, "histograms": [[EPOCH_S, whole]]})) as server:
        api = PrometheusApi(server.url, Access())
        with pytest.raises(PermanentError, match="histogram_quantile"):
            await api.range("h", START, START, 60.0)
        await api.close()


async def test_what_the_server_remarks_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    line = {"metric": {"a": "b"}, "values": [[EPOCH_S, "1"]]}
    async with FaultyServer(recorded(line, warnings=["a store is away"])) as server:
        api = PrometheusApi(server.url, Access())
        with caplog.at_level(logging.WARNING):
            found = await api.range("up", START, START, 60.0)
        await api.close()
    assert found[0][0] == {"a": "b"}
    assert "a store is away" in caplog.text
