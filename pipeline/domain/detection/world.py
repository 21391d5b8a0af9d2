"""A whole world of services watched in memory: the rules and the folding of the running loop, one step at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo

from pipeline.domain.anomaly import DetectionSettings, Policy, detect
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.detection.rules_trends import Trends
from pipeline.domain.detection.world_incidents import Closed, Incidents, Page, WorldIncident
from pipeline.domain.detection.world_names import ChangeLike, Names, change_of
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.domain.topology import EdgeAges

__all__ = ["Closed", "Page", "WorldDetector", "WorldIncident"]

SETTLE_S = 120.0
CLEAR_S = 600.0
MIN_EFFECT_S = 0.01
CHANGES_KEPT_S = 2 * 3600.0


class WorldDetector:
    """``step`` takes one reading of all services and answers with the pages to send.

    ``edges``: (caller, callee) pairs known for good; more may come with each step, and age. ``period_s``: the time
    between steps. ``policy``: sensitivities and muted windows; ``objectives``: shares of good requests promised
    (0.999) by service, for burn rates. ``zone``: whose hours and weekdays the
    baselines follow. ``open`` holds the open incidents by id, ``closed`` what ended with the last step.
    """

    def __init__(
        self,
        edges: Iterable[tuple[str, str]] = (),
        *,
        period_s: float = 60.0,
        settings: DetectionSettings | None = None,
        policy: Policy | None = None,
        objectives: Mapping[str, float] | None = None,
        zone: tzinfo = UTC,
    ) -> None:
        self._settings = _for_period(settings or DetectionSettings(latency_min_effect_s=MIN_EFFECT_S), period_s)
        self._policy = policy
        self._names = Names(period_s)
        self._bank = BaselineBank(zone=zone)
        self._trends = Trends({ServiceName(name): share for name, share in (objectives or {}).items()})
        self._window: dict[SeriesKey, list[Sample]] = {}
        self._told: dict[SeriesKey, float] = {}
        self._keep = int(self._settings.window_s / period_s) + 1
        self._edges = EdgeAges(_pairs(edges))
        self._changes: list[ChangeEvent] = []
        self._incidents = Incidents(max(SETTLE_S, 2 * period_s) if period_s < 600 else 0.0)
        self.closed: list[Closed] = []

    @property
    def open(self) -> Mapping[IncidentId, WorldIncident]:
        """The incidents that last."""
        return self._incidents.open

    def step(
        self,
        ts: float,
        metrics: Mapping[str, Mapping[str, float | Mapping[str, float]]],
        changes: Sequence[ChangeLike] = (),
        edges: Sequence[tuple[str, str]] | None = None,
    ) -> list[Page]:
        """Takes the reading at ``ts`` (epoch seconds, ascending): ``metrics[service][name]``, see `world_names`.

        ``changes`` that became known since the last step; ``edges`` seen in this one. Raises ValueError for a metric
        nobody knows, or a change of no service.
        """
        now = datetime.fromtimestamp(ts, UTC)
        if edges:
            self._edges.see(_pairs(edges), ts)
        self._changes = [one for one in self._changes if ts - one.at.timestamp() <= CHANGES_KEPT_S]
        self._changes += [change_of(one, ts) for one in changes]
        fresh = []
        for key, value in self._names.read(metrics):
            sample = Sample(key, now, value)
            series = self._window.setdefault(key, [])
            series.append(sample)
            if len(series) > self._keep:
                del series[0]
            self._told[key] = ts
            fresh.append(sample)
        result = detect(
            self._window,
            self._bank,
            self._settings,
            now,
            changes=self._changes,
            trends=self._trends,
            policy=self._policy,
            clearing=self._incidents.watched(),
        )
        keys = [sample.key for sample in fresh]
        self._bank.learn(keys, [sample.value for sample in fresh], now, outside=result.beyond)
        graph = self._edges.graph(ts)
        known = len({key.service for key in self._window})
        pages, self.closed = self._incidents.take(ts, result.anomalies, result.cleared, self._told, graph, known)
        return pages


def _for_period(settings: DetectionSettings, period_s: float) -> DetectionSettings:
    """Settings whose times hold enough samples at ``period_s``."""
    least = 2 * period_s
    return replace(
        settings,
        latency_sustain_s=max(settings.latency_sustain_s, least),
        error_sustain_s=max(settings.error_sustain_s, least),
        memory_sustain_s=max(settings.memory_sustain_s, least),
        disk_sustain_s=max(settings.disk_sustain_s, least),
        traffic_sustain_s=max(settings.traffic_sustain_s, least),
        clear_after_s=max(settings.clear_after_s, CLEAR_S, 3 * period_s),
    )


def _pairs(edges: Iterable[tuple[str, str]]) -> list[tuple[ServiceName, ServiceName]]:
    return [(ServiceName(caller), ServiceName(callee)) for caller, callee in edges]
