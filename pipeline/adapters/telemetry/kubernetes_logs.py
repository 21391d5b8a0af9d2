"""Pods' logs, events as log lines, and rollouts as changes, from a Kubernetes API server. Nothing is written.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TypeVar

from kubernetes.client import Configuration

from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.http import one_line
from pipeline.adapters.telemetry.kubernetes_names import SERVICE_LABELS, ServiceNames
from pipeline.adapters.telemetry.kubernetes_reads import LOG_BYTES, ClusterReader, Container, Event, Pod, Terminated
from pipeline.adapters.telemetry.kubernetes_rollouts import rollouts
from pipeline.adapters.telemetry.messages import message_of
from pipeline.domain.changes import ChangeEvent, ChangeReading
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.telemetry import SourceFailure

MAX_TAIL_LINES = 5000
"""Of one container at once."""
_SKEW_S = 5
"""The server counts back from its own clock, which may be ahead of ours by so much."""
_EVENT_CHARS = 400

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Log:
    """One container's log, or that of the container before it."""

    namespace: str
    pod: str
    service: ServiceName
    container: str
    previous: bool


@dataclass(frozen=True, slots=True)
class _Window:
    """What is asked for. ``service`` None: all."""

    since: datetime
    until: datetime
    limit: int
    service: ServiceName | None = None
    text: str = ""

    def holds(self, line: LogLine) -> bool:
        return self.since <= line.at < self.until and self.text in line.text

    def concerns(self, service: ServiceName) -> bool:
        return self.service is None or service == self.service

    @property
    def since_s(self) -> int:
        return max(ceil((datetime.now(UTC) - self.since).total_seconds()), 0) + _SKEW_S

    @property
    def tail_lines(self) -> int:
        """The end of the log is the end of the window only when that is now, and nothing is searched for."""
        now = datetime.now(UTC) - timedelta(seconds=_SKEW_S)
        return min(self.limit + 1, MAX_TAIL_LINES) if self.until >= now and not self.text else MAX_TAIL_LINES


@dataclass(frozen=True, slots=True)
class _Part:
    """What one namespace, or one log, gave."""

    lines: tuple[LogLine, ...] = ()
    logs: tuple[_Log, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
    truncated: bool = False


class KubernetesSource:
    """Logs and changes of the listed namespaces.

    A line's instance is its pod. Beside what containers write, there are lines for warnings (``BackOff: …``,
    ``FailedScheduling: …``, ``Unhealthy: …``) and for containers that ended badly (``OOMKilled: …``), whose last
    lines are read as well. ``service_label`` names the service, else the usual labels, else the workload's name.
    Of more than ``max_pods`` pods those are read that crashed, then the youngest, and the reading says so.
    ``timeout_s`` bounds each request. Raises ConfigurationError.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        namespaces: Collection[str],
        service_label: str = SERVICE_LABELS[0],
        max_pods: int = 100,
        timeout_s: float = 10.0,
    ) -> None:
        if not namespaces:
            raise ConfigurationError("no namespace is given whose pods' logs are to be read")
        if max_pods < 1:
            raise ConfigurationError("at least one pod's log must be allowed to be read")
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._service_label = service_label
        self._max_pods = max_pods
        self._rolled_back_at: dict[str, datetime] = {}
        self._reader = ClusterReader(configuration, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        return "kubernetes"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        return await self._read(_Window(since, until, limit))

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        return await self._read(_Window(since, until, limit, service, text))

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        """Rollouts of Deployments by revision, with their cause (``kubernetes.io/change-cause``) and images."""
        outcomes = await asyncio.gather(*(self._rollouts(namespace) for namespace in self._namespaces))
        found = [change for changes, _ in outcomes for change in changes if since <= change.at < until]
        failures = tuple(failure for _, failed in outcomes for failure in failed)
        return ChangeReading(tuple(sorted(found, key=lambda change: change.at)), failures)

    async def close(self) -> None:
        self._reader.close()

    async def _rollouts(self, namespace: str) -> tuple[tuple[ChangeEvent, ...], tuple[SourceFailure, ...]]:
        replica_sets, deployments = await asyncio.gather(
            self._asked(f"rollouts in {namespace}", self._reader.replica_sets(namespace)),
            self._asked(f"rollouts in {namespace}", self._reader.deployments(namespace)),
        )
        if isinstance(replica_sets, SourceFailure) or isinstance(deployments, SourceFailure):
            return (), _failures(replica_sets, deployments)
        names = ServiceNames((), label=self._service_label)
        return tuple(rollouts(replica_sets, deployments, names, self._rolled_back_at)), ()

    async def _read(self, window: _Window) -> LogReading:
        overview = await asyncio.gather(*(self._namespace(namespace, window) for namespace in self._namespaces))
        logs = [log for part in overview for log in part.logs]
        parts = [*overview, *await asyncio.gather(*(self._log(log, window) for log in logs))]
        lines = sorted((line for part in parts for line in part.lines if window.holds(line)), key=lambda line: line.at)
        return LogReading(
            tuple(lines[-window.limit :]),
            tuple(dict.fromkeys(failure for part in parts for failure in part.failures)),
            truncated=len(lines) > window.limit or any(part.truncated for part in parts),
        )

    async def _namespace(self, namespace: str, window: _Window) -> _Part:
        """Which logs to read, and the lines that are in none of them."""
        found, events = await asyncio.gather(
            self._asked(f"pods in {namespace}", self._reader.pods(namespace)),
            self._asked(f"events in {namespace}", self._reader.warnings(namespace)),
        )
        failures = _failures(found, events)
        pods = () if isinstance(found, SourceFailure) else found
        names = ServiceNames(pods, label=self._service_label)
        concerned = [pod for pod in pods if window.concerns(names.of(pod.metadata))]
        lines = [line for pod in concerned for line in _endings(pod, names.of(pod.metadata))]
        for event in () if isinstance(events, SourceFailure) else events:
            line = _line_of(event, names)
            if line is not None and window.concerns(line.service):
                lines.append(line)
        read = sorted(concerned, key=lambda pod: _urgency(pod, window.since), reverse=True)[: self._max_pods]
        if len(read) < len(concerned):
            said = f"{len(concerned)} pods are there and the logs of {len(read)} are read: allow more of them"
            failures = (*failures, SourceFailure(f"{self.name} pods in {namespace}", said))
        logs = [log for pod in read for log in _logs(namespace, pod, names.of(pod.metadata), window.since)]
        return _Part(tuple(lines), tuple(logs), failures)

    async def _log(self, log: _Log, window: _Window) -> _Part:
        asked = window.tail_lines
        reading = self._reader.log(
            log.namespace,
            log.pod,
            log.container,
            previous=log.previous,
            since_s=window.since_s,
            tail_lines=asked,
        )
        text = await self._asked(f"logs in {log.namespace}", reading)
        if isinstance(text, SourceFailure):
            return _Part(failures=(text,))
        lines = tuple(_parsed(text, log))
        cut = len(lines) >= asked or len(text) >= LOG_BYTES
        return _Part(lines, truncated=cut and bool(lines) and lines[0].at >= window.since)

    async def _asked(self, what: str, reading: Awaitable[_T]) -> _T | SourceFailure:
        try:
            return await reading
        except (TemporaryError, PermanentError) as error:
            return failure_of(f"{self.name} {what}", error)


def _failures(*outcomes: object) -> tuple[SourceFailure, ...]:
    return tuple(dict.fromkeys(outcome for outcome in outcomes if isinstance(outcome, SourceFailure)))


def _logs(namespace: str, pod: Pod, service: ServiceName, since: datetime) -> Iterator[_Log]:
    """Of the containers that may have written since then, and of those before them that ended since then."""
    for container in pod.status.containers:
        ended, ended_before = container.state.terminated, container.lastState.terminated
        if container.state.running is not None or (ended is not None and _since(ended, since)):
            yield _Log(namespace, pod.metadata.name, service, container.name, previous=False)
        if ended_before is not None and _since(ended_before, since):
            yield _Log(namespace, pod.metadata.name, service, container.name, previous=True)


def _urgency(pod: Pod, since: datetime) -> tuple[bool, datetime]:
    crashed = any(_since(ended, since) for container in pod.status.containers for ended in _bad_ends(container))
    return crashed, pod.metadata.creationTimestamp or datetime.min.replace(tzinfo=UTC)


def _since(ended: Terminated, since: datetime) -> bool:
    return ended.finishedAt is not None and ended.finishedAt >= since


def _bad_ends(container: Container) -> Iterator[Terminated]:
    for ended in (container.lastState.terminated, container.state.terminated):
        if ended is not None and (ended.exitCode != 0 or ended.reason == "OOMKilled"):
            yield ended


def _endings(pod: Pod, service: ServiceName) -> Iterator[LogLine]:
    """Containers that ended badly: no event tells of it, and a killed one had no time to write why."""
    for container in pod.status.containers:
        for ended in _bad_ends(container):
            if ended.finishedAt is None:
                continue
            last_words = f": {one_line(ended.message)}" if ended.message else ""
            said = f"{ended.reason or 'Error'}: container {container.name} ended with code {ended.exitCode}{last_words}"
            yield LogLine(ended.finishedAt.astimezone(UTC), service, said, pod.metadata.name)


def _line_of(event: Event, names: ServiceNames) -> LogLine | None:
    about = event.involvedObject
    service = names.about(about.kind or "", about.name or "")
    times = (
        event.series.lastObservedTime if event.series else None,
        event.lastTimestamp,
        event.eventTime,
        event.firstTimestamp,
        event.metadata.creationTimestamp,
    )
    at = next((at for at in times if at is not None), None)
    if not service or at is None:
        return None
    count = (event.series.count if event.series else event.count) or 1
    often = f" ({count} times)" if count > 1 else ""
    said = f"{event.reason or 'Warning'}: {one_line(event.message or '', _EVENT_CHARS)}{often}"
    return LogLine(at.astimezone(UTC), service, said, about.name or "")


def _parsed(text: str, log: _Log) -> Iterator[LogLine]:
    """Lines as the server writes them, ``<RFC 3339 time> <line>``; one cut short before its text is left out."""
    for line in text.split("\n"):
        stamp, _, rest = line.partition(" ")
        try:
            at = datetime.fromisoformat(stamp)
        except ValueError:
            continue
        if at.tzinfo is not None:
            yield LogLine(at.astimezone(UTC), log.service, message_of(rest), log.pod)
