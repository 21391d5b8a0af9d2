"""The five criteria for leaving Assist."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.phase import RUNNING_PHASES, Phase, TrackRecord, graduation

GRADUATE = TrackRecord(
    incidents=50, decided=30, approved=27, executed=100, recovered=95, inconclusive=2, needs_human=0, days=14.0
)
NEWBORN = TrackRecord(0, 0, 0, 0, 0, 0, 0, 0.0)


def unmet(**changes: Any) -> list[str]:
    return [criterion.title for criterion in graduation(replace(GRADUATE, **changes)) if not criterion.met]


def test_just_enough_is_enough() -> None:
    assert len(graduation(GRADUATE)) == 5
    assert unmet() == []
    assert unmet(executed=20, recovered=19, inconclusive=0) == []


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"incidents": 49}, "incidents diagnosed"),
        ({"approved": 26}, "plans people agreed with"),
        ({"decided": 29, "approved": 29}, "plans people agreed with"),
        ({"recovered": 94}, "actions verified as recovered"),
        ({"executed": 19, "recovered": 19, "inconclusive": 0}, "actions verified as recovered"),
        ({"inconclusive": 3}, "actions whose effect could not be told"),
        ({"days": 13.9}, "days without an outcome that needed a person"),
        ({"needs_human": 1}, "days without an outcome that needed a person"),
    ],
)
def test_just_short_is_short(changes: dict[str, Any], title: str) -> None:
    assert unmet(**changes) == [title]


def test_nothing_done_proves_nothing() -> None:
    assert not any(criterion.met for criterion in graduation(NEWBORN))
    assert [criterion.have for criterion in graduation(NEWBORN)][:4] == ["0", "0% of 0", "0% of 0", "0%"]


@given(st.builds(TrackRecord, *[st.integers(0, 200)] * 7, st.floats(0, 400)), st.integers(1, 50), st.booleans())
def test_trouble_never_helps(record: TrackRecord, more: int, human: bool) -> None:
    worse = replace(
        record,
        needs_human=record.needs_human + more * human,
        inconclusive=record.inconclusive + more * (not human),
    )
    pairs = zip(graduation(record), graduation(worse), strict=True)
    assert not any(after.met and not before.met for before, after in pairs)


def test_the_figures_are_shown() -> None:
    shown = {criterion.title: (criterion.have, criterion.need) for criterion in graduation(GRADUATE)}
    assert shown["plans people agreed with"] == ("90% of 30", "≥ 90 % of 30")
    assert shown["days without an outcome that needed a person"] == ("14 d, 0 such", "≥ 14 d, 0 such")


def test_only_the_phases_that_ask_run() -> None:
    assert {Phase.SHADOW, Phase.ASSIST} == RUNNING_PHASES
