"""What the rules engine reads with the tools when the dossier does not settle the matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.adapters.llm.evidence_index import EvidenceIndex
from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.diagnosis import Hypothesis, Sign
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal
from pipeline.domain.trace import JsonValue

MOST_CALLS = 8
_HISTORY = {
    AnomalyKind.MEMORY_PRESSURE: Signal.MEMORY_RATIO,
    AnomalyKind.DISK_EXHAUSTION: Signal.DISK_RATIO,
    AnomalyKind.CERTIFICATE_EXPIRY: Signal.CERT_REMAINING,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    tool: str
    arguments: Mapping[str, JsonValue]


def wanted(index: EvidenceIndex, hypothesis: Hypothesis) -> list[Call]:
    """The calls worth making, the most telling first: history of what stands at its limit, then who did what to the
    service, then the services below that are in trouble."""
    service = index.service
    calls = [
        _metrics(service, signal, 360)
        for kind, signal in _HISTORY.items()
        if index.own(kind) and not index.rising(signal)
    ]
    if index.own(AnomalyKind.MEMORY_PRESSURE, AnomalyKind.ERROR_SURGE, AnomalyKind.DEPLOYMENT_REGRESSION):
        calls.append(Call("kubernetes_events", {"service": service, "minutes": 60}))
    symptoms = index.own(
        AnomalyKind.LATENCY, AnomalyKind.ERROR_SURGE, AnomalyKind.DEPLOYMENT_REGRESSION, AnomalyKind.MULTI_DIMENSIONAL
    )
    if symptoms and not hypothesis.path:
        if not index.any_of(service, Signal.CPU_RATIO):
            calls.append(_metrics(service, Signal.CPU_RATIO, 60))
        calls.append(Call("search_logs", {"service": service, "text": "error", "minutes": 30}))
        if not index.kind("trace"):
            calls.append(Call("traces", {"service": service, "minutes": 15, "errors_only": False}))
        if not index.kind("change", service):
            calls.append(Call("recent_changes", {"service": service, "minutes": 180}))
    for callee in _troubled(index):
        if not index.kind("change", callee):
            calls.append(Call("recent_changes", {"service": callee, "minutes": 180}))
        calls += [
            _metrics(callee, signal, 60)
            for signal in (Signal.MEMORY_RATIO, Signal.CPU_RATIO, Signal.TRAFFIC)
            if not index.any_of(callee, signal)
        ]
        calls.append(Call("log_patterns", {"service": callee, "minutes": 60}))
    return calls[:MOST_CALLS]


def _troubled(index: EvidenceIndex) -> list[ServiceName]:
    """Services below with something out of the ordinary; one is enough to read about."""
    callees = sorted(index.graph.callees(index.service))
    return [one for one in callees if index.measured(one, tuple(Signal), (Sign.ABNORMAL,))][:1]


def _metrics(service: str, signal: Signal, minutes: int) -> Call:
    return Call("query_metrics", {"service": service, "signal": signal.value, "minutes": minutes})
