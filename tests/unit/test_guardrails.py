"""What must hold before anything is changed: each rule's yes, no and "cannot tell", and all of them as one gate."""

import json
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.config import Settings
from executors.guardrails.blast_radius import blast_radius, share_at_once
from executors.guardrails.budget import budget, concurrency
from executors.guardrails.change_window import change_window
from executors.guardrails.cooldown import cooldown
from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from executors.guardrails.gate import RULES, decide
from executors.guardrails.kill_switch import kill_switch
from executors.guardrails.preconditions import preconditions
from executors.guardrails.runaway import ineffective, oscillation
from executors.guardrails.scale_cap import scale_cap
from executors.guardrails.trust import confidence, phase
from pipeline.domain.catalogue import AbsoluteFreeze, Calendar, WeeklyFreeze, WeeklyMute
from pipeline.domain.confidence import PROPOSE_FROM
from pipeline.domain.guardrail import GuardrailResult, RuleAnswer, RuleName
from pipeline.domain.ids import ExecutionId, ServiceName
from pipeline.domain.phase import Phase
from pipeline.domain.plan import InstanceState, TargetState
from pipeline.domain.strategy import MAX_SCALE_FACTOR
from pipeline.ports.control import KillSwitch
from pipeline.ports.history import ActionHistory, ReplicaReading, Unhelpful
from tests.builders import CHECKOUT, T0, WEB, make_target, restart, scale

LIMITS = GuardrailLimits()
SWITCH = KillSwitch("all", True, "deploy freeze", "U0ALICE", T0, None)
QUIET = ActionHistory(T0, readings=(ReplicaReading(3, 3600.0),))
ALWAYS = AbsoluteFreeze.model_validate({"from": "2026-01-01", "to": "2027-01-01", "reason": "year of rest"})
IN_VAIN = Unhelpful(ExecutionId(8), "not_verified", 1200.0)


def live(count: int) -> tuple[InstanceState, ...]:
    return tuple(InstanceState(f"c-{number}", f"uid-c-{number}", True) for number in range(1, count + 1))


def state_of(count: int = 3, an_hour_ago: int | None = None, **changes: Any) -> TargetState:
    return replace(TargetState(make_target(), "12", count, live(count), an_hour_ago), **changes)


def facts(**changes: Any) -> GuardrailFacts:
    """A restart of one of three replicas that every rule allows."""
    made = GuardrailFacts(
        service=CHECKOUT,
        environment="demo",
        action=restart("c-1"),
        at_once=1,
        target=make_target(),
        planned_generation="12",
        started=False,
        rollback=False,
        observed=state_of(),
        callers=frozenset({WEB}),
        tier1_callers=frozenset(),
        switch=None,
        calendar=Calendar(),
        history=QUIET,
        phase=Phase.ASSIST,
        confidence=0.8,
        path_problem="",
    )
    return replace(made, **changes)


def course(*readings: tuple[int, float]) -> ActionHistory:
    """The replicas as they were read, so many minutes ago each."""
    return past(readings=tuple(ReplicaReading(replicas, minutes * 60.0) for replicas, minutes in readings))


def past(**changes: Any) -> ActionHistory:
    return replace(QUIET, **changes)


def services(count: int) -> frozenset[ServiceName]:
    return frozenset(ServiceName(f"caller-{number}") for number in range(count))


STOPS: dict[str, dict[str, Any]] = {
    "switch": {"switch": SWITCH},
    "observed": {"observed": None},
    "callers": {"callers": None},
    "phase": {"phase": Phase.SHADOW},
    "confidence": {"confidence": 0.69},
    "path": {"path_problem": "a path needs a cause and a symptom"},
    "here": {"history": past(open_here=1)},
}
"""What stops every action, by itself."""
HOLDS: dict[str, dict[str, Any]] = {
    "cooldown": {"history": past(last_action_s_ago=10.0)},
    "budget": {"history": past(last_hour_everywhere=10)},
    "concurrency": {"history": past(open_elsewhere=3)},
    "change_window": {"calendar": Calendar((ALWAYS,))},
    "ineffective": {"history": past(unhelpful=IN_VAIN)},
    "scale_cap": {"action": scale(3, 4), "observed": state_of(3), "history": past(readings=())},
    "oscillation": {"action": scale(3, 4), "history": course((4, 70), (5, 40), (3, 20)), "observed": state_of(3)},
}
"""What stops every action but a rollback."""
FACTS = st.fixed_dictionaries(
    {
        "action": st.sampled_from([restart("c-1"), restart("c-1", "c-9"), scale(3, 4), scale(3, 9), scale(3, 2)]),
        "observed": st.none() | st.builds(state_of, st.integers(0, 6), st.none() | st.integers(0, 6)),
        "callers": st.none() | st.builds(services, st.integers(0, 12)),
        "tier1_callers": st.builds(services, st.integers(0, 7)),
        "started": st.booleans(),
        "at_once": st.integers(1, 3),
        "rollback": st.booleans(),
        "switch": st.none() | st.just(SWITCH),
        "calendar": st.sampled_from([Calendar(), Calendar((ALWAYS,))]),
        "phase": st.sampled_from(Phase),
        "confidence": st.floats(0, 1) | st.just(float("nan")),
        "history": st.builds(
            past,
            last_action_s_ago=st.none() | st.floats(0, 9e3),
            last_of_kind_s_ago=st.none() | st.floats(0, 9e3),
            last_hour=st.integers(0, 3),
            last_hour_everywhere=st.integers(0, 11),
            open_here=st.integers(0, 1),
            open_elsewhere=st.integers(0, 4),
            unhelpful=st.none() | st.just(IN_VAIN),
            readings=st.lists(
                st.builds(ReplicaReading, st.integers(0, 9), st.floats(0, 9e3), st.booleans()), max_size=5
            ).map(tuple),
        ),
    }
)


class TestGate:
    def test_all_rules_are_asked_and_all_say_yes(self) -> None:
        result = decide(facts(), LIMITS)
        assert result.allowed
        assert result.refusals == ()
        assert {answer.rule for answer in result.answers} == set(get_args(RuleName))
        assert len(result.answers) == len(RULES) == len(get_args(RuleName))
        assert all(answer.reason for answer in result.answers)

    def test_an_empty_result_allows_nothing(self) -> None:
        assert not GuardrailResult().allowed

    def test_one_no_is_a_no(self) -> None:
        yes, no = RuleAnswer("budget", True, "1/2"), RuleAnswer("phase", False, "shadow")
        assert GuardrailResult((yes,)).allowed
        mixed = GuardrailResult((yes, no, yes))
        assert (mixed.allowed, mixed.refusals) == (False, (no,))

    @pytest.mark.parametrize(
        ("rule", "changes"),
        [
            ("kill_switch", {"switch": SWITCH}),
            ("phase", {"phase": Phase.SHADOW}),
            ("confidence", {"confidence": 0.5}),
            ("causal_path", {"path_problem": "no causal path was given"}),
            ("preconditions", {"planned_generation": "11"}),
            ("blast_radius", {"callers": services(11)}),
            ("scale_cap", {"action": scale(3, 7)}),
            ("cooldown", {"history": past(last_action_s_ago=10.0)}),
            ("budget", {"history": past(last_hour=2)}),
            ("concurrency", {"history": past(open_here=1)}),
            ("change_window", {"calendar": Calendar((ALWAYS,))}),
            ("ineffective", {"history": past(unhelpful=IN_VAIN)}),
            ("oscillation", {"action": scale(3, 4), "history": course((4, 70), (5, 40), (3, 20))}),
        ],
    )
    def test_each_rule_can_stop_it_alone(self, rule: str, changes: dict[str, Any]) -> None:
        result = decide(facts(**changes), LIMITS)
        assert [answer.rule for answer in result.refusals] == [rule]

    @pytest.mark.parametrize("action", [restart("c-1"), scale(3, 4)])
    @pytest.mark.parametrize("more", [{}, {"started": True}, {"rollback": True}])
    def test_a_target_that_cannot_be_read_blocks(self, action: Any, more: dict[str, bool]) -> None:
        result = decide(facts(action=action, observed=None, **more), LIMITS)
        assert {"preconditions", "blast_radius"} <= {answer.rule for answer in result.refusals}

    @settings(max_examples=40)
    @given(FACTS, st.sampled_from(sorted(STOPS)))
    def test_whatever_else_holds_a_stop_is_a_stop(self, changes: dict[str, Any], stop: str) -> None:
        case = facts(**{**changes, **STOPS[stop]})
        assert not decide(case, LIMITS).allowed

    @settings(max_examples=40)
    @given(FACTS, st.sampled_from(sorted(HOLDS)))
    def test_what_only_a_rollback_passes_stops_every_other_action(self, changes: dict[str, Any], hold: str) -> None:
        case = facts(**{**changes, **HOLDS[hold], "rollback": False})
        assert not decide(case, LIMITS).allowed
        rule = next(rule for rule in RULES if rule.__name__ == hold)
        assert not rule(case, LIMITS).allowed
        assert rule(replace(case, rollback=True), LIMITS).allowed

    @settings(max_examples=40)
    @given(FACTS)
    def test_every_rule_records_what_it_judged_by(self, changes: dict[str, Any]) -> None:
        result = decide(facts(**changes), LIMITS)
        assert result.allowed == all(rule(facts(**changes), LIMITS).allowed for rule in RULES)
        for answer in result.answers:
            assert answer.inputs or answer.reason == "no scaling"
            assert json.loads(json.dumps(answer.inputs, allow_nan=False)) == answer.inputs


class TestTrust:
    def test_an_engaged_switch_says_which_and_why(self) -> None:
        assert kill_switch(facts(), LIMITS).allowed
        no = kill_switch(facts(switch=SWITCH, rollback=True), LIMITS)
        assert (no.allowed, no.reason) == (False, "engaged for all: deploy freeze")

    def test_what_was_asked_for_and_what_is_engaged_is_recorded(self) -> None:
        assert kill_switch(facts(), LIMITS).inputs["scopes"] == ["all", "env:demo", "checkout"]
        no = kill_switch(facts(switch=replace(SWITCH, scope="env:demo")), LIMITS)
        assert (no.inputs["engaged"], no.inputs["by"], no.inputs["since"]) == ("env:demo", "U0ALICE", T0.isoformat())

    def test_shadow_changes_nothing(self) -> None:
        assert [phase(facts(phase=one), LIMITS).allowed for one in Phase] == [False, True, True, True]

    @pytest.mark.parametrize(("sure", "allowed"), [(0.70, True), (0.69, False), (1.0, True), (float("nan"), False)])
    def test_confidence(self, sure: float, allowed: bool) -> None:
        assert confidence(facts(confidence=sure), LIMITS).allowed is allowed


class TestPreconditions:
    def test_an_unchanged_target(self) -> None:
        assert preconditions(facts(), LIMITS).reason == "target unchanged, 3 replicas"

    def test_a_changed_target_is_named(self) -> None:
        no = preconditions(facts(observed=state_of(5, generation="13")), LIMITS)
        assert not no.allowed
        assert "12 → 13" in no.reason
        assert "5 replicas now" in no.reason

    @pytest.mark.parametrize("more", [{}, {"started": True}, {"rollback": True}])
    def test_a_recreated_workload_is_never_the_same(self, more: dict[str, bool]) -> None:
        other = state_of(ref=make_target(uid="uid-new"))
        assert not preconditions(facts(observed=other, **more), LIMITS).allowed

    def test_a_replica_that_is_gone_is_named(self) -> None:
        no = preconditions(facts(action=restart("c-1", "c-8", "c-9")), LIMITS)
        assert (no.allowed, no.reason) == (False, "already replaced: c-8, c-9")
        renamed = state_of(instances=(InstanceState("c-1", "uid-other", True),))
        assert not preconditions(facts(observed=renamed), LIMITS).allowed, "the same name is not the same replica"

    @pytest.mark.parametrize("more", [{"started": True}, {"rollback": True}])
    def test_our_own_earlier_steps_are_no_difference(self, more: dict[str, bool]) -> None:
        moved = state_of(2, generation="13", instances=live(3)[1:])
        assert preconditions(facts(observed=moved, **more), LIMITS).allowed
        assert not preconditions(facts(observed=moved), LIMITS).allowed


class TestBlastRadius:
    @pytest.mark.parametrize(
        ("action", "count", "share"),
        [
            (restart("c-1"), 4, 0.25),
            (restart("c-1", "c-2", "c-3"), 4, 0.25),
            (restart("c-1"), 1, 1.0),
            (scale(4, 8), 4, 0.0),
            (scale(4, 1), 4, 0.75),
        ],
    )
    def test_the_share_down_at_once(self, action: Any, count: int, share: float) -> None:
        assert share_at_once(action, state_of(count)) == share

    def test_a_batch_goes_together(self) -> None:
        assert share_at_once(restart("c-1", "c-2", "c-3"), state_of(4), at_once=2) == 0.5
        assert share_at_once(restart("c-1"), state_of(4), at_once=2) == 0.25, "there is but one to go"
        batch = facts(action=restart("c-1", "c-2"), observed=state_of(3))
        assert blast_radius(batch, LIMITS).allowed
        assert not blast_radius(replace(batch, at_once=2), LIMITS).allowed

    @pytest.mark.parametrize(
        ("action", "count", "allowed"),
        [(restart("c-1"), 2, True), (restart("c-1"), 1, False), (scale(4, 2), 4, True), (scale(4, 1), 4, False)],
    )
    def test_at_most_half(self, action: Any, count: int, allowed: bool) -> None:
        assert blast_radius(facts(action=action, observed=state_of(count)), LIMITS).allowed is allowed

    def test_at_most_so_many_callers(self) -> None:
        assert blast_radius(facts(callers=services(10)), LIMITS).allowed
        assert not blast_radius(facts(callers=services(11)), LIMITS).allowed
        assert blast_radius(facts(), LIMITS).reason == "33% of 3 ready replicas at once, 1 calling service"
        assert blast_radius(facts(callers=services(2)), LIMITS).reason.endswith("2 calling services")

    def test_callers_of_tier_1_are_counted_by_themselves(self) -> None:
        for count, allowed in ((5, True), (6, False)):
            answer = blast_radius(facts(callers=services(9), tier1_callers=services(count)), LIMITS)
            assert answer.allowed is allowed
            assert f"9 calling services, {count} of tier 1" in answer.reason
            assert answer.inputs["tier1"] == sorted(services(count))

    @pytest.mark.parametrize(
        ("action", "ready", "allowed", "said"),
        [
            (restart("c-1"), (1,), False, "100% of 1 ready"),
            (restart("c-2"), (1,), True, "0% of 1 ready"),
            (restart("c-2", "c-1"), (1,), False, "100% of 1 ready"),
            (restart("c-1"), (1, 2), True, "50% of 2 ready"),
            (scale(3, 2), (1,), False, "100% of 1 ready"),
            (scale(3, 2), (1, 2), True, "50% of 2 ready"),
            (scale(3, 4), (1,), True, "0% of 1 ready"),
            (restart("c-1"), (), True, "0% of 0 ready"),
            (restart("c-1", "c-9"), (), False, "no ready replica"),
            (scale(3, 4), (), False, "no ready replica"),
        ],
    )
    def test_only_ready_replicas_count(self, action: Any, ready: tuple[int, ...], allowed: bool, said: str) -> None:
        instances = tuple(InstanceState(f"c-{one}", f"uid-c-{one}", one in ready) for one in (1, 2, 3))
        answer = blast_radius(facts(action=action, observed=state_of(instances=instances)), LIMITS)
        assert answer.allowed is allowed
        assert answer.reason.startswith(said)

    def test_unknown_and_empty_block(self) -> None:
        for changes in ({"observed": None}, {"callers": None}, {"observed": state_of(3, instances=())}):
            assert not blast_radius(facts(**changes), LIMITS).allowed
        assert blast_radius(facts(callers=frozenset()), LIMITS).allowed, "seen, and called by nobody"


class TestScaleCap:
    @pytest.mark.parametrize(
        ("now", "an_hour_ago", "to", "allowed"),
        [
            (4, 2, 4, True),
            (4, 2, 5, False),
            (4, 2, 8, False),
            (2, 4, 8, True),
            (3, 0, 4, False),
            (1, 0, 1, True),
            (1, 0, 2, False),
            (9, 2, 8, True),
        ],
    )
    def test_twice_the_replicas_of_an_hour_ago(self, now: int, an_hour_ago: int, to: int, allowed: bool) -> None:
        by_the_platform = facts(action=scale(now, to), observed=state_of(now, an_hour_ago), history=past(readings=()))
        assert scale_cap(by_the_platform, LIMITS).allowed is allowed
        read = facts(action=scale(now, to), observed=state_of(now), history=course((an_hour_ago, 60)))
        assert scale_cap(read, LIMITS).allowed is allowed

    @pytest.mark.parametrize(
        ("readings", "base", "said"),
        [
            (((9, 200), (2, 70), (4, 50)), 2, "2 70 min ago, as last read, cap 4"),
            (((2, 50), (3, 10)), 2, "2 50 min ago, the oldest reading, cap 4"),
            (((3, 0),), 3, "3 0 min ago, the oldest reading, cap 6"),
        ],
    )
    def test_which_reading_was_taken_is_said(
        self, readings: tuple[tuple[int, float], ...], base: int, said: str
    ) -> None:
        answer = scale_cap(facts(action=scale(3, 4), history=course(*readings)), LIMITS)
        assert answer.reason == f"4 wanted, {said}"
        assert (answer.inputs["base"], answer.inputs["now"], answer.inputs["cap"]) == (base, 3, 2 * base)

    def test_what_was_never_read_is_not_scaled_up(self) -> None:
        blind = past(readings=())
        no = scale_cap(facts(action=scale(3, 4), history=blind), LIMITS)
        assert (no.allowed, no.inputs["base"]) == (False, None)
        assert "not known" in no.reason
        assert scale_cap(facts(action=scale(3, 2), history=blind), LIMITS).allowed, "scaling down is not bounded here"
        assert scale_cap(facts(action=scale(3, 9), history=blind, rollback=True), LIMITS).allowed, "it stood before"

    @given(st.integers(1, 50), st.lists(st.integers(1, 1000), max_size=6))
    def test_plan_after_plan_it_stays_below_twice_of_an_hour_ago(self, base: int, wanted: list[int]) -> None:
        now = base
        for to in wanted:
            case = facts(action=scale(now, to), observed=state_of(now), history=course((base, 59), (now, 1)))
            if scale_cap(case, LIMITS).allowed:
                now = to
        assert now <= 2 * base

    def test_restarts_are_no_scaling_and_unreadable_blocks(self) -> None:
        assert scale_cap(facts(observed=None), LIMITS).allowed
        assert not scale_cap(facts(action=scale(3, 4), observed=None), LIMITS).allowed

    def test_the_factor_is_a_limit(self) -> None:
        tight = replace(LIMITS, max_scale_factor=1.5)
        assert scale_cap(facts(action=scale(4, 6), observed=state_of(4, 4)), tight).allowed
        assert not scale_cap(facts(action=scale(4, 7), observed=state_of(4, 4)), tight).allowed


class TestHistory:
    @pytest.mark.parametrize(
        ("any_s", "of_kind_s", "allowed"),
        [
            (None, None, True),
            (0.0, None, False),
            (299.0, None, False),
            (300.0, None, True),
            (300.0, 300.0, False),
            (599.0, 599.0, False),
            (600.0, 600.0, True),
            (10.0, 700.0, False),
        ],
    )
    def test_rest_after_any_action_and_a_longer_one_after_the_same(
        self, any_s: float | None, of_kind_s: float | None, allowed: bool
    ) -> None:
        history = past(last_action_s_ago=any_s, last_of_kind_s_ago=of_kind_s)
        assert cooldown(facts(history=history), LIMITS).allowed is allowed
        assert cooldown(facts(history=history, rollback=True), LIMITS).allowed, "what is put back does not wait"

    def test_no_rest_is_longer_than_the_cooldown(self) -> None:
        history = past(last_action_s_ago=2.0, last_of_kind_s_ago=2.0)
        assert cooldown(facts(history=history), replace(LIMITS, cooldown_s=1.0)).allowed

    def test_the_rest_that_is_left_is_said(self) -> None:
        same = cooldown(facts(history=past(last_action_s_ago=240.0, last_of_kind_s_ago=240.0)), LIMITS)
        assert same.reason == "last restart 240 s ago; 360 s of rest left"
        other = cooldown(facts(history=past(last_action_s_ago=240.0)), LIMITS)
        assert other.reason == "last action 240 s ago; 60 s of rest left"
        assert cooldown(facts(history=past(last_action_s_ago=1800.0)), LIMITS).reason == "last action 30 min ago"

    @pytest.mark.parametrize(
        ("history", "allowed"),
        [
            (past(last_hour=1, last_hour_everywhere=9), True),
            (past(last_hour=2), False),
            (past(last_hour_everywhere=10), False),
        ],
    )
    def test_the_budget(self, history: ActionHistory, allowed: bool) -> None:
        assert budget(facts(history=history), LIMITS).allowed is allowed
        assert budget(facts(history=history, rollback=True), LIMITS).allowed, "a rollback is always paid"

    def test_the_figures_are_said(self) -> None:
        answer = budget(facts(history=past(last_hour=1, last_hour_everywhere=4)), LIMITS)
        assert answer.reason == "1/2 on this target, 4/10 in all this hour"
        answer = concurrency(facts(history=past(open_here=1, open_elsewhere=2)), LIMITS)
        assert answer.reason == "1/1 open on this target, 3/3 in all"

    @pytest.mark.parametrize(
        ("here", "elsewhere", "allowed", "rollback"),
        [(0, 2, True, True), (0, 3, False, True), (1, 0, False, False), (1, 3, False, False)],
    )
    def test_so_many_at_a_time(self, here: int, elsewhere: int, allowed: bool, rollback: bool) -> None:
        history = past(open_here=here, open_elsewhere=elsewhere)
        assert concurrency(facts(history=history), LIMITS).allowed is allowed
        assert concurrency(facts(history=history, rollback=True), LIMITS).allowed is rollback

    @pytest.mark.parametrize(
        ("verdict", "ago_s", "allowed", "said"),
        [
            ("not_verified", 1200.0, False, "a restart did not help 20 min ago: not done again, a person has to"),
            ("inconclusive", 1200.0, False, "a restart could not be shown to have helped 20 min ago"),
            ("not_verified", 86_400.0, True, "did not help 1440 min ago"),
        ],
    )
    def test_what_did_not_help_is_not_done_again(self, verdict: str, ago_s: float, allowed: bool, said: str) -> None:
        history = past(unhelpful=Unhelpful(ExecutionId(8), verdict, ago_s))
        answer = ineffective(facts(history=history), LIMITS)
        assert answer.allowed is allowed
        assert said in answer.reason
        assert answer.inputs["execution"] == 8
        assert ineffective(facts(history=history, rollback=True), LIMITS).allowed
        assert ineffective(facts(), LIMITS).allowed


class TestOscillation:
    @pytest.mark.parametrize(
        ("readings", "now", "to", "reversals"),
        [
            ((), 2, 4, 0),
            (((2, 50),), 4, 6, 0),
            (((2, 50), (4, 40)), 2, 4, 2),
            (((2, 50), (4, 40), (4, 30)), 2, 1, 1),
            (((4, 50), (2, 40)), 2, 4, 1),
            (((2, 50), (4, 40), (2, 30), (4, 20)), 2, 4, 4),
            # What went before the hour is another story, but where it ended is where this one begins.
            (((2, 90), (4, 80), (2, 70)), 4, 2, 1),
            (((9, 90), (4, 61), (2, 30)), 4, 6, 1),
        ],
    )
    def test_changes_of_direction_are_counted(
        self, readings: tuple[tuple[int, float], ...], now: int, to: int, reversals: int
    ) -> None:
        case = facts(action=scale(now, to), observed=state_of(now), history=course(*readings))
        answer = oscillation(case, LIMITS)
        assert answer.inputs["reversals"] == reversals
        assert answer.allowed is (reversals < 2)
        assert oscillation(replace(case, rollback=True), LIMITS).allowed

    def test_the_course_is_said(self) -> None:
        case = facts(action=scale(2, 4), observed=state_of(2), history=course((2, 50), (4, 40), (4, 30)))
        assert oscillation(case, LIMITS).reason == "2 of 2 changes of direction this hour: 2 → 4 → 2 → 4 replicas"

    def test_a_restart_turns_nothing_round(self) -> None:
        assert oscillation(facts(history=course((2, 50), (4, 40), (2, 30), (4, 20))), LIMITS).allowed


class TestChangeWindow:
    NIGHT = WeeklyMute.model_validate({"from": "22:00", "to": "06:00"})
    DAY = WeeklyMute.model_validate({"from": "12:00", "to": "15:00"})
    LUNCH = WeeklyFreeze.model_validate({"from": "14:00", "to": "14:30", "reason": "lunch"})

    @pytest.mark.parametrize(
        ("calendar", "allowed", "reason"),
        [
            (Calendar(), True, "no freeze"),
            (Calendar((LUNCH,)), False, "frozen: lunch"),
            (Calendar((), (NIGHT,)), False, "outside of the service's change windows"),
            (Calendar((), (NIGHT, DAY)), True, "inside a change window"),
            (Calendar((LUNCH,), (DAY,)), False, "frozen: lunch"),
        ],
    )
    def test_by_the_databases_clock(self, calendar: Calendar, allowed: bool, reason: str) -> None:
        answer = change_window(facts(calendar=calendar), LIMITS)
        assert (answer.allowed, answer.reason) == (allowed, reason)
        assert answer.inputs["at"] == T0.isoformat()
        assert change_window(facts(calendar=calendar, rollback=True), LIMITS).allowed, "a rollback undoes a change"


def test_a_rollback_passes_where_its_own_change_would_stand_in_the_way() -> None:
    """After scaling from 2 to 4: another generation, a spent budget, and back to what stood before."""
    changed = state_of(4, 2, generation="13")
    back = facts(action=scale(4, 2), observed=changed, rollback=True, history=past(last_hour=2))
    assert decide(back, LIMITS).allowed
    assert not decide(replace(back, rollback=False), LIMITS).allowed
    for stop in ({"switch": SWITCH}, {"observed": None}, {"observed": state_of(10, 2)}):
        assert not decide(replace(back, **stop), LIMITS).allowed


def test_the_limits_of_a_new_installation_are_the_rules_own() -> None:
    configured = Settings().guard.model_dump()
    shared = {field.name for field in fields(GuardrailLimits)} & set(configured)
    fixed = {"max_scale_factor", "max_concurrent_target", "min_confidence"}
    assert shared == {field.name for field in fields(GuardrailLimits)} - fixed
    assert {name: getattr(LIMITS, name) for name in shared} == {name: configured[name] for name in shared}
    assert LIMITS.min_confidence == PROPOSE_FROM
    assert LIMITS.max_scale_factor == MAX_SCALE_FACTOR


def test_every_limit_is_felt() -> None:
    """A limit that no rule reads protects nobody."""
    strict: dict[str, Any] = {
        "max_share": 0.1,
        "max_callers": 0,
        "max_tier1_callers": 0,
        "max_scale_factor": 1.0,
        "cooldown_s": 3600.0,
        "rest_s": 599.0,
        "max_actions_target_hour": 1,
        "max_actions_hour": 1,
        "max_concurrent_target": 0,
        "max_concurrent": 1,
        "ineffective_s": 172_800.0,
        "max_reversals": 1,
        "min_confidence": 0.9,
    }
    assert set(strict) == {field.name for field in fields(GuardrailLimits)}
    history = past(
        last_action_s_ago=500.0,
        last_of_kind_s_ago=1800.0,
        last_hour=1,
        last_hour_everywhere=1,
        open_elsewhere=1,
        unhelpful=Unhelpful(ExecutionId(8), "not_verified", 90_000.0),
        readings=(ReplicaReading(3, 3600.0), ReplicaReading(2, 1800.0)),
    )
    for name, limit in strict.items():
        action = scale(3, 4) if name in ("max_scale_factor", "max_reversals") else restart("c-1")
        case = facts(action=action, observed=state_of(3), tier1_callers=frozenset({WEB}), history=history)
        assert decide(case, LIMITS).allowed
        assert not decide(case, replace(LIMITS, **{name: limit})).allowed, name
