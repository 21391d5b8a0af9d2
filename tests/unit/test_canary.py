"""The first replica of several: how it is judged, and what goes out together after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.action import operations
from pipeline.domain.canary import CanarySettings, CanaryVerdict, Judgement, Observed, judge
from pipeline.domain.execution import Execution, StepState, batches, next_batch
from pipeline.domain.telemetry import Signal
from tests.builders import make_execution, restart

SETTINGS = CanarySettings(watch_s=60.0, min_samples=3)
NOTHING = Observed()


def seen(signal: Signal, *, before: float | None = None, after: float | None = None, samples: int = 3) -> Observed:
    told = {
        "before": {} if before is None else {signal: [before] * samples},
        "after": {} if after is None else {signal: [after] * samples},
    }
    return Observed(**told)


def judged(signal: Signal, canary: Any = None, peers: Any = None, service: Any = None) -> Judgement:
    one, two, three = (seen(signal, before=it[0], after=it[1]) if it else NOTHING for it in (canary, peers, service))
    return judge(one, two, three, SETTINGS)


@pytest.mark.parametrize(
    ("signal", "canary", "peers", "verdict", "says"),
    [
        (Signal.ERROR_RATIO, (0.0, 0.0), (0.0, 0.0), CanaryVerdict.AS_GOOD, "0 %"),
        (Signal.ERROR_RATIO, (None, 0.12), (None, 0.003), CanaryVerdict.WORSE, "12 % against 0.3 % of the others"),
        (Signal.ERROR_RATIO, (None, 0.019), (None, 0.0), CanaryVerdict.AS_GOOD, "1.9 %"),
        (Signal.ERROR_RATIO, (None, 0.30), (None, 0.25), CanaryVerdict.AS_GOOD, "of the others"),
        (Signal.ERROR_RATIO, (0.0, 0.12), None, CanaryVerdict.WORSE, "12 % against 0 % before"),
        (Signal.ERROR_RATIO, (0.01, 0.12), (0.01, 0.12), CanaryVerdict.AS_GOOD, "drifted alike"),
        (Signal.ERROR_RATIO, (0.4, 0.0), (0.4, 0.4), CanaryVerdict.AS_GOOD, "a fix looks like this"),
        (Signal.LATENCY_P99, (None, 0.6), (None, 0.2), CanaryVerdict.WORSE, "600 ms against 200 ms"),
        (Signal.LATENCY_P99, (None, 0.04), (None, 0.01), CanaryVerdict.AS_GOOD, "too small an effect"),
        (Signal.LATENCY_P99, (None, 1.2), (None, 1.0), CanaryVerdict.AS_GOOD, "too small a factor"),
        (Signal.LATENCY_P99, (0.2, 0.6), (0.2, 0.55), CanaryVerdict.AS_GOOD, "drifted alike"),
    ],
)
def test_the_canary_is_held_against_its_peers_and_its_own_past(
    signal: Signal, canary: Any, peers: Any, verdict: CanaryVerdict, says: str
) -> None:
    judgement = judged(signal, canary, peers)
    assert judgement.verdict is verdict
    if verdict is CanaryVerdict.WORSE:
        assert says in judgement.reason


def test_the_service_as_a_whole_stands_in_where_no_replica_is_measured() -> None:
    assert judged(Signal.ERROR_RATIO, service=(0.01, 0.01)).verdict is CanaryVerdict.AS_GOOD
    worse = judged(Signal.ERROR_RATIO, service=(0.01, 0.3))
    assert worse == Judgement(CanaryVerdict.WORSE, "error ratio of the service 30 % against 1.0 % before")
    by_replica = judged(Signal.ERROR_RATIO, (0.0, 0.0), (0.0, 0.0), (0.01, 0.3))
    assert by_replica.verdict is CanaryVerdict.AS_GOOD, "the figures by replica say more"


@pytest.mark.parametrize(
    "canary",
    [
        NOTHING,
        seen(Signal.ERROR_RATIO, before=0.0),
        seen(Signal.ERROR_RATIO, before=0.0, after=0.0, samples=2),
        seen(Signal.ERROR_RATIO, before=0.0, after=float("nan")),
        seen(Signal.MEMORY_RATIO, before=0.9, after=0.1),
    ],
    ids=["nothing", "nothing since", "too few", "no number", "nothing that callers feel"],
)
def test_what_cannot_be_compared_is_no_verdict(canary: Observed) -> None:
    assert judge(canary, NOTHING, NOTHING, SETTINGS).verdict is CanaryVerdict.CANNOT_TELL


def test_one_bad_signal_is_enough() -> None:
    fine, slow = seen(Signal.ERROR_RATIO, before=0.0, after=0.0), seen(Signal.LATENCY_P99, before=0.1, after=2.0)
    both = Observed({**fine.before, **slow.before}, {**fine.after, **slow.after})
    assert judge(both, NOTHING, NOTHING, SETTINGS).verdict is CanaryVerdict.WORSE


# --- what goes out together


def execution(steps: int, *, applied: int = 0, kind: Any = "apply", **changes: Any) -> Execution:
    action = restart(*(f"checkout-{number}" for number in range(1, steps + 1)))
    step = make_execution().steps[0]
    made = tuple(
        replace(
            step,
            number=number,
            operation=operation,
            state=StepState.APPLIED if number <= applied else StepState.PENDING,
            batch=1 if number <= applied else 0,
        )
        for number, operation in enumerate(operations(action), start=1)
    )
    return replace(make_execution(kind=kind), steps=made, **changes)


def numbers(one: Execution, *, ready: int = 8, share: float = 0.25) -> list[int]:
    return [step.number for step in next_batch(one, ready=ready, share=share)]


def test_the_first_goes_alone_and_the_others_in_shares_of_the_ready_ones() -> None:
    assert numbers(execution(5)) == [1]
    assert numbers(execution(5, applied=1)) == [2, 3]
    assert numbers(execution(5, applied=1), ready=3) == [2], "never none"
    assert numbers(execution(5, applied=4)) == [5]
    assert numbers(execution(5, applied=5)) == []
    assert numbers(execution(4, kind="rollback")) == [1, 2], "a rollback holds nothing back"


def test_an_interrupted_batch_is_finished_first() -> None:
    one = execution(6, applied=2)
    steps = tuple(replace(step, batch=2) if step.number in (3, 4) else step for step in one.steps)
    assert numbers(replace(one, steps=steps)) == [3, 4]


def test_only_several_steps_have_a_canary() -> None:
    assert not execution(1).awaits_canary
    assert not execution(3).awaits_canary, "not before it stands"
    assert execution(3, applied=1).awaits_canary
    assert not execution(3, applied=1, canary_verdict="as_good").awaits_canary
    assert not execution(3, applied=1, kind="rollback").awaits_canary


@given(steps=st.integers(1, 50), ready=st.integers(0, 60), share=st.floats(0.0, 1.0))
def test_every_step_goes_out_once_and_never_more_than_the_share(steps: int, ready: int, share: float) -> None:
    order = batches("apply", [step.operation for step in execution(steps).steps], ready=ready, share=share)
    assert [number for batch in order for number in batch] == list(range(1, steps + 1))
    assert steps == 1 or order[0] == (1,)
    assert all(len(batch) <= max(1, share * ready) for batch in order)
