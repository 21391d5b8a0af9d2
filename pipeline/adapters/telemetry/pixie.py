"""Metrics, call edges and kernel-level activity from Pixie, which watches a Kubernetes cluster with eBPF."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.adapters.telemetry.exposition import STALE_AFTER_S
from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.adapters.telemetry.pixie_client import Pixie, figure, nanoseconds, service_name, service_names
from pipeline.adapters.telemetry.pixie_wire import Value
from pipeline.domain.activity import Activity, ActivityKind, ActivityReading
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal

MAX_ACTIVITIES = 20
"""Of each kind, the largest: they are evidence for a person and a model, not a series."""

_NS_PER_S = 1e9
_CLIENT, _SERVER = 1, 2
"""Pixie's ``trace_role``: on which side of the connection it listened."""

Row = Mapping[str, Value]

_REQUESTS = """\
import px
df = px.DataFrame(table='http_events', start_time={start}, end_time={end})
df = df[df.trace_role == {server}]
df.service = df.ctx['service']
df = df[df.service != '']
df.failure = df.resp_status >= 500
df = df.groupby('service').agg(
    latency=('latency', px.quantiles),
    requests=('latency', px.count),
    error_ratio=('failure', px.mean),
)
df.p99_ns = px.pluck_float64(df.latency, 'p99')
px.display(df[['service', 'p99_ns', 'requests', 'error_ratio']], 'requests')

alive = px.DataFrame(table='process_stats', start_time={start}, end_time={end})
alive.service = alive.ctx['service']
alive = alive[alive.service != '']
alive = alive.groupby('service').agg(measures=('time_', px.count))
px.display(alive[['service', 'measures']], 'alive')
"""

_EDGES = """\
import px
df = px.DataFrame(table='http_events', start_time={start}, end_time={end})
df = df[df.trace_role == {server}]
df.callee = df.ctx['service']
df.caller = px.pod_id_to_service_name(px.ip_to_pod_id(df.remote_addr))
df = df[df.callee != '' and df.caller != '']
df = df.groupby(['caller', 'callee']).agg(calls=('latency', px.count))
px.display(df[['caller', 'callee', 'calls']], 'requests')

conns = px.DataFrame(table='conn_stats', start_time={start}, end_time={end})
conns = conns[conns.trace_role == {client}]
conns.caller = conns.ctx['service']
conns.callee = px.pod_id_to_service_name(px.ip_to_pod_id(conns.remote_addr))
conns = conns[conns.callee != '' and conns.caller != '']
conns = conns.groupby(['caller', 'callee', 'upid', 'remote_addr', 'remote_port', 'protocol']).agg(
    first=('conn_open', px.min),
    last=('conn_open', px.max),
)
conns.opened = conns.last - conns.first
conns = conns.groupby(['caller', 'callee']).agg(opened=('opened', px.sum))
px.display(conns[['caller', 'callee', 'opened']], 'connections')
"""

_ACTIVITY = """\
import px
df = px.DataFrame(table='process_stats', start_time={start}, end_time={end})
df.service = df.ctx['service']
df = df[px.contains(df.service, '{service}')]
df.pod = df.ctx['pod']
df.cmdline = df.ctx['cmdline']
df.cpu_ns = df.cpu_utime_ns + df.cpu_ktime_ns
df = df.groupby(['service', 'pod', 'cmdline', 'upid']).agg(
    began=('time_', px.min),
    ended=('time_', px.max),
    cpu_first=('cpu_ns', px.min),
    cpu_last=('cpu_ns', px.max),
    rss_bytes=('rss_bytes', px.max),
    read_first=('rchar_bytes', px.min),
    read_last=('rchar_bytes', px.max),
    written_first=('wchar_bytes', px.min),
    written_last=('wchar_bytes', px.max),
)
px.display(df, 'processes')

flows = px.DataFrame(table='conn_stats', start_time={start}, end_time={end})
flows.service = flows.ctx['service']
flows = flows[px.contains(flows.service, '{service}')]
flows.pod = flows.ctx['pod']
flows = flows.groupby(['service', 'pod', 'remote_addr', 'remote_port', 'trace_role', 'protocol', 'upid']).agg(
    began=('time_', px.min),
    ended=('time_', px.max),
    sent_first=('bytes_sent', px.min),
    sent_last=('bytes_sent', px.max),
    received_first=('bytes_recv', px.min),
    received_last=('bytes_recv', px.max),
    open=('conn_active', px.max),
)
px.display(flows, 'flows')
"""


class PixieSource:
    """Traffic, errors and latency of HTTP services over the last ``window_s`` seconds, at the window's end.

    ``namespace`` narrows to one (empty: all). Data is taken ``delay_s`` late, for the nodes send it in rounds. A
    service that had requests and whose pods live on has a traffic of zero without them. Raises ConfigurationError.
    """

    def __init__(self, client: Pixie, *, namespace: str = "", window_s: float = 60.0, delay_s: float = 10.0) -> None:
        if not 10 <= window_s <= STALE_AFTER_S or not 0 <= delay_s <= STALE_AFTER_S / 2:
            raise ConfigurationError(
                f"Pixie: use a window of 10 to {STALE_AFTER_S:g} s and a delay of 0 to {STALE_AFTER_S / 2:g} s"
            )
        self._client = client
        self._namespace = namespace
        self._window = timedelta(seconds=window_s)
        self._delay = timedelta(seconds=delay_s)
        self._heard_of: set[ServiceName] = set()
        self._newest = NewestOnly()

    @property
    def name(self) -> str:
        return "pixie"

    async def read(self, now: datetime) -> Reading:
        """One script on the cluster."""
        end = now - self._delay
        script = _REQUESTS.format(start=nanoseconds(end - self._window), end=nanoseconds(end), server=_SERVER)
        try:
            tables = await self._client.run(script)
        except (TemporaryError, PermanentError) as error:
            return Reading(failures=(failure_of(self.name, error),))
        alive = {ServiceName(service_name(row.get("service"), self._namespace)) for row in tables.get("alive", ())}
        samples = list(self._samples(tables.get("requests", ()), end))
        told = {sample.key.service for sample in samples}
        self._heard_of = (self._heard_of & alive) | told
        samples += [Sample(SeriesKey(one, Signal.TRAFFIC), end, 0.0) for one in sorted(self._heard_of - told)]
        sifted = self._newest.sift(samples, now)
        return Reading(sifted.samples, (), (), sifted.rejected)

    async def close(self) -> None:
        await self._client.close()

    def _samples(self, rows: Iterable[Row], at: datetime) -> Iterator[Sample]:
        for row in rows:
            service = ServiceName(service_name(row.get("service"), self._namespace))
            requests, ratio, p99_ns = (figure(row.get(name)) for name in ("requests", "error_ratio", "p99_ns"))
            if not service or not requests:
                continue
            yield Sample(SeriesKey(service, Signal.TRAFFIC), at, requests / self._window.total_seconds())
            if ratio is not None:
                yield Sample(SeriesKey(service, Signal.ERROR_RATIO), at, ratio)
            if p99_ns is not None:
                yield Sample(SeriesKey(service, Signal.LATENCY_P99), at, p99_ns / _NS_PER_S)


class PixieTopologySource:
    """Who calls whom: HTTP requests, and where there were none the connections that were opened."""

    def __init__(self, client: Pixie, *, namespace: str = "") -> None:
        self._client = client
        self._namespace = namespace

    @property
    def name(self) -> str:
        return "pixie service graph"

    async def edges(self, since: datetime, until: datetime) -> Reading:
        """Requests a second; of protocols other than HTTP, new connections a second."""
        script = _EDGES.format(start=nanoseconds(since), end=nanoseconds(until), server=_SERVER, client=_CLIENT)
        try:
            tables = await self._client.run(script)
        except (TemporaryError, PermanentError) as error:
            return Reading(failures=(failure_of(self.name, error),))
        calls = self._pairs(tables.get("requests", ()), "calls")
        opened = self._pairs(tables.get("connections", ()), "opened")
        window_s = max((until - since).total_seconds(), 1.0)
        return Reading(
            edges=tuple(
                CallEdge(caller, callee, count / window_s) for (caller, callee), count in {**opened, **calls}.items()
            )
        )

    async def close(self) -> None:
        await self._client.close()

    def _pairs(self, rows: Iterable[Row], column: str) -> dict[tuple[ServiceName, ServiceName], float]:
        found: defaultdict[tuple[ServiceName, ServiceName], float] = defaultdict(float)
        for row in rows:
            caller, callee = (service_name(row.get(side), self._namespace) for side in ("caller", "callee"))
            count = figure(row.get(column)) or 0.0
            if caller and callee and caller != callee and count > 0:
                found[ServiceName(caller), ServiceName(callee)] += count
        return found


class PixieActivitySource:
    """Processes, what they read and wrote by system calls, and their network flows.

    System calls are told by the bytes that went through them, as the kernel counts them for each process: counting the
    calls themselves would need a probe to be installed, which is no reading.
    """

    def __init__(self, client: Pixie, *, namespace: str = "") -> None:
        self._client = client
        self._namespace = namespace

    @property
    def name(self) -> str:
        return "pixie"

    async def activity(self, service: ServiceName, since: datetime, until: datetime) -> ActivityReading:
        """The largest figures of each kind, at the end of the window."""
        if not re.fullmatch(r"[A-Za-z0-9._-]+", service):
            return ActivityReading()  # no service of Kubernetes, and nothing to put into a script
        script = _ACTIVITY.format(start=nanoseconds(since), end=nanoseconds(until), service=service)
        try:
            tables = await self._client.run(script)
        except (TemporaryError, PermanentError) as error:
            return ActivityReading(failures=(failure_of(self.name, error),))
        found = [
            Activity(kind, service, instance, until, statement, value)
            for make, table in ((_processes, "processes"), (_flows, "flows"))
            for row in tables.get(table, ())
            if service in service_names(row.get("service"), self._namespace)
            for kind, instance, statement, value in make(row)
        ]
        return ActivityReading(tuple(_largest(found)))

    async def close(self) -> None:
        await self._client.close()


_Figure = tuple[ActivityKind, str, str, float]


def _processes(row: Row) -> Iterator[_Figure]:
    pod, command = _last(row.get("pod")), str(row.get("cmdline", ""))[:80]
    if (cores := _rate(row, "cpu", per=_NS_PER_S)) is not None:
        rss_bytes = figure(row.get("rss_bytes")) or 0.0
        yield ActivityKind.PROCESS, pod, f"{command}: {cores:.2f} CPUs, {rss_bytes / 2**20:.0f} MiB resident", cores
    for verb, column in (("read", "read"), ("wrote", "written")):
        if rate := _rate(row, column):
            yield ActivityKind.SYSCALLS, pod, f"{command} {verb} {rate / 1000:.1f} kB/s by system calls", rate


def _flows(row: Row) -> Iterator[_Figure]:
    sent, received = _rate(row, "sent") or 0.0, _rate(row, "received") or 0.0
    open_ = figure(row.get("open")) or 0.0
    if sent + received > 0 or open_ > 0:
        way = "from" if row.get("trace_role") == _SERVER else "to"
        peer = f"{row.get('remote_addr', '')}:{row.get('remote_port', '')}"
        words = f"{way} {peer}: {sent / 1000:.1f} kB/s sent, {received / 1000:.1f} kB/s received, {open_:.0f} open"
        yield ActivityKind.NETWORK_FLOW, _last(row.get("pod")), words, sent + received


def _rate(row: Row, counter: str, *, per: float = 1.0) -> float | None:
    """A counter's growth a second between the first and the last look at the process; None for a single look."""
    names = ("began", "ended", f"{counter}_first", f"{counter}_last")
    began, ended, first, last = (figure(row.get(name)) for name in names)
    if began is None or ended is None or first is None or last is None or ended <= began or last < first:
        return None
    return (last - first) / per / ((ended - began) / _NS_PER_S)


def _last(value: Value | None) -> str:
    """A pod without its namespace."""
    return str(value or "").rpartition("/")[2]


def _largest(found: Sequence[Activity]) -> Iterator[Activity]:
    for kind in ActivityKind:
        own = sorted((one for one in found if one.kind is kind), key=lambda one: one.value, reverse=True)
        yield from own[:MAX_ACTIVITIES]
