"""Every rule's answer on the card, and what the trail keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from bot.slack.blocks import validate_message
from bot.slack.cards import render_card
from pipeline.domain.guardrail import GuardrailResult, RuleAnswer, RuleName
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.stages.propose import guardrail_entry
from tests.builders import make_case, make_plan, scale

NAMES: tuple[RuleName, ...] = get_args(RuleName)


def answers(allowed: bool, reason: str = "figures") -> GuardrailResult:
    return GuardrailResult(tuple(RuleAnswer(rule, allowed, reason) for rule in NAMES))


WAITING = make_case(plan=make_plan(scale()))
BLOCKED = make_case(IncidentState.ESCALATED, plan=make_plan(scale(), PlanState.BLOCKED))
SHADOW = replace(BLOCKED, phase=Phase.SHADOW)


@pytest.mark.parametrize("case", [WAITING, BLOCKED, SHADOW], ids=["waiting", "blocked", "shadow"])
@pytest.mark.parametrize("allowed", [True, False])
def test_every_rules_answer_stands_on_the_card(case: Case, allowed: bool) -> None:
    card = render_card(replace(case, guardrails=answers(allowed, "x" * 400)), chart_file_id=None)
    assert validate_message(card.text, card.blocks) == []
    shown = json.dumps(card.blocks, ensure_ascii=False)
    for rule in NAMES:
        assert f"{'✅' if allowed else '⛔'} {rule.replace('_', ' ')}" in shown


def test_the_trail_keeps_what_each_rule_judged_by() -> None:
    result = GuardrailResult((RuleAnswer("budget", False, "2/2", {"last_hour_here": 2, "max_here": 2}),))
    entry = guardrail_entry("at the click", result)
    assert entry.summary == "guardrails at the click: refused by budget"
    assert entry.data["answers"] == [
        {"rule": "budget", "allowed": False, "reason": "2/2", "inputs": {"last_hour_here": 2, "max_here": 2}}
    ]
