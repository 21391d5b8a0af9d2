"""Prometheus' HTTP API for queries, as it answers: https://prometheus.io/docs/prometheus/latest/querying/api/."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.adapters.telemetry.http import one_line
from pipeline.adapters.telemetry.upstream import Access, Lenient, Upstream, parse_answer
from pipeline.domain.errors import PermanentError

log = logging.getLogger(__name__)

_API = "Prometheus' query API"
MAX_POINTS = 11_000
"""Points of one series in one answer; Prometheus refuses more."""
FIRST_POINTS = 500
"""Points asked for first, when nobody knows how many series there are."""
MAX_VALUES = 150_000
"""Values in one answer of all series together: about half of the largest body that is read."""


_EpochS = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""A moment that a date can hold."""


class Row(Lenient):
    """One series' value at one moment; a native histogram in the answer has none."""

    metric: dict[str, str]
    value: tuple[_EpochS, float] = (0.0, float("nan"))

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.value[0], UTC)


class _Vector(Lenient):
    resultType: Literal["vector"]
    result: tuple[Row, ...]


class _Line(Lenient):
    metric: dict[str, str]
    values: tuple[tuple[_EpochS, float], ...] = ()


class _Matrix(Lenient):
    resultType: Literal["matrix"]
    result: tuple[_Line, ...]


class _Answer(Lenient):
    status: Literal["success"]
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    def remarks(self) -> tuple[str, ...]:
        return tuple(one_line(text) for text in (*self.warnings, *self.infos))


class _VectorAnswer(_Answer):
    data: _Vector


class _MatrixAnswer(_Answer):
    data: _Matrix


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of an instant query, and what the server remarked (warnings, infos), a line each."""

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]


Series = tuple[dict[str, str], NDArray[np.float64], NDArray[np.float64]]
"""Labels, times in epoch seconds (ascending), values of the same length."""


class PrometheusApi:
    """The two queries. ``url`` is the part before ``/api/v1``; ``timeout_s`` bounds each, ``concurrency`` how many are
    under way. Raises ConfigurationError."""

    def __init__(self, url: str, access: Access, *, timeout_s: float = 10.0, concurrency: int = 8) -> None:
        self._upstream = Upstream("Prometheus", url, access=access, timeout_s=timeout_s, concurrency=concurrency)

    async def instant(self, query: str) -> Answer:
        """The newest value of each series, at the server's time. Raises TemporaryError or PermanentError."""
        answer = parse_answer(_VectorAnswer, await self._upstream.post("/api/v1/query", form={"query": query}), _API)
        return Answer(answer.data.result, answer.remarks())

    async def range(self, query: str, start: datetime, end: datetime, step_s: float) -> tuple[Series, ...]:
        """Every series of ``query`` from ``start`` to ``end`` (both included), a value each ``step_s`` seconds.

        Asked in pieces that the server and we can bear. A step without a value, or with none that is finite, has no
        point. Raises TemporaryError, or PermanentError when the question is wrong; the server's remarks are logged.
        """
        if not 0.001 <= step_s < float("inf") or end < start:
            raise PermanentError("a range needs an end after its start, and a step of at least 0.001 s")
        first_s, steps = start.timestamp(), floor((end - start).total_seconds() / step_s) + 1
        collected: dict[tuple[tuple[str, str], ...], list[NDArray[np.float64]]] = {}
        done, points = 0, min(FIRST_POINTS, steps)
        while done < steps:
            last = min(done + points, steps) - 1
            form = {
                "query": query,
                "start": f"{first_s + done * step_s:.3f}",
                "end": f"{first_s + last * step_s:.3f}",
                "step": f"{step_s:.3f}",
            }
            answer = parse_answer(_MatrixAnswer, await self._upstream.post("/api/v1/query_range", form=form), _API)
            for remark in dict.fromkeys(answer.remarks()):
                log.warning("Prometheus remarks on %s: %s", one_line(query, 80), remark)
            for line in answer.data.result:
                if line.values:
                    key = tuple(sorted(line.metric.items()))
                    collected.setdefault(key, []).append(np.array(line.values, dtype=np.float64))
                else:
                    raise PermanentError("the query answers native histograms; take histogram_quantile() of them")
            done = last + 1
            # While there is nothing, nobody knows how many series there will be.
            series = len(answer.data.result)
            points = min(MAX_POINTS, ceil(MAX_VALUES / series) if series else points * 4)
        return tuple(_series(dict(key), parts) for key, parts in collected.items())

    async def close(self) -> None:
        await self._upstream.close()


def _series(labels: dict[str, str], parts: list[NDArray[np.float64]]) -> Series:
    points = np.concatenate(parts)
    points = points[np.isfinite(points[:, 1])]
    return labels, np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
