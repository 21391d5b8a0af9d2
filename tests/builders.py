"""Values with sensible defaults for tests: name only what the test is about.

The story is a memory leak on ``checkout`` of three replicas, detected at ``T0``, with ``web`` as its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pipeline.domain.action import (
    Action,
    ActionKind,
    InstanceRef,
    ManualAction,
    RestartAction,
    ScaleAction,
    operations,
)
from pipeline.domain.anomaly import Anomaly, AnomalyKind, Bound
from pipeline.domain.approval import Approval
from pipeline.domain.capability import Declaration, Offer
from pipeline.domain.confidence import Confidence
from pipeline.domain.diagnosis import (
    Category,
    CheckedPath,
    CheckedStep,
    Citation,
    Claim,
    Diagnosis,
    Evidence,
    Passage,
)
from pipeline.domain.execution import Execution, Step, StepState
from pipeline.domain.guardrail import GuardrailResult, RuleAnswer, RuleName
from pipeline.domain.ids import EvidenceId, ExecutionId, IncidentId, PlanId, ServiceName, SlackUserId
from pipeline.domain.incident import Case, Incident, StoredAnomaly
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Alternative, Plan, Platform, TargetRef, plan_hash
from pipeline.domain.severity import Severity, SeverityFacts, SeverityResult, classify
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.domain.trace import StoredTraceEntry, TraceEntry, TraceKind
from pipeline.domain.verification import Verdict, Verification

T0 = datetime(2026, 11, 20, 14, 2, tzinfo=UTC)
INCIDENT = IncidentId(42)
PLAN = PlanId(7)
TOKEN = "7" * 32
CHECKOUT = ServiceName("checkout")
WEB = ServiceName("web")
ALICE = SlackUserId("U0ALICE")
BOB = SlackUserId("U0BOB")
MEMORY = SeriesKey(CHECKOUT, Signal.MEMORY_RATIO, "checkout-1")
LATENCY = SeriesKey(CHECKOUT, Signal.LATENCY_P99)
RULES: tuple[RuleName, ...] = (
    "kill_switch",
    "blast_radius",
    "scale_cap",
    "cooldown",
    "budget",
    "preconditions",
    "confidence",
    "causal_path",
)

BOTH = Declaration((Offer("restart", False, (), ""), Offer("scale", True, (), "")), (), ())
"""A platform that restarts one replica and scales."""


def after(seconds: float) -> datetime:
    """``seconds`` after the first anomaly began."""
    return T0 + timedelta(seconds=seconds)


def make_anomaly(key: SeriesKey = MEMORY, **changes: Any) -> Anomaly:
    """Memory at 93 % of the limit, or p99 at 1.9 s, by the signal of ``key``."""
    if key.signal is Signal.LATENCY_P99:
        values = (AnomalyKind.LATENCY, 1.9, 2.1, 0.24, 0.03, Bound(0.42))
    else:
        values = (AnomalyKind.MEMORY_PRESSURE, 0.93, 0.95, 0.48, 0.02, Bound(0.85))
    kind, value, peak, expected, sigma, bound = values
    made = Anomaly(kind, key, T0, after(70), value, peak, expected, sigma, bound)
    return replace(made, **changes)


def make_incident(state: IncidentState = IncidentState.AWAITING_DECISION, **changes: Any) -> Incident:
    made = Incident(
        id=INCIDENT,
        version=3,
        state=state,
        service=CHECKOUT,
        environment="demo",
        family="memory",
        severity=Severity.SEV2,
        title="memory use of checkout-1 at 93 %",
        opened_at=after(70),
        state_since=after(90),
        updated_at=after(95),
        closed_at=None,
        owner=None,
        muted_until=None,
        outcome="",
    )
    return replace(made, **changes)


def make_severity() -> SeverityResult:
    kinds = (AnomalyKind.MEMORY_PRESSURE, AnomalyKind.LATENCY)
    return classify(SeverityFacts(kinds, 1, 0.1, 3.0, 2, 4, 0.6))


def make_evidence(number: int = 1, **changes: Any) -> Evidence:
    made = Evidence(
        id=EvidenceId(f"E{number}"),
        kind="metric",
        statement=f"checkout-1 uses 93 % of its memory limit, growing 2.1 % a minute (fact {number})",
        query='process_resident_memory_bytes{service="checkout"}',
        window_from=after(-600),
        window_to=after(70),
        subject="checkout-1",
    )
    return replace(made, **changes)


def make_passage(**changes: Any) -> Passage:
    made = Passage(
        document="memory-local-process.md",
        heading="One replica grows",
        text="Memory that only grows on one replica is a leak. Restart that replica; the others keep serving.",
        score=0.74,
        method="vector",
    )
    return replace(made, **changes)


def make_diagnosis(**changes: Any) -> Diagnosis:
    made = Diagnosis(
        service=CHECKOUT,
        category=Category.MEMORY,
        root_cause="checkout-1 leaks memory and reaches its limit in about 3 minutes",
        suspect_instances=("checkout-1",),
        claims=(
            make_claim("checkout-1 leaks memory and reaches its limit in about 3 minutes", "E1", "E2"),
            make_claim("The other replicas are steady, so it is not the load", "E3"),
        ),
        confidence=Confidence(author=0.9, reviewer=0.8, retrieval=0.74, evidence=0.6),
        source="rules",
        path=make_path(),
    )
    return replace(made, **changes)


def make_claim(text: str, *cited: str) -> Claim:
    """Each citation quotes the beginning of what ``make_evidence`` states."""
    return Claim(text=text, evidence=tuple(Citation(id=name, quote="checkout-1 uses 93 %") for name in cited))


def make_path(problem: str = "") -> CheckedPath:
    """Growth, then the breach; ``problem`` is what is wrong with the second step."""
    grows = CheckedStep("memory of checkout-1 grows by 2.1 % a minute", CHECKOUT, ("E1",))
    breach = CheckedStep("it crossed 85 % of its limit", CHECKOUT, ("E2",), problem, "" if problem else "300 s later")
    return CheckedPath((grows, breach), "")


def make_target(**changes: Any) -> TargetRef:
    values = {"platform": "kubernetes", "namespace": "shop", "name": "checkout", "uid": "uid-checkout", **changes}
    return TargetRef(**values)


def restart(*names: str) -> RestartAction:
    return RestartAction(instances=tuple(InstanceRef(name=name, uid=f"uid-{name}") for name in names))


def scale(from_replicas: int = 2, to_replicas: int = 4) -> ScaleAction:
    return ScaleAction(from_replicas=from_replicas, to_replicas=to_replicas)


def manual() -> ManualAction:
    return ManualAction(
        command="git -C config revert --no-edit 3f9a1c2",
        why_manual="a revert needs somebody who knows the change",
    )


def make_plan(
    action: Action | None = None,
    state: PlanState = PlanState.PROPOSED,
    **changes: Any,
) -> Plan:
    chosen = action or restart("checkout-1")
    target = None if isinstance(chosen, ManualAction) else make_target()
    made = Plan(
        id=PLAN,
        incident_id=INCIDENT,
        revision=1,
        action=chosen,
        target=target,
        generation="12",
        replicas_before=3,
        hash=plan_hash(INCIDENT, 1, chosen, target, "12"),
        state=state,
        approvals_needed=1,
        expected_effect="memory use of checkout-1 back to about 48 % within 2 min",
        created_at=after(90),
        expires_at=after(90 + 1800),
        token=TOKEN,
    )
    return replace(made, **changes)


def make_ways() -> tuple[Alternative, ...]:
    """What was weighed against a revert: another platform, a kind that is the same on both, and a person's way."""

    def way(kind: ActionKind | Literal["manual"], what: str, platform: Platform | None, **changes: Any) -> Alternative:
        values = {"effect": "errors fall back to their baseline", "risk": "medium", "reversible": True, **changes}
        return Alternative(kind=kind, what=what, platform=platform, **values)

    return (
        way("roll_back", "Roll back from revision 8 to 7", "kubernetes", risk="high", reversible=False),
        way("roll_back", "Roll back from revision 3f9a1c2 to 1b2c3d4", "argocd"),
        way("manual", "kubectl rollout undo deployment/checkout -n shop", None),
    )


def make_guardrails(*refused: tuple[RuleName, str]) -> GuardrailResult:
    """Every rule says yes, but for those named in ``refused`` with their reason."""
    reasons = dict(refused)
    return GuardrailResult(
        tuple(RuleAnswer(rule, rule not in reasons, reasons.get(rule, "1 of 3 replicas, limit 50 %")) for rule in RULES)
    )


def make_approval(
    user: SlackUserId = ALICE, decision: Literal["approve", "reject"] = "approve", **changes: Any
) -> Approval:
    made = Approval(
        PLAN, make_plan().hash, user, decision, "" if decision == "approve" else "deploy running", after(300)
    )
    return replace(made, **changes)


def make_execution(
    state: ExecutionState = ExecutionState.APPLIED,
    kind: Literal["apply", "rollback"] = "apply",
    **changes: Any,
) -> Execution:
    steps = tuple(
        Step(number, operation, StepState.APPLIED, after(305), after(312), "replaced")
        for number, operation in enumerate(operations(restart("checkout-1")), start=1)
    )
    made = Execution(
        id=ExecutionId(9),
        plan_id=PLAN,
        incident_id=INCIDENT,
        kind=kind,
        state=state,
        fence=1,
        target=make_target(),
        steps=steps,
        started_at=after(304),
        waiting_since=None,
        applied_at=after(312),
        detail="",
    )
    return replace(made, **changes)


def make_verification(verdict: Verdict = Verdict.RECOVERED, **changes: Any) -> Verification:
    made = Verification(
        verdict=verdict,
        key=MEMORY,
        before=0.93,
        after=0.46,
        expected=0.48,
        bound=Bound(0.85),
        unit=MEMORY.unit,
        samples=12,
        reason="12 samples inside the bound for 120 s",
        at=after(494),
        took_s=182.0,
    )
    return replace(made, **changes)


def make_case(state: IncidentState = IncidentState.AWAITING_DECISION, **changes: Any) -> Case:
    """A diagnosed incident with a plan that waits for a decision, in phase Assist, unless ``changes`` say otherwise."""
    made = Case(
        incident=make_incident(state),
        anomalies=(StoredAnomaly(make_anomaly(), None), StoredAnomaly(make_anomaly(LATENCY), None)),
        severity=make_severity(),
        callers=(WEB,),
        evidence=(make_evidence(1), make_evidence(2), make_evidence(3)),
        passages=(make_passage(),),
        diagnosis=make_diagnosis(),
        plan=make_plan(),
        guardrails=make_guardrails(),
        approvals=(),
        execution=None,
        rollback=None,
        verification=None,
        phase=Phase.ASSIST,
        service_owner="team-shop",
        by_hand="kubectl --namespace shop delete pod checkout-1",
        generated_baseline=False,
        tried=(),
        read_at=after(96),
    )
    return replace(made, **changes)


def states_of_a_case() -> dict[str, Case]:
    """A case in each state that a card has a face for, by a short name."""
    approved = {"plan": make_plan(state=PlanState.APPROVED), "approvals": (make_approval(),)}
    escalated = make_case(IncidentState.ESCALATED)
    ran = {**approved, "execution": make_execution()}
    not_helped = make_verification(Verdict.NOT_RECOVERED, after=0.94, reason="still beyond the bound 600 s after")
    rollback = make_execution(kind="rollback", id=ExecutionId(10))
    rejected = {"plan": make_plan(state=PlanState.REJECTED), "approvals": (make_approval(decision="reject"),)}
    blocked = {
        "plan": make_plan(state=PlanState.BLOCKED),
        "guardrails": make_guardrails(("cooldown", "last action on it 4 min ago, 15 min are needed")),
    }
    resolved = make_incident(IncidentState.RESOLVED, closed_at=after(494), updated_at=after(494))
    two = make_plan(approvals_needed=2)
    return {
        "diagnosing": make_case(IncidentState.DIAGNOSING, diagnosis=None, plan=None, guardrails=GuardrailResult()),
        "awaiting": make_case(),
        "awaiting-scale": make_case(plan=make_plan(scale())),
        "awaiting-ways": make_case(
            plan=make_plan(risk="medium", alternatives=make_ways(), requested_by=BOB),
            tried=("Scale from 2 to 4 replicas — did not help, rolled back",),
        ),
        "one-of-two": make_case(plan=two, approvals=(make_approval(),)),
        "running": make_case(IncidentState.MITIGATING, **approved, execution=make_execution(ExecutionState.DISPATCHED)),
        "rolling-back": make_case(IncidentState.MITIGATING, **ran, rollback=rollback),
        "waiting-for-lock": make_case(
            IncidentState.MITIGATING,
            **approved,
            execution=make_execution(
                ExecutionState.READY, waiting_since=after(306), detail="finops-agent holds the lock", steps=()
            ),
        ),
        "unanswered": make_case(IncidentState.MITIGATING, **approved, execution=make_execution(ExecutionState.UNKNOWN)),
        "verifying": make_case(IncidentState.VERIFYING, **ran),
        "recovered": make_case(**ran, incident=resolved, verification=make_verification(), read_at=after(495)),
        "not-recovered": replace(escalated, **ran, verification=not_helped),
        "rolled-back": replace(escalated, **ran, verification=not_helped, rollback=rollback),
        "cannot-tell": replace(
            escalated,
            **ran,
            verification=make_verification(
                Verdict.INCONCLUSIVE, after=None, reason="no fresh samples since the action"
            ),
        ),
        "needs-human": replace(escalated, **approved, execution=make_execution(ExecutionState.NEEDS_HUMAN)),
        "failed": replace(
            escalated, **approved, execution=make_execution(ExecutionState.FAILED, steps=(), detail="403 Forbidden")
        ),
        "rejected": replace(escalated, **rejected),
        "expired": replace(escalated, plan=make_plan(state=PlanState.EXPIRED)),
        "blocked": replace(escalated, **blocked),
        "manual": replace(escalated, plan=make_plan(manual(), PlanState.BLOCKED), guardrails=GuardrailResult()),
        "unsure": replace(
            escalated,
            plan=make_plan(state=PlanState.BLOCKED),
            guardrails=make_guardrails(("confidence", "0.43, and 0.70 is needed")),
            diagnosis=make_diagnosis(confidence=Confidence(0.5, 0.5, 0.3, 0.4)),
        ),
        "no-plan": make_case(
            plan=None, incident=make_incident(IncidentState.ESCALATED, outcome="escalated by <@U0ALICE>")
        ),
        "self-recovered": make_case(
            incident=make_incident(IncidentState.SELF_RECOVERED, outcome="back inside its bounds by itself")
        ),
        "closed": make_case(
            incident=make_incident(IncidentState.CLOSED, outcome="closed by <@U0ALICE>: not an incident")
        ),
        "shadow": replace(
            escalated, plan=make_plan(state=PlanState.BLOCKED), phase=Phase.SHADOW, generated_baseline=True
        ),
    }


def make_trace(*entries: tuple[TraceKind, str]) -> list[StoredTraceEntry]:
    """Stored entries ten seconds apart."""
    return [
        StoredTraceEntry(seq, after(70 + 10 * seq), TraceEntry(kind, summary, {}))
        for seq, (kind, summary) in enumerate(entries, start=1)
    ]


def make_samples(key: SeriesKey, values: Sequence[float], *, start: datetime, step_s: float = 10.0) -> list[Sample]:
    """Samples of one series, evenly apart."""
    return [Sample(key, start + timedelta(seconds=step_s * at), value) for at, value in enumerate(values)]
