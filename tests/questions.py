"""Questions to a diagnostician, worded as the investigation words them: ``checkout``, which calls ``payments``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.domain.anomaly import Anomaly, AnomalyKind, Bound
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Evidence, EvidenceKind, Passage, Sign
from pipeline.domain.facts import Facts
from pipeline.domain.ids import EvidenceId, ServiceName
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.domain.trace import JsonValue
from pipeline.ports.model import Question
from pipeline.ports.toolbox import Toolbox
from tests.builders import CHECKOUT, LATENCY, WEB, after, make_anomaly
from tests.toolboxes import no_tools

PAYMENTS = ServiceName("payments")
ERRORS = SeriesKey(CHECKOUT, Signal.ERROR_RATIO)
DISK = SeriesKey(CHECKOUT, Signal.DISK_RATIO, "checkout-1")
CERTIFICATE = SeriesKey(CHECKOUT, Signal.CERT_REMAINING, "checkout-1")
NORMAL = {"checkout-1": 0.45, "checkout-2": 0.46}
LEAKING = {"checkout-1": 0.93, "checkout-2": 0.46}


@dataclass(frozen=True, slots=True)
class Row:
    """A fact before it has an id; ``began_s`` counts from the first anomaly."""

    kind: EvidenceKind
    statement: str
    subject: str
    sign: Sign = Sign.STATED
    signal: Signal | None = None
    began_s: float | None = None
    value: float | None = None
    query: str = ""
    snapshot: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def service(self) -> ServiceName:
        return PAYMENTS if self.subject.startswith("payments") else WEB if self.subject == "web" else CHECKOUT


TRAFFIC_USUAL = Row(
    "metric", "traffic of checkout is 12 /s (baseline 12 /s, 1.0× of it)", "checkout", Sign.NORMAL, Signal.TRAFFIC
)
TRAFFIC_SURGE = Row(
    "metric",
    "traffic of checkout is 30 /s (baseline 12 /s, 2.5× of it)",
    "checkout",
    Sign.ABNORMAL,
    Signal.TRAFFIC,
    -20,
)
MEMORY_HIGH = Row(
    "anomaly",
    "memory use of checkout-1 is 93 %, above its bound of 85 % since 14:02:00 UTC",
    "checkout-1",
    Sign.ABNORMAL,
    Signal.MEMORY_RATIO,
    0,
    0.93,
)
MEMORY_OTHER = Row(
    "metric",
    "memory use of checkout-2 is 46 % (baseline 45 %, 1.0× of it)",
    "checkout-2",
    Sign.NORMAL,
    Signal.MEMORY_RATIO,
    value=0.46,
)
MEMORY_GROWS = Row(
    "metric",
    "memory use of checkout-1 grew by 2.1 % of its limit a minute",
    "checkout-1",
    Sign.ABNORMAL,
    Signal.MEMORY_RATIO,
    -600,
    0.93,
    query='deriv(memory_ratio{service="checkout", instance="checkout-1"})',
)
LATENCY_HIGH = Row(
    "anomaly",
    "p99 latency of checkout is 1.9 s, above its bound of 420 ms",
    "checkout",
    Sign.ABNORMAL,
    Signal.LATENCY_P99,
    0,
)
ERRORS_HIGH = Row(
    "anomaly",
    "error ratio of checkout is 31 %, above its bound of 5 %",
    "checkout",
    Sign.ABNORMAL,
    Signal.ERROR_RATIO,
    0,
)
BELOW_FINE = Row(
    "metric",
    "p99 latency of payments is 35 ms (baseline 34 ms, 1.0× of it)",
    "payments",
    Sign.NORMAL,
    Signal.LATENCY_P99,
)
BELOW_SLOW = Row(
    "metric",
    "p99 latency of payments is 2.4 s (baseline 34 ms, 70.6× of it)",
    "payments",
    Sign.ABNORMAL,
    Signal.LATENCY_P99,
    -15,
)
GRAPH = Row(
    "topology",
    "checkout is called by web and calls payments",
    "checkout",
    snapshot={"edges": [["web", "checkout"], ["checkout", "payments"]]},
)
TARGET = Row("target", "demo/checkout wants 2 replicas, 2 ready, generation 7", "checkout")
RUNBOOK = Passage(
    "memory-leak-local-process.md", "Memory leak › Remediation", "1. Restart the leaking replicas.", 0.62, "vector"
)


def make_question(
    anomalies: Sequence[Anomaly],
    facts: Facts,
    *rows: Row,
    passages: Sequence[Passage] = (RUNBOOK,),
    tools: Toolbox | None = None,
) -> Question:
    """``rows`` become E1, E2, … in their order."""
    evidence = tuple(make_row(number, row) for number, row in enumerate(rows, start=1))
    return Question(CHECKOUT, tuple(anomalies), evidence, tuple(passages), facts, tools or no_tools())


def make_row(number: int, row: Row) -> Evidence:
    return replace(
        make_fact(number, row.kind, row.statement, row.subject),
        query=row.query or f"read {row.subject}",
        service=row.service,
        sign=row.sign,
        signal=row.signal,
        began=None if row.began_s is None else after(row.began_s),
        value=row.value,
        snapshot=row.snapshot,
    )


def make_fact(number: int, kind: Any, statement: str, subject: str) -> Evidence:
    """Context about ``subject``."""
    return Evidence(EvidenceId(f"E{number}"), kind, statement, f"read {subject}", after(-600), after(70), subject)


def change_row(change: ChangeEvent) -> Row:
    """As the investigation words it."""
    began_s = (change.at - after(0)).total_seconds()
    snapshot: dict[str, JsonValue] = {"kind": change.kind.value, "revision": change.revision}
    said = f"{change.service}: {change.describe()}"
    return Row("change", said, change.service, Sign.HAPPENED, began_s=began_s, snapshot=snapshot)


def anomaly(kind: AnomalyKind) -> Anomaly:
    """One of ``checkout`` itself."""
    match kind:
        case AnomalyKind.MEMORY_PRESSURE:
            return make_anomaly()
        case AnomalyKind.LATENCY:
            return make_anomaly(LATENCY)
        case AnomalyKind.ERROR_SURGE:
            return make_anomaly(ERRORS, kind=kind, value=0.31, peak=0.34, expected=0.002, bound=Bound(0.05))
        case AnomalyKind.DISK_EXHAUSTION:
            return make_anomaly(DISK, kind=kind, value=0.97, bound=Bound(0.9))
        case AnomalyKind.CERTIFICATE_EXPIRY:
            bound = Bound(7 * 86_400.0, breach_above=False)
            return make_anomaly(CERTIFICATE, kind=kind, value=2 * 86_400.0, bound=bound)
        case AnomalyKind.TRAFFIC:
            key = SeriesKey(CHECKOUT, Signal.TRAFFIC)
            return make_anomaly(key, kind=kind, value=30.0, peak=31.0, expected=12.0, sigma=1.0, bound=Bound(20.0))
        case AnomalyKind.DEPLOYMENT_REGRESSION | AnomalyKind.MULTI_DIMENSIONAL:
            return make_anomaly(LATENCY, kind=kind)


def memory_leak() -> Question:
    """Every fact speaks for a leak in ``checkout-1``."""
    return make_question(
        [anomaly(AnomalyKind.MEMORY_PRESSURE)],
        Facts(traffic_ratio=1.0, memory_ratio_by_instance=LEAKING, memory_slope_per_min=0.021, replicas=2),
        *(MEMORY_HIGH, MEMORY_OTHER, MEMORY_GROWS, TRAFFIC_USUAL, BELOW_FINE, GRAPH, TARGET),
    )


def saturation() -> Question:
    """Two and a half times the traffic, and nothing slow below."""
    return make_question(
        [anomaly(AnomalyKind.LATENCY)],
        Facts(traffic_ratio=2.5, latency_ratio=8.0, memory_ratio_by_instance=NORMAL, replicas=2),
        *(LATENCY_HIGH, TRAFFIC_SURGE, BELOW_FINE, GRAPH, TARGET),
    )
