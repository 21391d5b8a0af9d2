"""The state machines as graphs: nothing unreachable, no way stuck, nothing after the end."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

import pytest

from pipeline.domain.errors import PermanentError
from pipeline.domain.lifecycle import (
    EXECUTION_TRANSITIONS,
    FINAL_INCIDENT_STATES,
    INCIDENT_TRANSITIONS,
    OPEN_EXECUTION_STATES,
    PLAN_TRANSITIONS,
    ExecutionState,
    IncidentState,
    PlanState,
)
from pipeline.ports.store import UnitOfWork
from pipeline.stages.advance import advance
from tests.builders import make_incident

I, P, E = IncidentState, PlanState, ExecutionState  # noqa: E741 - the tables' own letters
EXECUTION_ENDS = {E.VERIFIED, E.NOT_VERIFIED, E.INCONCLUSIVE, E.FAILED, E.NEEDS_HUMAN}
PLAN_ENDS = {P.REJECTED, P.EXPIRED, P.SUPERSEDED, P.BLOCKED}

Table = Mapping[Any, frozenset[Any]]
MACHINES = [
    pytest.param(INCIDENT_TRANSITIONS, I, I.OPEN, {I.CLOSED}, id="incident"),
    pytest.param(PLAN_TRANSITIONS, P, P.PROPOSED, PLAN_ENDS, id="plan"),
    pytest.param(EXECUTION_TRANSITIONS, E, E.READY, EXECUTION_ENDS, id="execution"),
]


def reach(table: Table, start: StrEnum, *, without: frozenset[StrEnum] = frozenset()) -> set[StrEnum]:
    seen = {start}
    frontier = [start]
    while frontier:
        for state in table[frontier.pop()] - seen - without:
            seen.add(state)
            frontier.append(state)
    return seen


@pytest.mark.parametrize(("table", "states", "start", "ends"), MACHINES)
class TestMachine:
    def test_every_state_has_its_row_and_is_reachable(
        self, table: Table, states: type[StrEnum], start: StrEnum, ends: set[StrEnum]
    ) -> None:
        assert set(table) == set(states)
        assert reach(table, start) == set(states)

    def test_every_state_that_is_not_an_end_has_a_way_to_one(
        self, table: Table, states: type[StrEnum], start: StrEnum, ends: set[StrEnum]
    ) -> None:
        for state in states:
            assert bool(table[state] - {state}) == (state not in ends)
            assert reach(table, state) & ends

    def test_nothing_comes_back_to_the_start_of_its_own_accord(
        self, table: Table, states: type[StrEnum], start: StrEnum, ends: set[StrEnum]
    ) -> None:
        back = {state for state, following in table.items() if start in following}
        assert back == ({E.CLAIMED, E.UNKNOWN} if states is E else set())


def test_from_everywhere_a_person_can_be_called() -> None:
    for state in set(I) - FINAL_INCIDENT_STATES - {I.ESCALATED}:
        assert I.ESCALATED in INCIDENT_TRANSITIONS[state]


def test_what_is_over_is_only_ever_closed() -> None:
    for state in FINAL_INCIDENT_STATES:
        assert INCIDENT_TRANSITIONS[state] <= {I.CLOSED}
        assert make_incident(state).over
    assert {state for state in I if not make_incident(state).over} == set(I) - FINAL_INCIDENT_STATES


def test_nothing_is_changed_without_a_decision_and_nothing_is_resolved_without_verification() -> None:
    assert {state for state, following in INCIDENT_TRANSITIONS.items() if I.MITIGATING in following} == {
        I.AWAITING_DECISION,
        I.VERIFYING,
    }
    assert {state for state, following in INCIDENT_TRANSITIONS.items() if I.RESOLVED in following} == {I.VERIFYING}
    assert I.MITIGATING not in reach(INCIDENT_TRANSITIONS, I.OPEN, without=frozenset({I.AWAITING_DECISION}))


def test_while_something_is_being_done_it_cannot_recover_by_itself_or_be_closed() -> None:
    for state in (I.MITIGATING, I.VERIFYING):
        assert not INCIDENT_TRANSITIONS[state] & {I.SELF_RECOVERED, I.CLOSED}


def test_a_plan_is_decided_once() -> None:
    assert {state for state, following in PLAN_TRANSITIONS.items() if P.APPROVED in following} == {P.PROPOSED}
    assert PLAN_TRANSITIONS[P.APPROVED] == {P.BLOCKED}


def test_a_call_goes_out_only_from_a_claim() -> None:
    assert {state for state, following in EXECUTION_TRANSITIONS.items() if E.DISPATCHED in following - {state}} == {
        E.CLAIMED
    }
    assert E.DISPATCHED not in reach(EXECUTION_TRANSITIONS, E.READY, without=frozenset({E.CLAIMED}))


def test_after_a_call_it_is_ready_again_only_through_a_look_at_the_target() -> None:
    assert E.READY not in EXECUTION_TRANSITIONS[E.DISPATCHED]
    assert E.READY not in reach(EXECUTION_TRANSITIONS, E.DISPATCHED, without=frozenset({E.UNKNOWN}))


def test_a_verdict_needs_a_change_that_was_seen() -> None:
    for verdict in (E.VERIFIED, E.NOT_VERIFIED, E.INCONCLUSIVE):
        assert {state for state, following in EXECUTION_TRANSITIONS.items() if verdict in following} == {E.APPLIED}


def test_a_target_is_taken_while_a_call_may_be_on_its_way() -> None:
    assert {E.CLAIMED, E.DISPATCHED, E.UNKNOWN} <= OPEN_EXECUTION_STATES
    assert not OPEN_EXECUTION_STATES & (EXECUTION_ENDS | {E.APPLIED})


async def test_a_transition_the_table_does_not_have_is_refused_before_anything_is_written() -> None:
    untouched = cast(UnitOfWork, object())
    for state in I:
        for to in set(I) - INCIDENT_TRANSITIONS[state]:
            with pytest.raises(PermanentError, match=f"INC-42 cannot go from {state} to {to}"):
                await advance(untouched, make_incident(state), to)
