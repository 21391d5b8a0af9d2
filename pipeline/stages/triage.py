"""Severity from measured facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.ids import ServiceName
from pipeline.domain.severity import SeverityFacts, SeverityResult, classify
from pipeline.domain.telemetry import Sample, SeriesKey, Signal, newest_value
from pipeline.domain.topology import DependencyGraph


def triage(
    service: ServiceName,
    anomalies: Sequence[Anomaly],
    window: Mapping[SeriesKey, Sequence[Sample]],
    bank: BaselineBank,
    catalogue: Catalogue,
    graph: DependencyGraph,
) -> SeverityResult:
    """Classifies an incident at ``service`` from its anomalies, the newest samples, the catalogue and the graph."""
    entry = catalogue[service]
    callers = graph.callers(service)
    seen = {key.service for key in window} | {name for edge in graph.edges for name in edge} | {service}
    error = newest_value(window, SeriesKey(service, Signal.ERROR_RATIO)) or 0.0
    latency_key = SeriesKey(service, Signal.LATENCY_P99)
    latency = newest_value(window, latency_key)
    ratio = 1.0
    if latency is not None:
        expected = bank.expect(latency_key, window[latency_key][-1].at)
        ratio = latency / expected.mean if expected.known and expected.mean > 0 else 1.0
    return classify(
        SeverityFacts(
            kinds=tuple(sorted({anomaly.kind for anomaly in anomalies})),
            tier=entry.tier,
            error_ratio=error,
            latency_ratio=ratio,
            affected_services=len(callers) + 1,
            known_services=len(catalogue.known(seen)),
            financial=entry.financial,
            certificate_over=any(one.kind is AnomalyKind.CERTIFICATE_EXPIRY and one.value <= 0 for one in anomalies),
        )
    )
