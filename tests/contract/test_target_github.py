"""What the contract of targets does not ask of GitHub: cut off half-way, reviews and checks, limits, conflicts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from executors.targets.git_trees import Entry, taken_back
from pipeline.domain.action import RevertCommit
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.execution import Finding
from tests.contract.targets.places import intent_for
from tests.contract.targets.stand_github import GitHubStand, open_github
from tests.faults import Answer, Fault, Proxy, Request

NOBODY = "0" * 40


@pytest.fixture
async def on_github() -> AsyncIterator[GitHubStand]:
    async with open_github() as stand:
        yield stand


class _Nth(Proxy):
    """Strikes the nth write alone."""

    nth = 0

    def _fault_for(self, request: Request):  # type: ignore[no-untyped-def]
        return super()._fault_for(request) if len(self.writes) == self.nth else None


@pytest.mark.parametrize("nth", [1, 3, 4])
async def test_github_goes_on_from_where_it_was_cut_off(on_github: GitHubStand, nth: int) -> None:
    """Tree, branch, pull request: none of them counts, and none is made twice where it would show."""
    server, ref, operation = (
        on_github.server,
        await on_github.target.resolve(on_github.address),
        RevertCommit(commit=on_github.server.repository.bad),
    )
    intent = intent_for(await on_github.target.observe(ref))
    async with _Nth(server.url) as proxy:
        proxy.nth = nth
        proxy.strike(Fault.CUT, frozenset({"POST"}))
        on_github.proxy.url = proxy.url
        target = on_github.connect()
        with pytest.raises(TemporaryError, match="nothing is merged"):
            await target.apply(ref, operation, intent)
        assert server.repository.head == server.repository.bad
        await target.apply(ref, operation, intent)
    assert [(pull.state, pull.merged_at is not None) for pull in server.pulls] == [("closed", True)]
    assert len(server.branches) == 2
    assert server.repository.files()["app.toml"] == "pool = 10\nreplicas = 3"


async def test_github_leaves_to_a_person_what_it_may_not_merge(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    operation, intent = RevertCommit(commit=server.repository.bad), intent_for(await target.observe(ref))
    server.merge_refusal, server.checks = 'Required status check "ci" is expected.', {"ci": "in_progress"}
    with pytest.raises(TemporaryError, match="waits for ci") as caught:
        await target.apply(ref, operation, intent)
    assert caught.value.retry_after_s
    server.checks = {"ci": "completed"}
    server.merge_refusal = "At least 1 approving review is required by reviewers with write access."
    with pytest.raises(PermanentError, match=r"github\.com/acme/shop/pull/1, which a person can: At least 1 approving"):
        await target.apply(ref, operation, intent)
    assert not await target.settled(ref, operation)
    server.merge_refusal, server.finds_out_later, server.pulls[0].looked_at = "", True, False
    assert "pull/1" in await target.apply(ref, operation, intent)
    assert len(server.pulls) == 1
    assert await target.settled(ref, operation)


@pytest.mark.parametrize(
    "said",
    [
        'Required status check "ci" is expected.',
        "Repository rule violations found\n\n2 of 2 required status checks are pending.",
        'Required status check "ci" is in progress.',
        "Base branch was modified. Review and try the merge again.",
    ],
)
async def test_github_waits_for_what_has_not_begun(on_github: GitHubStand, said: str) -> None:
    """In the first seconds there is no run of a check to be seen."""
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    operation, intent = RevertCommit(commit=server.repository.bad), intent_for(await target.observe(ref))
    server.merge_refusal = said
    with pytest.raises(TemporaryError, match=r"pull/1 waits for GitHub") as caught:
        await target.apply(ref, operation, intent)
    assert caught.value.retry_after_s
    server.merge_refusal = 'Required status check "ci" is failing.'
    with pytest.raises(PermanentError, match="is failing"):
        await target.apply(ref, operation, intent)
    server.merge_refusal = ""
    await target.apply(ref, operation, intent)
    assert await target.settled(ref, operation)


async def test_github_takes_any_name_of_a_branch(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    server.default_branch = "v1+2&sha=main#%23/é"
    server.repository.commit("elsewhere", {"HERE": "1\n"}, branch=server.default_branch, onto=[server.repository.bad])
    server.repository.commit("on main", {"THERE": "1\n"})
    operation = RevertCommit(commit=server.repository.at(server.default_branch))
    await target.apply(ref, operation, intent_for(await target.observe(ref)))
    assert await target.settled(ref, operation)
    assert "HERE" not in server.repository.files(server.default_branch)
    assert all(one.held is not False for one in await target.check(ref))


async def test_github_only_opens_where_a_person_merges(on_github: GitHubStand) -> None:
    server, target, ref = (
        on_github.server,
        on_github.connect(merge="person"),
        await on_github.target.resolve(on_github.address),
    )
    operation, intent = RevertCommit(commit=server.repository.bad), intent_for(await target.observe(ref))
    assert len(await target.calls(ref, operation, intent.generation)) == 4
    assert "a person has to merge it" in await target.apply(ref, operation, intent)
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    assert not await target.settled(ref, operation)
    assert str(intent.execution_id) in server.pulls[0].body
    await on_github.connect().apply(ref, operation, intent)
    assert await target.settled(ref, operation)


@pytest.mark.parametrize("method", ["merge", "rebase"])
async def test_github_merges_as_the_repository_allows(on_github: GitHubStand, method: str) -> None:
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    server.methods = {method}
    tree = server.repository.tree()
    for reapply in (False, True):
        operation = RevertCommit(commit=server.repository.bad, reapply=reapply)
        await target.apply(ref, operation, intent_for(await target.observe(ref)))
        assert await target.settled(ref, operation)
    assert server.repository.tree() == tree


async def test_github_refuses_what_it_would_have_to_guess(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    repository = server.repository
    side = repository.commit("on the side", {"SIDE": "1\n"}, branch="side")
    merge = repository.commit("merge", {}, onto=[repository.head, side])
    repository.commit("more replicas still", {"app.toml": "pool = 1\nreplicas = 30\n"})
    stray = repository.commit("elsewhere", {"STRAY": "1\n"}, branch="stray")
    state = await target.observe(ref)
    for commit, why in (
        (repository.bad, "changed again since are app.toml"),
        (merge, "is a merge"),
        (repository.first, "is the first commit"),
        (stray, "is not on main"),
        (NOBODY, "is not on main"),
    ):
        with pytest.raises(PermanentError, match=why):
            await target.rehearse(ref, RevertCommit(commit=commit), state.generation)
    server.truncated = True
    with pytest.raises(PermanentError, match="more files than"):
        await target.apply(ref, RevertCommit(commit=repository.head), intent_for(state))
    assert not on_github.proxy.writes


async def test_github_tells_rights_from_limits(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    state, operation = await target.observe(ref), RevertCommit(commit=server.repository.bad)
    said = b'{"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}'
    on_github.proxy.strike(Answer(403, said, {"Retry-After": "7"}))
    with pytest.raises(TemporaryError, match="secondary rate limit") as caught:
        await target.apply(ref, operation, intent_for(state))
    assert caught.value.retry_after_s == 7
    for status in (408, 502):
        on_github.proxy.strike(Answer(status, b'{"message": "Server Error"}'), frozenset({"PUT"}))
        with pytest.raises(OutcomeUnknown, match=f"answered {status}"):
            await target.apply(ref, operation, intent_for(state))
    on_github.proxy.strike(Answer(408, b'{"message": "Request Timeout"}'), frozenset({"GET"}))
    with pytest.raises(TemporaryError, match="Request Timeout"):
        await target.observe(ref)
    server.read_only = True
    assert {one.right: one.held for one in await target.check(ref)}["contents: write"] is False
    server.archived = True
    assert (await target.observe(ref)).refuses == {"revert": "the repository is archived"}
    with pytest.raises(PermanentError, match="Bad credentials"):
        await on_github.connect(token="wrong").observe(ref)
    with pytest.raises(PermanentError, match="not one that the bot may touch"):
        await on_github.connect(owner="acme/other").observe(ref)


async def test_github_does_not_merge_what_somebody_closed_or_changed(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await on_github.target.resolve(on_github.address)
    operation, intent = RevertCommit(commit=server.repository.bad), intent_for(await target.observe(ref))
    server.merge_refusal = "not yet"
    with pytest.raises(PermanentError):
        await target.apply(ref, operation, intent)
    server.pulls[0].state, server.merge_refusal = "closed", ""
    with pytest.raises(PermanentError, match="somebody closed"):
        await target.apply(ref, operation, intent)
    assert await target.find(ref, operation, intent) is Finding.NOT_APPLIED
    assert server.repository.head == server.repository.bad


_A, _B, _C = (Entry("100644", "blob", name * 40) for name in "abc")


@pytest.mark.parametrize(
    ("before", "after", "head", "change"),
    [
        ({"x": _A}, {"x": _B}, {"x": _B, "y": _C}, {"x": _A}),
        ({}, {"x": _A}, {"x": _A, "y": _C}, {"x": None}),
        ({"x": _A}, {}, {"y": _C}, {"x": _A}),
        ({"x": _A, "y": _A}, {"x": _B, "y": _B}, {"x": _A, "y": _B}, {"y": _A}),
        ({"x": _A}, {"x/y": _A}, {"x/y": _A}, {"x": _A, "x/y": None}),
    ],
)
def test_files_are_taken_back_whole(
    before: dict[str, Entry], after: dict[str, Entry], head: dict[str, Entry], change: dict[str, Entry | None]
) -> None:
    assert taken_back(before, after, head) == change


@pytest.mark.parametrize(
    ("before", "after", "head", "why"),
    [
        ({"x": _A}, {"x": _B}, {"x": _C}, "changed again since are x"),
        ({"x": _A}, {"x": _B}, {"x": _A}, "reverted already"),
        ({"x": _A}, {"x": _B}, {}, "changed again since are x"),
        ({"x": _A}, {}, {"x/y": _C}, "changed again since are x"),
        ({"x/y": _A}, {}, {"x": _C}, "changed again since are x/y"),
    ],
)
def test_files_that_changed_again_conflict(
    before: dict[str, Entry], after: dict[str, Entry], head: dict[str, Entry], why: str
) -> None:
    with pytest.raises(PermanentError, match=why):
        taken_back(before, after, head)
