"""What the contract does not ask of Lambda functions: their own rules, and bad moments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.domain.action import (
    Concurrency,
    RollBackTo,
    SetConcurrency,
)
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed
from pipeline.domain.execution import Finding
from tests.contract.targets.aws_looks import found, seen
from tests.contract.targets.places import intent_for, until
from tests.contract.targets.stand_lambda import LambdaStand, lambda_stand
from tests.lambda_server import Provisioned


@pytest.fixture
async def function() -> AsyncIterator[LambdaStand]:
    async with lambda_stand("roll_back") as stand:
        yield stand


async def test_an_alias_that_moves_in_between_is_not_overwritten(function: LambdaStand) -> None:
    ref, state = await seen(function)
    intent = intent_for(state)
    alias = function.function.aliases["live"]
    function.server.before_write = lambda: alias.change(version="1")
    with pytest.raises(PreconditionFailed, match="The RevisionId provided does not match the latest RevisionId"):
        await function.target.apply(ref, RollBackTo(revision="2"), intent)
    assert alias.version == "1"
    assert await function.target.find(ref, RollBackTo(revision="2"), intent) is Finding.UNKNOWN


async def test_a_roll_back_keeps_what_a_person_wrote_and_the_latest_mark_only(function: LambdaStand) -> None:
    ref, state = await seen(function)
    assert [one.name for one in state.revisions] == ["2", "1"]
    assert (state.rollout, state.revision, state.revisions[0].title) == ("3", "sha-of-3", "release 2")
    first = intent_for(state)
    await function.target.apply(ref, RollBackTo(revision="2"), first)
    alias = function.function.aliases["live"]
    mark = f"(sre-bot execution={first.execution_id} step=1 fence={first.fence})"
    assert (alias.version, alias.description) == ("2", f"what callers name {mark}")
    second = intent_for(await function.target.observe(ref))
    await function.target.apply(ref, RollBackTo(revision="3"), second)
    assert alias.description.count("sre-bot") == 1
    assert await function.target.find(ref, RollBackTo(revision="3"), second) is Finding.APPLIED
    assert await function.target.find(ref, RollBackTo(revision="2"), first) is Finding.UNKNOWN


async def test_a_description_without_room_is_shortened(function: LambdaStand) -> None:
    function.function.aliases["live"].description = "x" * 256
    ref, state = await seen(function)
    await function.target.apply(ref, RollBackTo(revision="2"), intent_for(state))
    description = function.function.aliases["live"].description
    assert len(description) == 256
    assert description.startswith("x" * 200)
    assert description.endswith(")")


async def test_what_was_not_applied_is_told_by_the_mark_that_still_stands(function: LambdaStand) -> None:
    ref, state = await seen(function)
    await function.target.apply(ref, RollBackTo(revision="2"), intent_for(state))
    lost = intent_for(await function.target.observe(ref))
    assert await found(function, ref, RollBackTo(revision="1"), lost) is Finding.NOT_APPLIED, "nothing has moved"
    alias = function.function.aliases["live"]
    alias.change(version="3")
    assert await function.target.find(ref, RollBackTo(revision="1"), lost) is Finding.NOT_APPLIED
    alias.change(description="written anew by a deployment")
    assert await function.target.find(ref, RollBackTo(revision="1"), lost) is Finding.UNKNOWN


async def test_a_version_that_was_deleted_is_not_rolled_back_to(function: LambdaStand) -> None:
    ref, state = await seen(function)
    del function.function.versions["2"]
    with pytest.raises(PreconditionFailed, match=r"version 2 of .* was deleted or never published"):
        await function.target.apply(ref, RollBackTo(revision="2"), intent_for(state))
    assert not function.server.writes


async def test_the_oldest_version_tells_a_function_from_another_of_its_name(function: LambdaStand) -> None:
    ref, _ = await seen(function)
    del function.function.versions["1"]
    with pytest.raises(PreconditionFailed, match="was recreated, or its oldest version was deleted"):
        await function.target.observe(ref)
    del function.server.functions["checkout"]
    with pytest.raises(PreconditionFailed, match="Function not found"):
        await function.target.observe(ref)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weights": {"2": 0.1}}, "the alias live sends 10% of the calls to version 2: end that first"),
        ({"version": "$LATEST"}, "the alias live points to $LATEST, which is no version"),
    ],
)
async def test_an_alias_that_is_not_at_one_version_is_not_rolled_back(
    function: LambdaStand, change: dict[str, Any], why: str
) -> None:
    function.function.aliases["live"].change(**change)
    ref, state = await seen(function)
    assert state.refuses["roll_back"] == why
    with pytest.raises(PermanentError, match="the alias live"):
        await function.target.apply(ref, RollBackTo(revision="2"), intent_for(state))
    assert not function.server.writes


async def test_a_function_with_one_version_or_none_has_nothing_to_go_back_to(function: LambdaStand) -> None:
    function.server.add_function("checkout", versions=1)
    _, state = await seen(function)
    assert state.refuses["roll_back"] == "no version before 1 is kept"
    function.server.add_function("checkout", versions=0).aliases["live"].version = "$LATEST"
    with pytest.raises(PermanentError, match="has no published version"):
        await function.target.resolve(function.address)


async def test_versions_beyond_one_page_are_all_read(function: LambdaStand) -> None:
    function.server.add_function("checkout", versions=120)
    _, state = await seen(function)
    assert [one.name for one in state.revisions] == [str(number) for number in range(119, 0, -1)]


async def test_a_roll_back_is_settled_when_the_version_is_warm(function: LambdaStand) -> None:
    ref, state = await seen(function)
    await function.target.apply(ref, RollBackTo(revision="2"), intent_for(state))
    function.server.paused = True
    function.function.provisioned["live"] = Provisioned(5)
    assert not await function.target.settled(ref, RollBackTo(revision="2"))
    function.server.paused = False
    await until(lambda: function.target.settled(ref, RollBackTo(revision="2")))


# Lambda: concurrency


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (Concurrency(reserved=80, provisioned=5), "lambda:PutFunctionConcurrency"),
        (Concurrency(reserved=None, provisioned=5), "lambda:DeleteFunctionConcurrency"),
        (Concurrency(reserved=50, provisioned=9), "lambda:PutProvisionedConcurrencyConfig"),
        (Concurrency(reserved=50, provisioned=None), "lambda:DeleteProvisionedConcurrencyConfig"),
    ],
)
async def test_each_concurrency_is_set_and_taken_away_by_one_call(
    function: LambdaStand, wanted: Concurrency, written: str
) -> None:
    ref, state = await seen(function)
    operation, intent = SetConcurrency(concurrency=wanted), intent_for(state)
    await function.target.apply(ref, operation, intent)
    assert function.server.writes == [written]
    assert await function.target.find(ref, operation, intent) is Finding.APPLIED
    await until(lambda: function.target.settled(ref, operation))
    after = await function.target.observe(ref)
    assert after.concurrency == wanted
    assert after.generation != state.generation


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Concurrency(reserved=80, provisioned=9), "changes both numbers: propose one of them at a time"),
        (Concurrency(reserved=50, provisioned=5), "is set already"),
    ],
)
async def test_an_operation_is_one_call_or_refused(function: LambdaStand, wanted: Concurrency, why: str) -> None:
    ref, state = await seen(function)
    with pytest.raises(PermanentError, match=why):
        await function.target.apply(ref, SetConcurrency(concurrency=wanted), intent_for(state))
    assert not function.server.writes


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Concurrency(reserved=950, provisioned=5), r"UnreservedConcurrentExecution below its minimum value of \[100\]"),
        (Concurrency(reserved=50, provisioned=60), "should not be greater than the reservedConcurrentExecution"),
    ],
)
async def test_what_the_account_cannot_keep_is_refused_in_the_words_of_lambda(
    function: LambdaStand, wanted: Concurrency, words: str
) -> None:
    ref, state = await seen(function)
    before = await function.facts()
    with pytest.raises(PermanentError, match=words) as caught:
        await function.target.apply(ref, SetConcurrency(concurrency=wanted), intent_for(state))
    assert not isinstance(caught.value, PreconditionFailed)
    assert await function.facts() == before


async def test_what_cannot_be_kept_warm_is_told_in_the_words_of_lambda(function: LambdaStand) -> None:
    ref, state = await seen(function)
    wanted = SetConcurrency(concurrency=Concurrency(reserved=50, provisioned=9))
    function.server.cannot_keep_warm = "FUNCTION_ERROR_INIT_FAILURE"
    await function.target.apply(ref, wanted, intent_for(state))
    assert not await function.target.settled(ref, wanted)
    with pytest.raises(PermanentError, match=r"cannot keep 9 of .* warm: FUNCTION_ERROR_INIT_FAILURE"):
        await function.target.settled(ref, wanted)


async def test_a_concurrency_is_told_by_its_number_alone(function: LambdaStand) -> None:
    ref, state = await seen(function)
    intent = intent_for(state)
    wanted = SetConcurrency(concurrency=Concurrency(reserved=80, provisioned=5))
    function.server.fault = "fail"
    with pytest.raises(OutcomeUnknown):
        await function.target.apply(ref, wanted, intent)
    function.function.provisioned["live"] = Provisioned(7)
    assert await function.target.find(ref, wanted, intent) is Finding.APPLIED, "another set the other number"
    function.function.reserved = 60
    assert await function.target.find(ref, wanted, intent) is Finding.UNKNOWN
    function.function.reserved = 50
    assert await found(function, ref, wanted, intent) is Finding.NOT_APPLIED
