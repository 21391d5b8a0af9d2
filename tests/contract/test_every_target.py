"""One suite that all targets pass; the run ends with a table of target × case (tests/conftest.py prints it)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from pipeline.domain.action import Operation, is_reversible, operations
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent, stood_before
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.domain.undo import undo
from tests.contract.targets.places import as_soon_as_readable, intent_for, until
from tests.contract.targets.stand import Stand
from tests.contract.targets.stands import STANDS

Property = Callable[[str, object], None]


@pytest.fixture(params=list(STANDS))
async def stand(request: pytest.FixtureRequest, record_property: Property) -> AsyncIterator[Stand]:
    record_property("target", request.param)
    record_property("case", request.node.originalname.removeprefix("test_").replace("_", " "))
    async with STANDS[request.param]() as opened:
        yield opened


async def _planned(stand: Stand) -> tuple[TargetRef, TargetState, Operation]:
    ref = await stand.target.resolve(stand.address)
    state = await stand.target.observe(ref)
    (operation,) = operations(await stand.action(state))
    return ref, state, operation


async def _carried_out(stand: Stand, ref: TargetRef, operation: Operation, intent: Intent) -> None:
    await stand.target.apply(ref, operation, intent)
    assert await stand.target.find(ref, operation, intent) is Finding.APPLIED
    await until(lambda: stand.target.settled(ref, operation))


async def test_observe(stand: Stand) -> None:
    ref = await stand.target.resolve(stand.address)
    assert await stand.target.resolve(stand.address) == ref
    assert (ref.platform, ref.namespace, ref.name) == (
        stand.target.platform,
        stand.address.namespace,
        stand.address.name,
    )
    state = await stand.target.observe(ref)
    assert state.ref == ref
    assert state.generation
    assert len({one.uid for one in state.instances}) == len(state.instances)
    action = await stand.action(state)
    declared = stand.target.declares()
    assert action.kind in declared.kinds
    assert action.kind not in state.refuses
    checked = await stand.target.check(ref)
    assert checked, "nothing is proven of its rights"
    assert not [one for one in checked if one.held is False]
    shown = await stand.target.calls(ref, operations(action)[0], state.generation)
    assert shown
    assert all(shown)
    assert stand.target.command(ref, action)
    assert stand.writes() == 0


async def test_apply(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    before = await stand.facts()
    assert not await stand.target.settled(ref, operation)
    await _carried_out(stand, ref, operation, intent_for(state))
    assert await stand.facts() != before
    after = await stand.target.observe(ref)
    assert after.ref == ref, "the same target, changed"


async def test_idempotent_reapply(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    intent = intent_for(state)
    await _carried_out(stand, ref, operation, intent)
    stands = await stand.facts()
    with suppress(PermanentError):  # refused, or the same thing again: either will do
        await stand.target.apply(ref, operation, intent)
    await until(lambda: stand.target.settled(ref, operation))
    assert await stand.facts() == stands, "a request that comes twice takes effect once"
    assert await stand.target.find(ref, operation, intent) is Finding.APPLIED


async def test_rollback(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    action, before = await stand.action(state), await stand.facts()
    back = undo(action, stood_before(state))
    assert is_reversible(action) is stand.target.declares().reverses(action.kind)
    if back is None:
        assert not is_reversible(action), "what can be undone has an undoing"
        return
    await _carried_out(stand, ref, operation, intent_for(state))
    (undoing,) = operations(back)
    await _carried_out(stand, ref, undoing, intent_for(await stand.target.observe(ref)))
    assert await stand.has_been_put_back(before)


async def test_conflict(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    intent = intent_for(state)
    await stand.change_by_another()
    changed, written = await stand.facts(), stand.writes()
    with pytest.raises(PreconditionFailed):
        await stand.target.apply(ref, operation, intent)
    assert await stand.facts() == changed
    assert stand.writes() - written <= 1


async def test_not_found(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    with pytest.raises(PermanentError):
        await stand.target.resolve(stand.nowhere())
    former = await stand.former(ref)
    with pytest.raises(PreconditionFailed):
        await stand.target.observe(former)
    standing, written = await stand.facts(), stand.writes()
    with pytest.raises(PermanentError):
        await stand.target.apply(former, operation, intent_for(state))
    assert await stand.target.find(former, operation, intent_for(state)) is Finding.UNKNOWN
    assert await stand.facts() == standing
    assert stand.writes() == written


async def test_denied(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    before = await stand.facts()
    await stand.deny()
    with pytest.raises(PermanentError) as caught:
        await stand.target.apply(ref, operation, intent_for(state))
    assert not isinstance(caught.value, PreconditionFailed), "what is denied has not changed meanwhile"
    assert await stand.facts() == before


async def test_throttled(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    before, written = await stand.facts(), stand.writes()
    await stand.throttle()
    with pytest.raises(TemporaryError):
        await stand.target.apply(ref, operation, intent_for(state))
    assert await stand.facts() == before
    assert stand.writes() - written <= 1, "nobody but the runner tries again"


async def test_applied_then_reset(stand: Stand) -> None:
    ref, state, operation = await _planned(stand)
    before, written, intent = await stand.facts(), stand.writes(), intent_for(state)
    target = stand.another()
    await stand.lose_answer()
    with pytest.raises(OutcomeUnknown):
        await as_soon_as_readable(lambda: target.apply(ref, operation, intent))
    found = stand.another()
    assert await as_soon_as_readable(lambda: found.find(ref, operation, intent)) is Finding.APPLIED
    await until(lambda: found.settled(ref, operation))
    assert await stand.facts() != before
    assert stand.writes() - written == 1
