"""Which service and which of its metrics an incident comes from, ranked over what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection.rca import Ranking, Table, rank
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.domain.topology import DependencyGraph

HISTORY_S = 3600.0
"""What the window is compared with: the hour before the trouble began."""
SHOWN = 3


def suspects(history: Mapping[SeriesKey, Sequence[Sample]], began: datetime, graph: DependencyGraph) -> Ranking | None:
    """The ranking over ``history`` (samples oldest first), split where the trouble began.

    None when one of the two sides has nothing.
    """
    before = _tables(history, lambda at: at < began)
    during = _tables(history, lambda at: at >= began)
    if not before or not during:
        return None
    return rank(before, during, sorted(graph.edges))


def in_words(ranking: Ranking) -> str:
    """``1. payments (62 %): errors of payments …; 2. checkout (21 %): …`` for those that carry any blame."""
    blamed = [service for service in ranking.services if service.score > 0][:SHOWN]
    return "; ".join(
        f"{place}. {service.service} ({service.score:.0%}): {service.reason}"
        for place, service in enumerate(blamed, start=1)
    )


def _tables(history: Mapping[SeriesKey, Sequence[Sample]], wanted: Callable[[datetime], bool]) -> dict[str, Table]:
    services: dict[ServiceName, dict[str, dict[float, float]]] = {}
    for key, samples in history.items():
        if key.signal is Signal.CERT_REMAINING:
            continue  # it falls by itself, all the time
        values = {sample.at.timestamp(): sample.value for sample in samples if wanted(sample.at)}
        if values:
            services.setdefault(key.service, {})[f"{key.signal.value} {key.instance}".strip()] = values
    return {service: _table(columns) for service, columns in services.items()}


def _table(columns: Mapping[str, Mapping[float, float]]) -> Table:
    times = sorted({at for values in columns.values() for at in values})
    return Table(np.array(times), {name: _column(values, times) for name, values in columns.items()})


def _column(values: Mapping[float, float], times: Iterable[float]) -> npt.NDArray[np.float64]:
    return np.array([values.get(at, np.nan) for at in times])
