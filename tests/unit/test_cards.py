"""The card in every state: what it says, what it offers, and that Slack takes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack import names
from bot.slack.blocks import interactive_elements, validate_message, validate_view
from bot.slack.cards import minimal_card, render_card
from bot.slack.kit import Message
from bot.slack.modals import other_ways_modal
from bot.slack.standing import incident_word
from pipeline.domain.diagnosis import Alternative, Category, CheckedPath, CheckedStep, Opinion
from pipeline.domain.ids import PlanId, ServiceName
from pipeline.domain.incident import Case, StoredAnomaly
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Alternative as Way
from pipeline.domain.telemetry import SeriesKey, Signal
from tests.builders import (
    TOKEN,
    after,
    make_anomaly,
    make_approval,
    make_case,
    make_claim,
    make_diagnosis,
    make_guardrails,
    make_incident,
    make_plan,
    make_ways,
    manual,
    scale,
    states_of_a_case,
)

CASES = states_of_a_case()
DECIDING = {"awaiting", "awaiting-scale", "awaiting-ways", "one-of-two"}
CHART = "F0CHART001"


def card(case: Case, chart: str | None = CHART) -> Message:
    return render_card(case, chart_file_id=chart)


def words(message: Message) -> str:
    """Everything a person reads."""
    return json.dumps([message.text, message.blocks], ensure_ascii=False)


def buttons(message: Message) -> dict[str, dict[str, Any]]:
    return {element["action_id"]: element for block in message.blocks for _, element in interactive_elements(block)}


@pytest.mark.parametrize("name", CASES)
def test_slack_takes_the_card(name: str) -> None:
    for chart in (CHART, None):
        message = card(CASES[name], chart)
        assert validate_message(message.text, message.blocks) == []
    small = minimal_card(CASES[name])
    assert validate_message(small.text, small.blocks) == []


@pytest.mark.parametrize("name", CASES)
def test_only_an_open_question_has_decision_buttons(name: str) -> None:
    shown = set(buttons(card(CASES[name])))
    assert ({names.APPROVE, names.REJECT} <= shown) == (name in DECIDING)
    assert (names.APPROVE in shown) == (names.REJECT in shown)


@pytest.mark.parametrize(
    ("name", "header", "said"),
    [
        ("diagnosing", "Diagnosing", "runbooks"),
        ("awaiting", "Awaiting decision", "1 of 3 replicas replaced"),
        ("awaiting-scale", "Awaiting decision", "2 → 4 replicas"),
        ("awaiting-ways", "Awaiting decision", "medium risk · cannot be undone"),
        ("one-of-two", "1 of 2 approvals", "1 more needed"),
        ("running", "Approved · running", "✅ approved by <@U0ALICE>"),
        ("waiting-for-lock", "Approved · running", "finops-agent holds the lock"),
        ("verifying", "Verifying", "waiting for fresh samples"),
        ("recovered", "Recovered", "✅ recovered in 3 min 10 s: *memory use of checkout-1 93 % → 46 %*"),
        ("not-recovered", "Not recovered · needs a person", "❌ not recovered"),
        ("rolled-back", "Not recovered · rolled back", "❌ not recovered, rolled back"),
        ("cannot-tell", "Cannot tell", "no fresh samples since the action"),
        ("needs-human", "Outcome unknown", "not known whether the action took effect"),
        ("failed", "Action failed", "403 Forbidden · nothing was changed"),
        ("rejected", "Rejected", "deploy running"),
        ("expired", "Expired", "nothing was changed"),
        ("blocked", "Blocked by guardrail", "last action on it 4 min ago"),
        ("manual", "To do by hand", "git -C config revert"),
        ("unsure", "Not sure enough", "below 0.70"),
        ("no-plan", "Escalated", "escalated by <@U0ALICE>"),
        ("self-recovered", "Recovered by itself", "back inside its bounds"),
        ("closed", "Closed", "closed by <@U0ALICE>"),
        ("shadow", "Shadow", "Would have proposed"),
    ],
)
def test_each_state_is_said(name: str, header: str, said: str) -> None:
    message = card(CASES[name])
    title = message.blocks[0]["text"]["text"]
    assert title.startswith(tuple("🔎🔴🟡🟠✅❌❔🚫⌛⛔🚨⚪👀"))
    assert header in title
    assert header in message.text
    assert said in words(message)


def test_what_came_back_after_an_action_of_ours_did_not_do_so_by_itself() -> None:
    over = make_incident(IncidentState.SELF_RECOVERED, outcome="back inside its bounds for 300 s")
    message = card(replace(CASES["cannot-tell"], incident=over))
    assert "Back to normal" in message.text
    assert "Recovered by itself" not in words(message)
    assert "✅ approved by <@U0ALICE>" in words(message)
    assert "back inside its bounds for 300 s" in words(message)
    untouched = card(replace(CASES["failed"], incident=over))
    assert "Recovered by itself" in untouched.text


@pytest.mark.parametrize("ended", ["rejected", "expired", "blocked"])
def test_what_became_of_a_second_plan_is_said_of_it_and_not_of_the_first(ended: str) -> None:
    first, second = CASES["rolled-back"], CASES[ended]
    assert second.plan is not None
    case = replace(
        second,
        plan=replace(second.plan, id=PlanId(8), revision=2),
        execution=first.execution,
        rollback=first.rollback,
        verification=first.verification,
        tried=("Scale from 2 to 4 replicas — did not help, rolled back",),
    )
    assert card(case).blocks[0] == card(second).blocks[0] | {"block_id": card(case).blocks[0]["block_id"]}
    assert "Tried before: Scale from 2 to 4 replicas" in words(card(case))
    by_hand = replace(case, plan=make_plan(manual(), PlanState.BLOCKED, id=PlanId(8)))
    assert "Not recovered · rolled back" in card(by_hand).text
    assert "✅ approved" not in words(card(by_hand)), "it was the first that somebody approved"


@pytest.mark.parametrize(
    ("outcome", "word"),
    [("rejected by <@U0BOB>: deploy running", "✋ Rejected"), ("escalated by <@U0BOB>", "🚨 Needs a person")],
)
def test_lists_tell_a_rejection_from_what_needs_a_person(outcome: str, word: str) -> None:
    assert incident_word(make_incident(IncidentState.ESCALATED, outcome=outcome)) == word


def test_blocked_and_expired_give_the_command_and_a_rejection_does_not() -> None:
    command = "kubectl --namespace shop delete pod checkout-1"
    assert command in words(card(CASES["blocked"]))
    assert command in words(card(CASES["expired"]))
    assert command not in words(card(CASES["rejected"]))
    assert "To do it by hand" not in words(card(replace(CASES["blocked"], by_hand="")))


def test_shadow_and_running_have_no_buttons_at_all() -> None:
    for name in ("shadow", "running", "verifying", "recovered", "closed", "self-recovered"):
        assert buttons(card(CASES[name])) == {}


def test_buttons_carry_ids_only() -> None:
    shown = buttons(card(CASES["awaiting"]))
    assert shown[names.APPROVE]["value"] == TOKEN
    assert shown[names.REJECT]["value"] == TOKEN
    assert shown[names.EVIDENCE]["value"] == "42"
    assert [option["value"] for option in shown[names.MORE]["options"]] == [
        "mute:42",
        "not_an_incident:42",
        "take_ownership:42",
        "escalate:42",
        "close:42",
    ]


def test_approve_says_what_will_happen_before_it_does() -> None:
    shown = buttons(card(make_case(plan=make_plan(scale(), approvals_needed=2), approvals=(make_approval(),))))
    asked = shown[names.APPROVE]["confirm"]
    assert "Scale from 2 to 4 replicas" in asked["text"]["text"]
    assert "can be undone" in asked["text"]["text"]
    assert "Approval 2 of 2" in asked["text"]["text"]


def test_other_ways_are_told_with_what_they_may_cost() -> None:
    message = card(CASES["awaiting-ways"])
    told = [line for block in message.blocks for line in block.get("text", {}).get("text", "").split("\n")]
    effect = "errors fall back to their baseline"
    assert [line for line in told if line.startswith("Or")] == [
        f"Or: *Roll back from revision 8 to 7* · high risk · cannot be undone · {effect}",
        f"Or: *Roll back from revision 3f9a1c2 to 1b2c3d4 on argocd* · medium risk · can be undone · {effect}",
        "Or by hand: `kubectl rollout undo deployment/checkout -n shop`",
    ]
    assert "🔁 Tried before: Scale from 2 to 4 replicas — did not help, rolled back" in told
    assert "asked for by <@U0BOB>, who may not approve it" in words(message)
    assert buttons(message)[names.OTHER_WAYS]["value"] == TOKEN


def test_no_more_than_three_ways_and_a_persons_one_among_them() -> None:
    first, other, manual_way = make_ways()
    case = make_case(plan=make_plan(alternatives=(first, other, first, manual_way)))
    shown = words(card(case))
    assert shown.count("Or: *") == 2
    assert shown.count("Or by hand:") == 1


@pytest.mark.parametrize(
    ("name", "ours", "by_hand"),
    [
        ("awaiting", True, True),
        ("rejected", True, True),
        ("shadow", True, True),
        ("blocked", True, False),  # it gives the plan's own command already
        ("expired", True, False),
        ("unsure", False, False),
        ("running", False, False),
        ("recovered", False, False),
        ("rolled-back", False, False),
        ("closed", False, False),
        ("self-recovered", False, False),
    ],
)
def test_where_other_ways_are_told_and_where_they_can_be_taken(name: str, ours: bool, by_hand: bool) -> None:
    case = CASES[name]
    assert case.plan is not None
    message = card(replace(case, plan=replace(case.plan, alternatives=make_ways())))
    assert ("Or: *" in words(message), "Or by hand" in words(message)) == (ours, by_hand)
    assert (names.OTHER_WAYS in buttons(message)) == (name in DECIDING)


def test_what_only_a_person_could_do_cannot_be_chosen() -> None:
    *_, by_hand = make_ways()
    message = card(make_case(plan=make_plan(alternatives=(by_hand,))))
    assert "Or by hand" in words(message)
    assert names.OTHER_WAYS not in buttons(message)


def test_the_window_of_other_ways_is_taken_by_slack_and_names_them_by_their_place() -> None:
    long = replace_what("x" * 400, "y " * 150)
    plan = make_plan(alternatives=(long, *make_ways()), risk="low")
    view = other_ways_modal(plan, "C0INCIDENTS")
    assert validate_view(view) == []
    assert view["private_metadata"] == f"{TOKEN} C0INCIDENTS"
    options = view["blocks"][1]["element"]["options"]
    assert [option["value"] for option in options] == ["0", "1", "2"]
    assert options[1]["text"]["text"] == "Roll back from revision 8 to 7"
    assert options[1]["description"]["text"].startswith("high risk · cannot be undone · errors fall")
    assert "low risk · cannot be undone" in view["blocks"][0]["text"]["text"]


def replace_what(what: str, effect: str) -> Way:
    return make_ways()[0].model_copy(update={"what": what, "effect": effect})


def test_a_redrawn_card_has_new_block_ids() -> None:
    first, again = card(make_case()), card(make_case(read_at=after(97)))
    assert not {b["block_id"] for b in first.blocks} & {b["block_id"] for b in again.blocks}


def test_source_and_generated_history_are_named() -> None:
    assert "rule engine" in words(card(make_case()))
    shown = words(card(make_case(diagnosis=make_diagnosis(source="claude-sonnet-5-5"), generated_baseline=True)))
    assert "claude-sonnet-5-5" in shown
    assert "baseline includes generated demo history" in shown


def test_a_refusing_guardrail_gives_its_reason_on_an_open_card() -> None:
    shown = words(card(make_case(guardrails=make_guardrails(("budget", "2 actions in this hour")))))
    assert "⛔ budget (2 actions in this hour)" in shown
    assert "✅ cooldown" in shown


def test_mute_and_owner_are_shown() -> None:
    shown = words(card(make_case(incident=make_incident(muted_until=after(3600), owner="U0BOB"))))
    assert "muted until" in shown
    assert "<@U0BOB>" in shown


def test_a_manual_plan_in_shadow_is_still_to_be_done_by_hand() -> None:
    shown = card(make_case(plan=make_plan(manual()), phase=Phase.SHADOW))
    assert "To do by hand" in shown.text


ALLOWED = re.compile(r"<@[UW][A-Z0-9]+>|<!date\^\d+\^[^<>|]*\|[^<>]*>")


@given(
    outside=st.sampled_from(["<!channel>", "<!here>", "<https://evil.example|ok>", "<#C1>"]), pad=st.text(max_size=9)
)
def test_outside_text_never_becomes_markup(outside: str, pad: str) -> None:
    nasty = pad + outside + pad
    nasty_ways = tuple(one.model_copy(update={"what": nasty, "effect": nasty}) for one in make_ways())
    for name in ("awaiting", "blocked", "rejected", "failed", "cannot-tell", "manual", "closed", "shadow"):
        case = CASES[name]
        key = SeriesKey(ServiceName(nasty), Signal.MEMORY_RATIO, nasty)
        poisoned = replace(
            case,
            incident=replace(case.incident, service=ServiceName(nasty), title=nasty, environment=nasty, outcome=nasty),
            anomalies=(StoredAnomaly(make_anomaly(key), None),),
            callers=(ServiceName(nasty),),
            service_owner=nasty,
            diagnosis=make_diagnosis(
                root_cause=nasty,
                source=nasty,
                notes=(nasty,),
                claims=(make_claim(nasty, nasty[:20]),),
                path=CheckedPath(
                    (CheckedStep(nasty, nasty, (nasty,), "", nasty), CheckedStep(nasty, nasty, (), nasty))
                ),
                alternatives=(Alternative(category=Category.UNKNOWN, root_cause=nasty, why_not=nasty),),
                missing=(nasty,),
                opinions=(Opinion(nasty, 0.1, (nasty,)),),
                cached_from=nasty,
            ),
            guardrails=make_guardrails(("cooldown", nasty)),
            plan=replace(case.plan, expected_effect=nasty, alternatives=nasty_ways) if case.plan else None,
            tried=(nasty,),
            approvals=tuple(replace(approval, reason=nasty) for approval in case.approvals),
            execution=replace(case.execution, detail=nasty) if case.execution else None,
            verification=replace(case.verification, reason=nasty, key=key) if case.verification else None,
        )
        message = card(poisoned)
        if poisoned.plan is not None:
            assert validate_view(other_ways_modal(poisoned.plan, "")) == []
        assert validate_message(message.text, message.blocks) == []
        assert "<" not in ALLOWED.sub("", words(message))


def test_everything_too_long_still_fits() -> None:
    long = "x " * 4000
    case = make_case(
        incident=make_incident(service=ServiceName(long), title=long, environment=long),
        callers=(ServiceName(long),) * 30,
        service_owner=long,
        diagnosis=make_diagnosis(root_cause=long[:600], notes=(long,) * 5),
        guardrails=make_guardrails(*((rule, long) for rule in ("cooldown", "budget", "preconditions"))),  # type: ignore[arg-type]
        plan=make_plan(expected_effect=long, alternatives=(replace_what(long[:400], long[:300]),) * 4),
        tried=(long,) * 3,
    )
    message = card(case)
    assert validate_message(message.text, message.blocks) == []
    assert message.blocks[0]["text"]["text"].endswith("Awaiting decision")
