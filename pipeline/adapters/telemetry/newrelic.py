"""Metrics and call edges from New Relic: APM agents, OpenTelemetry, infrastructure and Kubernetes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from pydantic import JsonValue

from pipeline.adapters.telemetry.exposition import STALE_AFTER_S
from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.adapters.telemetry.newrelic_client import NerdGraph, Row, attribute, number, window
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal, SourceFailure

_MINUTE_S = 60
_CALLS = "traces_service_graph_request_total"
"""What the OpenTelemetry collector's servicegraph connector counts."""


class NewRelicSource:
    """Asks for the newest whole minute, once each minute, everything in one request.

    Services are named by APM's ``appName``, OpenTelemetry's ``service.name``, and for hosts and pods by
    ``host_service`` and ``pod_service``: an attribute that a host's agent was given, and the pod's workload or label.
    Minutes are taken ``delay_s`` after their end, for data comes late. Raises ConfigurationError.
    """

    def __init__(
        self,
        client: NerdGraph,
        *,
        host_service: str = "service",
        pod_service: str = "deploymentName",
        delay_s: float = 60.0,
    ) -> None:
        if not 0 <= delay_s <= STALE_AFTER_S / 2:
            raise ConfigurationError(f"the New Relic delay is {delay_s:g} s; use 0 to {STALE_AFTER_S / 2:g}")
        self._client = client
        self._queries = _queries(attribute(host_service), attribute(pod_service))
        self._delay = timedelta(seconds=delay_s)
        self._until: datetime | None = None
        self._failures: tuple[SourceFailure, ...] = ()
        self._newest = NewestOnly()

    @property
    def name(self) -> str:
        return "newrelic"

    async def read(self, now: datetime) -> Reading:
        """The minute's figures at its end; between minutes nothing is new, and failures stay."""
        end = now - self._delay
        end -= timedelta(seconds=end.timestamp() % _MINUTE_S)
        if end == self._until:
            return Reading(failures=self._failures)
        self._until = end
        range_ = window(end - timedelta(seconds=_MINUTE_S), end)
        try:
            answers = await self._client.ask({name: f"{query} {range_}" for name, query in self._queries.items()})
        except (TemporaryError, PermanentError) as error:
            self._failures = (failure_of(self.name, error),)
            return Reading(failures=self._failures)
        self._failures = tuple(
            failure_of(f"{self.name} {name}", rows.error) for name, rows in answers.items() if rows.error is not None
        )
        found: dict[SeriesKey, Sample] = {}
        for name in self._queries:  # a service that two kinds of agents watch is told by the first
            for row in answers[name].rows:
                for key, value in _figures(name, row):
                    found.setdefault(key, Sample(key, end, value))
        sifted = self._newest.sift(found.values(), now)
        return Reading(sifted.samples, (), self._failures, sifted.rejected)

    async def close(self) -> None:
        await self._client.close()


class NewRelicTopologySource:
    """Call edges from APM's distributed tracing (a transaction knows the application that called it), and from the
    OpenTelemetry collector's service graph. Entity relationships are not asked for: they carry no rates."""

    def __init__(self, client: NerdGraph) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return "newrelic service map"

    async def edges(self, since: datetime, until: datetime) -> Reading:
        """Calls a second over the window; APM's are counted in transaction events, which busy agents sample."""
        range_ = window(since, until)
        queries = {
            "apps": f"FROM Transaction SELECT latest(appName) AS 'name' FACET appId LIMIT MAX {range_}",
            "calls": "FROM Transaction SELECT count(*) AS 'calls' WHERE `parent.app` IS NOT NULL "
            f"FACET `parent.app`, appName LIMIT MAX {range_}",
            "graph": f"FROM Metric SELECT sum({_CALLS}) AS 'calls' FACET client, server LIMIT MAX {range_}",
        }
        try:
            answers = await self._client.ask(queries)
        except (TemporaryError, PermanentError) as error:
            return Reading(failures=(failure_of(self.name, error),))
        names = {str(row.get("facet")): str(row.get("name") or "") for row in answers["apps"].rows}
        calls: defaultdict[tuple[str, str], float] = defaultdict(float)
        for row in answers["calls"].rows:
            caller, callee = _pair(row.get("facet"))
            calls[names.get(caller, ""), callee] += number(row.get("calls")) or 0.0
        for row in answers["graph"].rows:
            calls[_pair(row.get("facet"))] += number(row.get("calls")) or 0.0
        window_s = max((until - since).total_seconds(), 1.0)
        return Reading(
            edges=tuple(
                CallEdge(ServiceName(caller), ServiceName(callee), count / window_s)
                for (caller, callee), count in calls.items()
                if caller and callee and caller != callee and count > 0
            ),
            failures=tuple(
                failure_of(f"{self.name} {name}", rows.error)
                for name, rows in answers.items()
                if rows.error is not None
            ),
        )

    async def close(self) -> None:
        await self._client.close()


def _queries(host_service: str, pod_service: str) -> dict[str, str]:
    """NRQL without its window. Counts are of metrics: busy agents sample their events."""
    duration, otel = "apm.service.transaction.duration", "http.server.request.duration"
    return {
        "apm": f"FROM Metric SELECT count({duration}) AS 'requests', count(apm.service.error.count) AS 'errors' "
        "WHERE appName IS NOT NULL FACET appName LIMIT MAX",
        "apm_latency": "FROM Transaction SELECT percentile(duration, 99) AS 'p99_s' FACET appName LIMIT MAX",
        "otel": f"FROM Metric SELECT count({otel}) AS 'requests', "
        f"filter(count({otel}), WHERE numeric(http.response.status_code) >= 500) AS 'errors', "
        f"percentile({otel}, 99) AS 'p99_s' WHERE service.name IS NOT NULL FACET service.name LIMIT MAX",
        "hosts": "FROM SystemSample SELECT max(memoryUsedPercent) AS 'memory', average(cpuPercent) AS 'cpu' "
        f"WHERE {host_service} IS NOT NULL FACET {host_service}, hostname LIMIT MAX",
        "disks": "FROM StorageSample SELECT max(diskUsedPercent) AS 'disk' "
        f"WHERE {host_service} IS NOT NULL FACET {host_service}, hostname, mountPoint LIMIT MAX",
        "pods": "FROM K8sContainerSample SELECT max(memoryWorkingSetUtilization) AS 'memory', "
        "average(cpuCoresUtilization) AS 'cpu' "
        f"WHERE {pod_service} IS NOT NULL FACET {pod_service}, podName LIMIT MAX",
    }


def _figures(name: str, row: Row) -> Iterator[tuple[SeriesKey, float]]:
    """What a row says, in the units of the signals. A row that names no service says nothing."""
    facet = row.get("facet")
    parts = [str(part or "") for part in (facet if isinstance(facet, list) else [facet])]
    if not parts or not parts[0]:
        return
    service, instance = ServiceName(parts[0]), ":".join(part for part in parts[1:] if part)
    requests, errors = number(row.get("requests")), number(row.get("errors"))
    if requests is not None:
        # A service that is known and had no requests had a traffic of none.
        yield SeriesKey(service, Signal.TRAFFIC), requests / _MINUTE_S
        if requests > 0:
            yield SeriesKey(service, Signal.ERROR_RATIO), min((errors or 0.0) / requests, 1.0)
    for column, signal in {"memory": Signal.MEMORY_RATIO, "cpu": Signal.CPU_RATIO, "disk": Signal.DISK_RATIO}.items():
        if (percent := number(row.get(column))) is not None:
            yield SeriesKey(service, signal, instance), percent / 100
    latency_s = number(row.get("p99_s"))
    if latency_s is not None and (name != "otel" or requests):
        yield SeriesKey(service, Signal.LATENCY_P99), latency_s


def _pair(facet: JsonValue) -> tuple[str, str]:
    """Two facets; empty where there are not two."""
    return (str(facet[0] or ""), str(facet[1] or "")) if isinstance(facet, list) and len(facet) == 2 else ("", "")
