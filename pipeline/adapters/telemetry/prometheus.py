"""Metrics from a Prometheus server, or one that speaks its query API (Mimir, Thanos, VictoriaMetrics)."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from time import monotonic

from pipeline.adapters.telemetry.conventions import GAUGES, Convention
from pipeline.adapters.telemetry.exposition import CALLEE_LABEL, CALLER_LABEL, STALE_AFTER_S
from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.adapters.telemetry.prometheus_api import Answer, PrometheusApi, Row
from pipeline.adapters.telemetry.prometheus_names import Names
from pipeline.adapters.telemetry.promql import SERVICE_SIGNALS, PromQL, duration_s
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal, SourceFailure

_CALLS, _DOWN, _PLACES = "calls", "targets down", "places"
_LEARN_EVERY_S = 60.0
"""Which pod is whose changes with deployments; a pod that is newer is named by its own name."""
_NATIVE_PROBE = "histogram_count(vector(1))"
_NOT_UNDERSTOOD = ("HTTP 400", "HTTP 422")
"""How servers answer to a function that they do not have; VictoriaMetrics says 422."""
_UNNAMED = "names no service"
_MOST_DOWN = 20
"""Targets that are down and told one by one."""
_MOST_NAMED = 3
"""Services named in one failure."""


class PrometheusSource:
    """Asks one PromQL query per signal, with the server's time as the samples' time.

    ``url`` is the part before ``/api/v1``. ``service_label`` names the label that carries the service, or several,
    comma-separated, of which the first that a series has counts (``pod`` stands for the pod's workload), and
    ``instance_label`` the replica's. ``window`` is the range of rates and the greatest age of a gauge (at least twice
    the scrape interval), and ``extra_matchers`` narrow every selector (``environment="prod"``). ``conventions`` are
    asked for, the first ones preferred where several measure one service; names of ``Convention``, all when empty.
    Of ``namespaces`` alone, when there are any; series that name none always count.
    ``access``: users, tokens and TLS files; ``tenant`` is sent beside it, as X-Scope-OrgID.
    ``timeout_s`` bounds each query, ``concurrency`` how many are under way. Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        service_label: str = "service",
        instance_label: str = "instance",
        window: str = "1m",
        extra_matchers: str = "",
        conventions: Sequence[str] = (),
        namespaces: Sequence[str] = (),
        tenant: str | None = None,
        access: Access | None = None,
        timeout_s: float = 10.0,
        concurrency: int = 8,
    ) -> None:
        services = tuple(label.strip() for label in service_label.split(","))
        for label in (*services, instance_label):
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label):
                raise ConfigurationError(f"{label!r} is no Prometheus label name")
        try:
            duration_s(window)
        except ValueError as error:
            raise ConfigurationError(f"the Prometheus window: {error}") from error
        for namespace in namespaces:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace):
                raise ConfigurationError(f"{namespace!r} is no name of a Kubernetes namespace")
        self._conventions = _conventions(conventions)
        self._promql = PromQL(services, instance_label, window, extra_matchers, self._conventions, tuple(namespaces))
        access = (access or Access()).with_header("X-Scope-OrgID", tenant or "")
        self._api = PrometheusApi(url, access, timeout_s=timeout_s, concurrency=concurrency)
        self._names = Names(self._promql)
        self._newest = NewestOnly()
        self._native: bool | None = None
        self._learned_s: float | None = None

    @property
    def name(self) -> str:
        return "prometheus"

    async def read(self, now: datetime) -> Reading:
        """All signals, call edges, and a failure for each query that gave none or came with a remark of the server,
        for each target that is down, and for services that share one name."""
        if self._native is None:
            try:
                self._native = await self._knows_native()
            except (TemporaryError, PermanentError) as error:
                return Reading(failures=(failure_of(self.name, error),))
        signals = self._promql.signals(native=self._native)
        queries = {signal.value: query for signal, query in signals.items()}
        queries |= {_CALLS: self._promql.calls(), _DOWN: self._promql.down()}
        if self._learned_s is None or monotonic() - self._learned_s >= _LEARN_EVERY_S:
            queries[_PLACES] = self._promql.places()
        queries = {name: query for name, query in queries.items() if query}
        outcomes = await asyncio.gather(*(self._ask(name, query, now) for name, query in queries.items()))
        answers = {name: found for name, found in zip(queries, outcomes, strict=True) if isinstance(found, Answer)}
        refused = [found for found in outcomes if isinstance(found, SourceFailure)]
        rows = {name: answer.rows for name, answer in answers.items()}
        if _PLACES in rows:
            self._names.learn(row.metric for row in rows[_PLACES])
            self._learned_s = monotonic()

        rejected: Counter[str] = Counter()
        samples = [s for signal in signals for s in self._samples(signal, rows.get(signal.value, ()), rejected)]
        edges = [edge for row in rows.get(_CALLS, ()) for edge in _edge(row)]
        sifted = self._newest.sift(samples, now)
        rejected.update(sifted.rejected)
        failures = (
            *(refused if answers else [SourceFailure(self.name, f"every query: {refused[0].reason}")]),
            *self._remarks(answers),
            *self._down(rows.get(_DOWN, ())),
            *self._shared_names(),
        )
        return Reading(sifted.samples, tuple(edges), failures, dict(+rejected), self._names.namespaces)

    async def close(self) -> None:
        await self._api.close()

    async def _knows_native(self) -> bool:
        """Whether the server has the functions for native histograms. Raises TemporaryError or PermanentError."""
        try:
            await self._api.instant(_NATIVE_PROBE)
        except PermanentError as error:
            if str(error).startswith(_NOT_UNDERSTOOD):
                return False
            raise
        return True

    async def _ask(self, name: str, query: str, now: datetime) -> Answer | SourceFailure:
        source = f"{self.name} {name}"
        try:
            answer = await self._api.instant(query)
        except (TemporaryError, PermanentError) as error:
            return failure_of(source, error)
        age_s = max((now.timestamp() - row.value[0] for row in answer.rows if row.value[0]), default=0.0)
        if age_s > STALE_AFTER_S:
            return SourceFailure(source, f"the answer is {age_s:.0f} s old and was ignored")
        return answer

    def _samples(self, signal: Signal, rows: Sequence[Row], rejected: Counter[str]) -> Iterable[Sample]:
        if signal not in SERVICE_SIGNALS:
            return self._gauges(signal, rows, rejected)
        found = [(self._names.of_service(signal, row.metric), row) for row in rows]
        rejected[_UNNAMED] += sum(key is None for key, _ in found)
        return [Sample(key, row.at, row.value[1]) for key, row in found if key is not None]

    def _gauges(self, signal: Signal, rows: Sequence[Row], rejected: Counter[str]) -> list[Sample]:
        """Of several conventions that measure a service the preferred one, so that no replica has two names."""
        best: dict[SeriesKey, tuple[int, Row]] = {}
        preferred: dict[ServiceName, int] = {}
        for row in rows:
            named = self._names.of_gauge(signal, row.metric)
            if named is None:
                rejected[_UNNAMED] += 1
                continue
            rank, key = named
            place = self._conventions.index(GAUGES[rank].convention)
            preferred[key.service] = min(place, preferred.get(key.service, place))
            known = best.get(key)
            if known is None or rank < known[0] or (rank == known[0] and _worse(signal, row, known[1])):
                best[key] = (rank, row)
        return [
            Sample(key, row.at, row.value[1])
            for key, (rank, row) in best.items()
            if self._conventions.index(GAUGES[rank].convention) == preferred[key.service]
        ]

    def _remarks(self, answers: Mapping[str, Answer]) -> list[SourceFailure]:
        first = {remark: name for name, answer in reversed(tuple(answers.items())) for remark in answer.remarks}
        return [
            SourceFailure(f"{self.name} {name}", f"answered with a remark, figures may be incomplete: {remark}")
            for remark, name in sorted(first.items())
        ]

    def _down(self, rows: Sequence[Row]) -> list[SourceFailure]:
        targets = [target for row in rows if (target := self._names.target(row.metric))]
        told = [
            SourceFailure(f"{self.name} {target}", "Prometheus cannot scrape it") for target in targets[:_MOST_DOWN]
        ]
        if len(targets) > _MOST_DOWN:
            more = f"Prometheus cannot scrape {len(targets) - _MOST_DOWN} more"
            told.append(SourceFailure(f"{self.name} targets", more))
        return told

    def _shared_names(self) -> list[SourceFailure]:
        shared = self._names.ambiguous
        if not shared:
            return []
        said = [f"{service} ({', '.join(sorted(shared[service]))})" for service in sorted(shared)[:_MOST_NAMED]]
        more = f" and {len(shared) - _MOST_NAMED} more" if len(shared) > _MOST_NAMED else ""
        reason = f"measured as one though they run in several namespaces: {', '.join(said)}{more}; choose namespaces"
        return [SourceFailure(f"{self.name} names", reason)]


def _conventions(names: Sequence[str]) -> tuple[Convention, ...]:
    try:
        return tuple(dict.fromkeys(Convention(name) for name in names)) or tuple(Convention)
    except ValueError as error:
        raise ConfigurationError(f"{error} of metrics; there are {', '.join(Convention)}") from error


def _worse(signal: Signal, row: Row, than: Row) -> bool:
    return row.value[1] < than.value[1] if signal is Signal.CERT_REMAINING else row.value[1] > than.value[1]


def _edge(row: Row) -> tuple[CallEdge, ...]:
    caller, callee = row.metric.get(CALLER_LABEL, ""), row.metric.get(CALLEE_LABEL, "")
    if not caller or not callee or not isfinite(row.value[1]):
        return ()
    return (CallEdge(ServiceName(caller), ServiceName(callee), row.value[1]),)
