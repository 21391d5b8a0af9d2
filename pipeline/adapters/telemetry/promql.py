"""The conventions as PromQL, for any Prometheus-compatible server: one query a signal, whatever the number of series.

Pure. Alternatives are joined with ``or``: what no target exports costs the server an index look-up and us nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.adapters.telemetry.conventions import (
    EDGES,
    GAUGES,
    POD_LABEL,
    REQUESTS,
    SUBJECT_LABELS,
    WORKLOAD,
    Convention,
    Edges,
    Gauge,
    Requests,
    Selector,
    Subject,
)
from pipeline.adapters.telemetry.exposition import CALLEE_LABEL, CALLER_LABEL
from pipeline.domain.telemetry import Signal

SERVICE = "sre_service"
"""The label of an answer that names the service, whatever label named it in the series."""
RANK = "sre_rank"
"""The label of an answer that says which row of ``GAUGES`` it came by."""
OWNER_LABELS = ("owner_kind", "owner_name")
POD_LABEL_PREFIX = "label_"
"""kube-state-metrics puts it before a pod's own labels."""
PLATFORM_AGE_S = 150.0
"""cAdvisor and the kubelet stamp their values themselves, up to half a minute late, and are often asked twice a minute:
their gauges may be this old whatever the window."""

SERVICE_SIGNALS = (Signal.TRAFFIC, Signal.ERROR_RATIO, Signal.LATENCY_P99)
GAUGE_SIGNALS = (
    Signal.MEMORY_RATIO,
    Signal.DISK_RATIO,
    Signal.CERT_REMAINING,
    Signal.CPU_RATIO,
    Signal.QUOTA_RATIO,
)

_NAMESPACE_OF: Mapping[Subject, tuple[str, ...]] = {
    Subject.TARGET: ("namespace",),
    Subject.POD: ("namespace",),
    Subject.QUOTA: ("namespace",),
    Subject.CERTIFICATE: ("exported_namespace",),
    Subject.PROBE: (),
}
"""Labels that say of which namespace a gauge is; an exporter's own is none of those it tells of."""

_Row = TypeVar("_Row", Requests, Gauge, Edges)


@dataclass(frozen=True, slots=True)
class PromQL:
    """Builds the queries.

    ``services`` are the labels that name a service, the first that a series has counts (``pod``: its workload), and
    ``instance`` the label of a replica. ``window`` is a duration such as ``1m``: of rates, and the greatest age of a
    gauge. ``matchers`` stand in every selector, as in PromQL: ``environment="prod",cluster=~"eu.*"``. Series
    that say that they are of none of ``namespaces`` are left out; empty: no series is.
    """

    services: tuple[str, ...]
    instance: str
    window: str
    matchers: str
    conventions: tuple[Convention, ...] = tuple(Convention)
    namespaces: tuple[str, ...] = ()

    def signals(self, *, native: bool) -> dict[Signal, str]:
        """Of requests: vectors labelled by ``SERVICE``. Of gauges: by the subject's labels, and ``RANK``.

        ``native``: the server knows native histograms. A signal that no convention gives has no query.
        """
        rows = self._chosen(REQUESTS)
        alternatives = {
            Signal.TRAFFIC: [query for row in rows for query in self._traffics(row, native)],
            Signal.ERROR_RATIO: [query for row in rows for query in self._error_ratios(row, native)],
            Signal.LATENCY_P99: [query for row in rows for query in self._latencies(row, native)],
        }
        for signal in GAUGE_SIGNALS:
            alternatives[signal] = [self._tagged(gauge) for gauge in self._chosen(GAUGES) if gauge.signal is signal]
        return {signal: _either(queries) for signal, queries in alternatives.items() if queries}

    def calls(self) -> str:
        """Calls per second by caller and callee; empty when no convention gives them."""
        return _either(self._edges(row) for row in self._chosen(EDGES))

    def down(self) -> str:
        """Targets that Prometheus cannot scrape."""
        up = Selector("up", (*_present(self.services), *self._within("namespace")), "any")
        return f"max by ({_list(self.target_labels)}) ({self._series(up)}) == 0"

    def places(self) -> str:
        """Which services run in which namespace, and whose each pod is: labels alone, the values mean nothing."""
        queries = [
            f"group by ({_list(dict.fromkeys((*row.namespace, *self._names(row))))}) "
            f"({self._series(Selector(metric, (*row.only, *self._named(row)), 'any'))})"
            for row in self._chosen(REQUESTS)
            for metric in ((row.count, row.durations) if row.native and not row.counter else (row.count,))
        ]
        if Convention.KUBERNETES in self.conventions:
            pod, inside = ("namespace", POD_LABEL), self._within("namespace")
            owners = Selector("kube_pod_owner", ('owner_name!=""', *inside), "any")
            queries.append(f"group by ({_list((*pod, *OWNER_LABELS))}) ({self._series(owners)})")
            for label in self.pod_labels:
                labelled = Selector("kube_pod_labels", (f'{label}!=""', *inside), "any")
                queries.append(f"group by ({_list((*pod, label))}) ({self._series(labelled)})")
        return _either(queries)

    @property
    def target_labels(self) -> tuple[str, ...]:
        """Labels that tell instances apart."""
        return tuple(dict.fromkeys((*self.services, self.instance)))

    @property
    def pod_labels(self) -> tuple[str, ...]:
        """A pod's own labels that name its service, as kube-state-metrics writes them."""
        own = (*(label for label in self.services if label != POD_LABEL), "app_kubernetes_io_name")
        return tuple(POD_LABEL_PREFIX + label for label in dict.fromkeys(own))

    def _chosen(self, rows: Sequence[_Row]) -> list[_Row]:
        return [row for convention in self.conventions for row in rows if row.convention is convention]

    # Requests

    def _traffics(self, row: Requests, native: bool) -> Iterable[str]:
        yield self._total(row)
        if native and row.native and not row.counter:
            yield self._total_native(row)

    def _error_ratios(self, row: Requests, native: bool) -> Iterable[str]:
        failed = " or ".join(self._rate(row, row.count, matcher) for matcher in row.failed)
        yield _share(self._by_service(row, failed), self._total(row))
        if native and row.native and not row.counter:
            counts = " or ".join(
                f"histogram_count({self._rate(row, row.durations, matcher)})" for matcher in row.failed
            )
            yield _share(self._by_service(row, counts), self._total_native(row))

    def _latencies(self, row: Requests, native: bool) -> Iterable[str]:
        unit = "" if row.unit_s == 1.0 else f" * {row.unit_s:g}"
        buckets = self._by_service(row, self._rate(row, f"{row.durations}_bucket"), "le")
        # A quantile of nothing is NaN, and no value at all.
        yield f"(histogram_quantile(0.99, {buckets}) >= 0){unit}"
        if native and row.native:
            yield from (f"({quantile}){unit}" for quantile in self._native_quantiles(row))

    def _native_quantiles(self, row: Requests) -> Iterable[str]:
        """One query a label: label_replace() of Prometheus before 2.45 loses histograms, so quantiles are renamed, and
        they cannot be summed. Of a service that only its pods name it is the slowest pod's."""
        names = self._names(row)
        for place, label in enumerate(names):
            only = (*row.only, *(f'{earlier}=""' for earlier in names[:place]), f'{label}!=""')
            only += self._within(*row.namespace)
            rate = self._series(Selector(row.durations, only, "rate"))
            quantile = f"histogram_quantile(0.99, sum by ({label}) ({rate})) >= 0"
            yield f"max by ({SERVICE}) ({_renamed(quantile, (label,))})"

    def _total(self, row: Requests) -> str:
        return self._by_service(row, self._rate(row, row.count))

    def _total_native(self, row: Requests) -> str:
        return self._by_service(row, f"histogram_count({self._rate(row, row.durations)})")

    def _rate(self, row: Requests, metric: str, *matchers: str) -> str:
        return self._series(Selector(metric, (*matchers, *row.only, *self._named(row)), "rate"))

    def _by_service(self, row: Requests, vector: str, *kept: str) -> str:
        names = self._names(row)
        # Summed first by the labels as they are, so that there is little left to rename.
        return (
            f"sum by ({_list((*kept, SERVICE))}) ({_renamed(f'sum by ({_list((*kept, *names))}) ({vector})', names)})"
        )

    def _names(self, row: Requests) -> tuple[str, ...]:
        return row.service or self.services

    def _named(self, row: Requests) -> tuple[str, ...]:
        return (*_present(self._names(row)), *self._within(*row.namespace))

    # Gauges

    def _tagged(self, gauge: Gauge) -> str:
        labels = self.target_labels if gauge.subject is Subject.TARGET else SUBJECT_LABELS[gauge.subject]
        if gauge.subject is Subject.PROBE:
            labels = tuple(dict.fromkeys((*self.services, *labels)))
        needed = _present(self.services) if gauge.subject is Subject.TARGET else ()
        needed += self._within(*_NAMESPACE_OF[gauge.subject])
        platform = gauge.convention is Convention.KUBERNETES
        parts = {
            name: " or ".join(
                self._series(Selector(one.metric, (*one.only, *needed), one.read), platform=platform)
                for one in selectors
            )
            for name, selectors in gauge.selectors.items()
        }
        formula = gauge.formula.format(by=_list(labels), **parts)
        return f'label_replace({formula}, "{RANK}", "{GAUGES.index(gauge)}", "", "")'

    # Edges

    def _edges(self, row: Edges) -> str:
        rate = self._series(Selector(row.counter, (*row.only, *_present(row.caller), *_present(row.callee)), "rate"))
        summed = f"sum by ({_list((*row.caller, *row.callee))}) ({rate})"
        renamed = _renamed(_renamed(summed, row.callee, CALLEE_LABEL), row.caller, CALLER_LABEL)
        return f"(sum by ({CALLER_LABEL}, {CALLEE_LABEL}) ({renamed}) > 0)"

    def _within(self, *labels: str) -> tuple[str, ...]:
        """Matchers; a series that has no such label meets them."""
        wanted = "|".join((*self.namespaces, ""))
        return tuple(f'{label}=~"{wanted}"' for label in labels) if self.namespaces else ()

    def _series(self, selector: Selector, *, platform: bool = False) -> str:
        series = f"{selector.metric}{{{','.join(part for part in (*selector.only, self.matchers) if part)}}}"
        if selector.read == "rate":
            return f"rate({series}[{self.window}])"
        if selector.read == "any":
            return series
        # An instant query answers with values up to five minutes old under the time of the question.
        age_s = max(duration_s(self.window), PLATFORM_AGE_S if platform else 0.0)
        return f"({series} and timestamp({series}) >= time() - {age_s:g})"


def workload_of(pod: str) -> str:
    """The workload's name in a pod's name: ``checkout`` of ``checkout-6d5f8c9b7-x2k4z``."""
    found = re.fullmatch(WORKLOAD, pod)
    return found[1] if found else pod


_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """Seconds of a PromQL duration such as ``90s`` or ``1m30s``; ValueError when it is none."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration such as 90s, 1m or 1m30s")
    return sum(int(number) * _UNIT_S[unit] for number, unit in parts)


def _share(failed: str, total: str) -> str:
    # No series of failed answers yet is a ratio of 0, not an absent one.
    return f"({failed} or 0 * {total}) / ({total} > 0)"


def _renamed(vector: str, labels: Sequence[str], to: str = SERVICE) -> str:
    """``vector`` with the first of ``labels`` that a series has as ``to``: the last replacement that matches stands."""
    for label in reversed(labels):
        # A job of OpenTelemetry is namespace/name.
        pattern = {POD_LABEL: WORKLOAD, "job": "(?:.*/)?([^/]+)"}.get(label, "(.+)")
        vector = f'label_replace({vector}, "{to}", "$1", "{label}", "{pattern}")'
    return vector


def _present(labels: Sequence[str]) -> tuple[str, ...]:
    """One label can be asked for in the selector; of several, any may be the one."""
    return (f'{labels[0]}!=""',) if len(labels) == 1 else ()


def _either(queries: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(queries))


def _list(labels: Iterable[str]) -> str:
    return ", ".join(labels)
