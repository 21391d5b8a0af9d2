"""What must hold before anything is changed: each rule's yes, no and "cannot tell", and all of them as one gate."""

from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.config import Settings
from executors.guardrails.blast_radius import blast_radius, share_at_once
from executors.guardrails.budget import budget
from executors.guardrails.cooldown import cooldown
from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from executors.guardrails.gate import RULES, decide
from executors.guardrails.kill_switch import kill_switch
from executors.guardrails.preconditions import preconditions
from executors.guardrails.scale_cap import scale_cap
from executors.guardrails.trust import confidence, phase
from pipeline.domain.confidence import PROPOSE_FROM
from pipeline.domain.guardrail import GuardrailResult, RuleAnswer, RuleName
from pipeline.domain.ids import ServiceName
from pipeline.domain.phase import Phase
from pipeline.domain.plan import InstanceState, TargetState
from pipeline.domain.strategy import MAX_SCALE_FACTOR
from pipeline.ports.control import KillSwitch
from pipeline.ports.executions import ActionHistory
from tests.builders import T0, WEB, make_target, restart, scale

LIMITS = GuardrailLimits()
SWITCH = KillSwitch("all", True, "deploy freeze", "U0ALICE", T0, None)
QUIET = ActionHistory(last_action_s_ago=None, last_hour=0, last_hour_everywhere=0, open_elsewhere=0)


def live(count: int) -> tuple[InstanceState, ...]:
    return tuple(InstanceState(f"c-{number}", f"uid-c-{number}", True) for number in range(1, count + 1))


def state_of(count: int = 3, an_hour_ago: int | None = None, **changes: Any) -> TargetState:
    return replace(TargetState(make_target(), "12", count, live(count), an_hour_ago), **changes)


def facts(**changes: Any) -> GuardrailFacts:
    """A restart of one of three replicas that every rule allows."""
    made = GuardrailFacts(
        action=restart("c-1"),
        target=make_target(),
        planned_generation="12",
        started=False,
        rollback=False,
        observed=state_of(),
        callers=frozenset({WEB}),
        switch=None,
        history=QUIET,
        phase=Phase.ASSIST,
        confidence=0.8,
        path_problem="",
    )
    return replace(made, **changes)


def past(**changes: Any) -> ActionHistory:
    return replace(QUIET, **changes)


def services(count: int) -> frozenset[ServiceName]:
    return frozenset(ServiceName(f"caller-{number}") for number in range(count))


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

    @given(
        st.fixed_dictionaries(
            {
                "action": st.sampled_from([restart("c-1"), restart("c-1", "c-9"), scale(3, 4), scale(3, 9)]),
                "observed": st.none() | st.builds(state_of, st.integers(0, 6), st.none() | st.integers(0, 6)),
                "callers": st.none() | st.builds(services, st.integers(0, 12)),
                "started": st.booleans(),
                "rollback": st.booleans(),
                "phase": st.sampled_from(Phase),
                "confidence": st.floats(0, 1) | st.just(float("nan")),
                "history": st.builds(
                    past, last_action_s_ago=st.none() | st.floats(0, 9e3), last_hour=st.integers(0, 3)
                ),
            }
        ),
        st.sampled_from(["switch", "observed", "callers", "phase", "confidence", "path_problem"]),
    )
    def test_whatever_else_holds_a_stop_is_a_stop(self, changes: dict[str, Any], stop: str) -> None:
        stops: dict[str, Any] = {
            "switch": SWITCH,
            "observed": None,
            "callers": None,
            "phase": Phase.SHADOW,
            "confidence": 0.69,
        }
        stops["path_problem"] = "a path needs a cause and a symptom"
        assert not decide(facts(**{**changes, stop: stops[stop]}), LIMITS).allowed


class TestTrust:
    def test_an_engaged_switch_says_which_and_why(self) -> None:
        assert kill_switch(facts(), LIMITS).allowed
        no = kill_switch(facts(switch=SWITCH, rollback=True), LIMITS)
        assert (no.allowed, no.reason) == (False, "engaged for all: deploy freeze")

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
            (2, None, 4, True),
            (2, None, 5, False),
            (4, 2, 4, True),
            (4, 2, 5, False),
            (4, 2, 8, False),
            (2, 4, 8, True),
            (3, 0, 4, False),
            (1, 0, 1, True),
            (1, 0, 2, False),
            (4, None, 1, True),
        ],
    )
    def test_twice_the_replicas_of_an_hour_ago(self, now: int, an_hour_ago: int | None, to: int, allowed: bool) -> None:
        answer = scale_cap(facts(action=scale(now, to), observed=state_of(now, an_hour_ago)), LIMITS)
        assert answer.allowed is allowed

    @given(st.integers(1, 50), st.lists(st.integers(1, 1000), max_size=6))
    def test_plan_after_plan_it_stays_below_twice_of_an_hour_ago(self, base: int, wanted: list[int]) -> None:
        now = base
        for to in wanted:
            if scale_cap(facts(action=scale(now, to), observed=state_of(now, base)), LIMITS).allowed:
                now = to
        assert now <= 2 * base

    def test_restarts_are_no_scaling_and_unreadable_blocks(self) -> None:
        assert scale_cap(facts(observed=None), LIMITS).allowed
        assert not scale_cap(facts(action=scale(3, 4), observed=None), LIMITS).allowed

    @pytest.mark.parametrize(("an_hour_ago", "said"), [(2, "2 one hour ago, cap 4"), (None, "3 now, cap 6")])
    def test_the_figures_are_said(self, an_hour_ago: int | None, said: str) -> None:
        answer = scale_cap(facts(action=scale(3, 4), observed=state_of(3, an_hour_ago)), LIMITS)
        assert answer.reason == f"4 wanted, {said}"

    def test_the_factor_is_a_limit(self) -> None:
        tight = replace(LIMITS, max_scale_factor=1.5)
        assert scale_cap(facts(action=scale(4, 6), observed=state_of(4)), tight).allowed
        assert not scale_cap(facts(action=scale(4, 7), observed=state_of(4)), tight).allowed


class TestHistory:
    @pytest.mark.parametrize(("ago_s", "allowed"), [(None, True), (0.0, False), (599.0, False), (600.0, True)])
    def test_rest_after_any_action(self, ago_s: float | None, allowed: bool) -> None:
        assert cooldown(facts(history=past(last_action_s_ago=ago_s)), LIMITS).allowed is allowed

    def test_the_rest_that_is_left_is_said(self) -> None:
        answer = cooldown(facts(history=past(last_action_s_ago=240.0)), LIMITS)
        assert answer.reason == "last action 240 s ago; 360 s of rest left"
        assert cooldown(facts(history=past(last_action_s_ago=1800.0)), LIMITS).reason == "last action 30 min ago"

    @pytest.mark.parametrize(
        ("history", "allowed"),
        [
            (past(last_hour=1, last_hour_everywhere=9, open_elsewhere=2), True),
            (past(last_hour=2), False),
            (past(last_hour_everywhere=10), False),
            (past(open_elsewhere=3), False),
        ],
    )
    def test_the_budget(self, history: ActionHistory, allowed: bool) -> None:
        assert budget(facts(history=history), LIMITS).allowed is allowed
        assert budget(facts(history=history, rollback=True), LIMITS).allowed, "a rollback is always paid"

    def test_the_figures_are_said(self) -> None:
        answer = budget(facts(history=past(last_hour=1, last_hour_everywhere=4, open_elsewhere=2)), LIMITS)
        assert answer.reason == "1/2 on this target, 4/10 in all this hour, 2 running"


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
    assert {"max_share", "max_callers", "cooldown_s", "max_actions_target_hour", "max_actions_hour"} <= shared
    assert {name: getattr(LIMITS, name) for name in shared} == {name: configured[name] for name in shared}
    assert LIMITS.min_confidence == PROPOSE_FROM
    assert LIMITS.max_scale_factor == MAX_SCALE_FACTOR


def test_every_limit_is_felt() -> None:
    """A limit that no rule reads protects nobody."""
    strict: dict[str, Any] = {
        "max_share": 0.1,
        "max_callers": 0,
        "max_scale_factor": 1.0,
        "cooldown_s": 3600.0,
        "max_actions_target_hour": 1,
        "max_actions_hour": 1,
        "max_concurrent": 1,
        "min_confidence": 0.9,
    }
    assert set(strict) == {field.name for field in fields(GuardrailLimits)}
    history = past(last_action_s_ago=1800.0, last_hour=1, last_hour_everywhere=1, open_elsewhere=1)
    for name, limit in strict.items():
        action = scale(3, 4) if name == "max_scale_factor" else restart("c-1")
        case = facts(action=action, history=history)
        assert decide(case, LIMITS).allowed
        assert not decide(case, replace(LIMITS, **{name: limit})).allowed, name
