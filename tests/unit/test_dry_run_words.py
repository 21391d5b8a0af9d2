"""How much a plan could hurt, as the dry run says it."""

from dataclasses import replace

import pytest

from pipeline.domain.action import RollBackAction
from pipeline.domain.plan import InstanceState, TargetState
from pipeline.stages.dry_run import _radius
from tests.builders import make_plan, make_target


@pytest.mark.parametrize(
    ("away", "said"),
    [(1, "at most 1 of 3 ready"), (None, "at most 3 of 3 ready"), (0, "no replica is touched")],
)
def test_a_roll_back_takes_away_what_its_platform_says(away: int | None, said: str) -> None:
    live = tuple(InstanceState(f"checkout-{number}", f"uid-{number}", True) for number in (1, 2, 3))
    observed = TargetState(make_target(), "1", 3, live, away_at_once=away)
    plan = replace(make_plan(), action=RollBackAction(from_revision="8", to_revision="7"))
    assert _radius(plan, ((1,),), observed).startswith(said)
