"""Which CloudWatch metrics say what about which service: the conventions of AWS' namespaces. Pure.

Names, units and dimensions are those of AWS' documentation of each namespace's metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SeriesKey, Signal

Dimensions = tuple[tuple[str, str], ...]
Combine = Callable[[Sequence[float | None]], float | None]
"""The value of one moment from those of a series' queries, None where a query has none."""

PERIOD_S = 60
SLOW_PERIOD_S = 300
"""EC2's basic monitoring measures every five minutes."""
CERTIFICATE_PERIOD_S = 3600
"""Certificates are measured twice a day; the newest hour that has a value counts."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One statistic of one metric."""

    namespace: str
    metric: str
    dimensions: Dimensions
    stat: str


@dataclass(frozen=True, slots=True)
class Math:
    """Metric math, done by CloudWatch. ``{0}``, ``{1}`` … in the expression stand for the ``stats``."""

    expression: str
    stats: tuple[Stat, ...] = ()


Query = Stat | Math


@dataclass(frozen=True, slots=True)
class Series:
    """One series: what to ask, and how the answers make its value in the unit of its signal."""

    key: SeriesKey
    queries: tuple[Query, ...]
    combine: Combine
    period_s: int = PERIOD_S


@dataclass(frozen=True, slots=True)
class CloudWatchExpression:
    """A series of one's own: metric math or a Metrics Insights SELECT that yields one series in the signal's unit."""

    service: ServiceName
    signal: Signal
    expression: str
    instance: str = ""

    def series(self) -> Series:
        key = SeriesKey(self.service, self.signal, self.instance)
        return Series(key, (Math(self.expression),), lambda values: values[0])


@dataclass(frozen=True, slots=True)
class Listed:
    """A metric that exists, as ListMetrics tells it."""

    namespace: str
    metric: str
    dimensions: Dimensions


@dataclass(frozen=True, slots=True)
class _Rule:
    """``metric`` with all of ``needs`` and nothing beyond ``may`` makes a series of ``signal``.

    ``service`` names dimensions, the first that is there counts. ``instance`` names those that make the instance.
    """

    namespace: str
    metric: str
    signal: Signal
    needs: frozenset[str]
    service: tuple[str, ...]
    queries: Callable[[Listed], tuple[Query, ...]]
    combine: Combine
    may: frozenset[str] = frozenset()
    instance: tuple[str, ...] = ()
    period_s: int = PERIOD_S


def _stats(stat: str, *others: str) -> Callable[[Listed], tuple[Query, ...]]:
    """The listed metric and others beside it, as ``stat``; ``name:stat`` takes another statistic."""

    def queries(listed: Listed) -> tuple[Query, ...]:
        wanted = [(listed.metric, stat), *((name, own or stat) for name, _, own in (o.partition(":") for o in others))]
        return tuple(Stat(listed.namespace, name, listed.dimensions, one) for name, one in wanted)

    return queries


def _share_of(reserved: str) -> Callable[[Listed], tuple[Query, ...]]:
    def queries(listed: Listed) -> tuple[Query, ...]:
        parts = tuple(Stat(listed.namespace, name, listed.dimensions, "Average") for name in (listed.metric, reserved))
        return (Math("{0} / {1}", parts),)

    return queries


def _as_it_is(values: Sequence[float | None]) -> float | None:
    return values[0]


def _percent(values: Sequence[float | None]) -> float | None:
    return None if values[0] is None else values[0] / 100


def _milliseconds(values: Sequence[float | None]) -> float | None:
    return None if values[0] is None else values[0] / 1000


def _days(values: Sequence[float | None]) -> float | None:
    return None if values[0] is None else values[0] * 86400


def _rate(values: Sequence[float | None]) -> float | None:
    """A sum as a rate. Nothing is told of nothing: a moment without a sum is that of a second metric, which shows that
    the source lives."""
    return 0.0 if values[0] is None else values[0] / PERIOD_S


def _error_ratio(values: Sequence[float | None]) -> float | None:
    # Not metric math: errors / requests has no value where no error was counted, and FILL none where none ever was.
    requests, errors = values
    return None if not requests else min((errors or 0.0) / requests, 1.0)


_ALB = frozenset({"LoadBalancer", "TargetGroup"})
_ECS = frozenset({"ClusterName", "ServiceName"})
_TASK = frozenset({"ClusterName", "ServiceName", "TaskId"})
_POD = frozenset({"ClusterName", "Namespace", "PodName"})
_AGENT = frozenset({"AutoScalingGroupName", "ImageId", "InstanceType", "path", "device", "fstype"})
_HOST = ("AutoScalingGroupName", "InstanceId")
_FAMILY = frozenset({"TaskDefinitionFamily"})

_RULES: tuple[_Rule, ...] = (
    _Rule("AWS/ApplicationELB", "RequestCount", Signal.TRAFFIC, _ALB, ("TargetGroup",),
          _stats("Sum", "HealthyHostCount:Average"), _rate),
    _Rule("AWS/ApplicationELB", "RequestCount", Signal.ERROR_RATIO, _ALB, ("TargetGroup",),
          _stats("Sum", "HTTPCode_Target_5XX_Count"), _error_ratio),
    _Rule("AWS/ApplicationELB", "TargetResponseTime", Signal.LATENCY_P99, _ALB, ("TargetGroup",),
          _stats("p99"), _as_it_is),
    _Rule("AWS/Lambda", "Invocations", Signal.TRAFFIC, frozenset({"FunctionName"}), ("FunctionName",),
          _stats("Sum"), _rate),
    _Rule("AWS/Lambda", "Invocations", Signal.ERROR_RATIO, frozenset({"FunctionName"}), ("FunctionName",),
          _stats("Sum", "Errors"), _error_ratio),
    _Rule("AWS/Lambda", "Duration", Signal.LATENCY_P99, frozenset({"FunctionName"}), ("FunctionName",),
          _stats("p99"), _milliseconds),
    _Rule("ECS/ContainerInsights", "TaskMemoryUtilization", Signal.MEMORY_RATIO, _TASK, ("ServiceName",),
          _stats("Maximum"), _percent, may=_FAMILY, instance=("TaskId",)),
    _Rule("ECS/ContainerInsights", "TaskCpuUtilization", Signal.CPU_RATIO, _TASK, ("ServiceName",),
          _stats("Average"), _percent, may=_FAMILY, instance=("TaskId",)),
    _Rule("AWS/ECS", "MemoryUtilization", Signal.MEMORY_RATIO, _ECS, ("ServiceName",), _stats("Maximum"), _percent),
    _Rule("AWS/ECS", "CPUUtilization", Signal.CPU_RATIO, _ECS, ("ServiceName",), _stats("Average"), _percent),
    _Rule("ECS/ContainerInsights", "MemoryUtilized", Signal.MEMORY_RATIO, _ECS, ("ServiceName",),
          _share_of("MemoryReserved"), _as_it_is),
    _Rule("ECS/ContainerInsights", "CpuUtilized", Signal.CPU_RATIO, _ECS, ("ServiceName",),
          _share_of("CpuReserved"), _as_it_is),
    _Rule("ECS/ContainerInsights", "EphemeralStorageUtilized", Signal.DISK_RATIO, _ECS, ("ServiceName",),
          _share_of("EphemeralStorageReserved"), _as_it_is),
    _Rule("ContainerInsights", "pod_memory_utilization_over_pod_limit", Signal.MEMORY_RATIO, _POD, ("PodName",),
          _stats("Maximum"), _percent, may=frozenset({"FullPodName"}), instance=("FullPodName",)),
    _Rule("ContainerInsights", "pod_cpu_utilization_over_pod_limit", Signal.CPU_RATIO, _POD, ("PodName",),
          _stats("Average"), _percent, may=frozenset({"FullPodName"}), instance=("FullPodName",)),
    _Rule("AWS/EC2", "CPUUtilization", Signal.CPU_RATIO, frozenset({"AutoScalingGroupName"}), _HOST,
          _stats("Average"), _percent, period_s=SLOW_PERIOD_S),
    _Rule("AWS/EC2", "CPUUtilization", Signal.CPU_RATIO, frozenset({"InstanceId"}), _HOST,
          _stats("Average"), _percent, instance=("InstanceId",), period_s=SLOW_PERIOD_S),
    _Rule("AWS/RDS", "CPUUtilization", Signal.CPU_RATIO, frozenset({"DBInstanceIdentifier"}),
          ("DBInstanceIdentifier",), _stats("Average"), _percent),
    _Rule("CWAgent", "mem_used_percent", Signal.MEMORY_RATIO, frozenset({"InstanceId"}), _HOST,
          _stats("Maximum"), _percent, may=_AGENT, instance=("InstanceId",)),
    _Rule("CWAgent", "disk_used_percent", Signal.DISK_RATIO, frozenset({"InstanceId", "path"}), _HOST,
          _stats("Maximum"), _percent, may=_AGENT, instance=("InstanceId", "path")),
    _Rule("AWS/CertificateManager", "DaysToExpiry", Signal.CERT_REMAINING, frozenset({"CertificateArn"}),
          ("CertificateArn",), _stats("Minimum"), _days, instance=("CertificateArn",),
          period_s=CERTIFICATE_PERIOD_S),
)  # fmt: skip

DATABASES = "AWS/RDS"
NAMESPACES = tuple(dict.fromkeys(rule.namespace for rule in _RULES))
_NAMES_NOTHING = frozenset({"InstanceId", "CertificateArn"})
"""Ids that are nobody's name: without an entry in the settings they belong to no service."""


def series_of(metrics: Iterable[Listed], names: Mapping[str, str], only: Mapping[str, str]) -> tuple[Series, ...]:
    """What can be read of these metrics.

    ``names`` gives the service of a resource (target group, function, instance, certificate …) where its own name is
    not it. ``only`` leaves out metrics that have one of its dimensions with another value (``ClusterName``). Of rules
    for one key the earlier counts; where instances are told, the service's mean is not asked for.
    """
    found: dict[SeriesKey, tuple[int, Series]] = {}
    for listed in metrics:
        dimensions = dict(listed.dimensions)
        if any(dimensions.get(name, value) != value for name, value in only.items()):
            continue
        for rank, series in _matches(listed, dimensions, names):
            if series.key not in found or rank < found[series.key][0]:
                found[series.key] = (rank, series)
    told = {(key.service, key.signal) for key in found if key.instance}
    return tuple(
        series for key, (_, series) in sorted(found.items()) if key.instance or (key.service, key.signal) not in told
    )


def disks_of(
    metrics: Iterable[Listed], allocated_bytes: Mapping[str, float], names: Mapping[str, str]
) -> tuple[Series, ...]:
    """RDS tells the free space alone; ``allocated_bytes`` is each instance's size. Aurora's volumes have no limit to
    reach, and no such metric."""
    found: list[Series] = []
    for listed in metrics:
        dimensions = dict(listed.dimensions)
        name = dimensions.get("DBInstanceIdentifier", "")
        size_bytes = allocated_bytes.get(name, 0.0)
        if listed.metric == "FreeStorageSpace" and len(dimensions) == 1 and size_bytes > 0:
            key = SeriesKey(ServiceName(names.get(name, name)), Signal.DISK_RATIO, name)
            found.append(Series(key, _stats("Minimum")(listed), partial(_used, size_bytes)))
    return tuple(found)


def _used(size_bytes: float, values: Sequence[float | None]) -> float | None:
    return None if values[0] is None else 1 - values[0] / size_bytes


def _matches(listed: Listed, dimensions: Mapping[str, str], names: Mapping[str, str]) -> Iterator[tuple[int, Series]]:
    for rank, rule in enumerate(_RULES):
        if (rule.namespace, rule.metric) != (listed.namespace, listed.metric):
            continue
        if not rule.needs <= dimensions.keys() <= rule.needs | rule.may:
            continue
        service = next((name for one in rule.service if (name := _name(one, dimensions, names))), "")
        if not service:
            continue
        instance = ":".join(_short(dimensions[name]) for name in rule.instance if name in dimensions)
        key = SeriesKey(ServiceName(service), rule.signal, instance)
        yield rank, Series(key, rule.queries(listed), rule.combine, rule.period_s)


def _name(dimension: str, dimensions: Mapping[str, str], names: Mapping[str, str]) -> str:
    value = dimensions.get(dimension, "")
    short = value.split("/")[1] if dimension == "TargetGroup" and value.count("/") == 2 else _short(value)
    return names.get(value) or names.get(short) or ("" if dimension in _NAMES_NOTHING else short)


def _short(value: str) -> str:
    """A resource without its ARN's beginning."""
    return value.rsplit("/", 1)[-1] if value.startswith("arn:") else value
