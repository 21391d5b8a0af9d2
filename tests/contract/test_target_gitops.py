"""What the contract of targets does not ask of git, GitHub and Argo CD: bad input, refusals, and where each stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executors.targets.argocd import ArgoCdTarget
from executors.targets.git import GitTarget
from executors.targets.git_trees import Entry, taken_back
from pipeline.domain.action import RevertCommit, RollBackTo, ScaleTo, SyncTo
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding
from pipeline.domain.plan import TargetRef
from tests.argocd_server import FIRST, NEXT, SECOND
from tests.contract.targets.places import BRIEF_S, as_soon_as_readable, intent_for, until
from tests.contract.targets.stand_argocd import ArgoStand, open_argocd
from tests.contract.targets.stand_git import GitStand, open_git
from tests.contract.targets.stand_github import GitHubStand, open_github
from tests.faults import Answer, Fault, Proxy, Request
from tests.git_server import Repository, git

NOBODY = "0" * 40


@pytest.fixture
async def on_git() -> AsyncIterator[GitStand]:
    async with open_git() as stand:
        yield stand


@pytest.fixture
async def on_github() -> AsyncIterator[GitHubStand]:
    async with open_github() as stand:
        yield stand


@pytest.fixture
async def on_argo() -> AsyncIterator[ArgoStand]:
    async with open_argocd() as stand:
        yield stand


async def _ref(stand: GitStand | GitHubStand | ArgoStand) -> TargetRef:
    return await stand.target.resolve(stand.address)


# git


async def test_git_reverts_in_a_work_tree_of_this_machine(tmp_path: Path) -> None:
    """As the demo's: not bare, read from its files, and nobody pulls."""
    origin = Repository(tmp_path / "origin.git")
    live = tmp_path / "live"
    git(tmp_path, "clone", "--quiet", str(origin.folder), str(live))
    git(live, "config", "receive.denyCurrentBranch", "updateInstead")
    target = GitTarget({"live": str(live)}, work_dir=tmp_path / "work", author="Bot <bot@example.com>")
    safe = git(tmp_path, "config", "--file", "work/gitconfig", "--get-all", "safe.directory").splitlines()
    assert {str(live), f"{live}/.git"} <= set(safe), "it may belong to another user"
    ref = await target.resolve(WorkloadAddress(platform="git", namespace="live", name="main"))
    state, operation = await target.observe(ref), RevertCommit(commit=origin.bad)
    assert [one.title for one in state.revisions] == ["lower the pool", "more replicas", "begin"]
    assert await target.rehearse(ref, operation, state.generation)
    assert (live / "app.toml").read_text() == "pool = 1\nreplicas = 3\n"
    intent = intent_for(state)
    await target.apply(ref, operation, intent)
    assert (live / "app.toml").read_text() == "pool = 10\nreplicas = 3\n"
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    said = git(live, "log", "-1", "--format=%an <%ae>%n%B").splitlines()
    assert said[:4] == ["Bot <bot@example.com>", 'Revert "lower the pool"', "", f"This reverts commit {origin.bad}."]
    assert f"Sre-Bot-Execution: {intent.execution_id}" in said
    assert f"Sre-Bot-Fence: {intent.fence}" in said
    again = RevertCommit(commit=origin.bad, reapply=True)
    await target.apply(ref, again, intent_for(await target.observe(ref)))
    assert (live / "app.toml").read_text() == "pool = 1\nreplicas = 3\n"
    assert git(live, "log", "-1", "--format=%s") == 'Reapply "lower the pool"'


async def test_git_does_not_overwrite_what_somebody_edits_in_the_work_tree(tmp_path: Path) -> None:
    origin = Repository(tmp_path / "origin.git")
    live = tmp_path / "live"
    git(tmp_path, "clone", "--quiet", str(origin.folder), str(live))
    git(live, "config", "receive.denyCurrentBranch", "updateInstead")
    (live / "app.toml").write_text("pool = 7\n")
    target = GitTarget({"live": str(live)}, work_dir=tmp_path / "work")
    ref = await target.resolve(WorkloadAddress(platform="git", namespace="live", name="main"))
    with pytest.raises(PermanentError, match="unstaged changes"):
        await target.apply(ref, RevertCommit(commit=origin.bad), intent_for(await target.observe(ref)))
    assert git(live, "rev-parse", "HEAD") == origin.bad


async def test_git_refuses_what_it_would_have_to_guess(on_git: GitStand) -> None:
    repository, target, ref = on_git.server.repository, on_git.target, await _ref(on_git)
    side = repository.commit("on the side", {"SIDE": "1\n"}, branch="side")
    merge = repository.commit("merge", {}, onto=[repository.head, side])
    conflicting = repository.commit("another pool", {"app.toml": "pool = 2\nreplicas = 3\n"})
    stray = repository.commit("elsewhere", {"STRAY": "1\n"}, branch="stray")
    state = await target.observe(ref)
    for commit, why in (
        (repository.bad, r"CONFLICT \(content\).*app\.toml"),
        (merge, "is a merge"),
        (repository.first, "is the first commit"),
        (stray, "is not on shop/main"),
        (NOBODY, "is not on shop/main"),
    ):
        with pytest.raises(PermanentError, match=why):
            await target.apply(ref, RevertCommit(commit=commit), intent_for(state))
        with pytest.raises(PermanentError, match=why):
            await target.rehearse(ref, RevertCommit(commit=commit), state.generation)
    with pytest.raises(PermanentError, match="no revert of"):
        await target.apply(ref, RevertCommit(commit=conflicting, reapply=True), intent_for(state))
    assert on_git.writes() == 0
    await target.apply(ref, RevertCommit(commit=conflicting), intent_for(state))
    with pytest.raises(PermanentError, match="reverted already"):
        await target.apply(ref, RevertCommit(commit=conflicting), intent_for(await target.observe(ref)))
    with pytest.raises(PermanentError, match="no scale to"):
        await target.apply(ref, ScaleTo(replicas=2), intent_for(state))


async def test_git_tells_what_a_protected_branch_says(on_git: GitStand) -> None:
    target, ref = on_git.target, await _ref(on_git)
    on_git.server.repository.protect()
    with pytest.raises(PermanentError, match=r"pre-receive hook declined.*GH006: Protected branch"):
        await target.apply(
            ref, RevertCommit(commit=on_git.server.repository.bad), intent_for(await target.observe(ref))
        )
    assert on_git.server.repository.head == on_git.server.repository.bad


async def test_git_loses_a_race_for_the_branch(on_git: GitStand) -> None:
    """Somebody pushes while ours is on its way: the remote refuses the later one."""
    repository, target, ref = on_git.server.repository, on_git.target, await _ref(on_git)
    state, operation = await target.observe(ref), RevertCommit(commit=on_git.server.repository.bad)
    intent = intent_for(state)
    on_git.proxy.strike(Fault.HELD)
    pushing = asyncio.create_task(target.apply(ref, operation, intent))
    await on_git.proxy.held.wait()
    theirs = repository.commit("add a note", {"NOTES": "hello\n"})
    on_git.proxy.release()
    with pytest.raises(PreconditionFailed):
        await pushing
    assert repository.head == theirs
    assert await target.find(ref, operation, intent) is Finding.NOT_APPLIED


async def test_git_finds_a_push_that_nobody_answered(on_git: GitStand) -> None:
    target, ref, operation = on_git.target, await _ref(on_git), RevertCommit(commit=on_git.server.repository.bad)
    intent, impatient = intent_for(await target.observe(ref)), on_git.another()
    on_git.proxy.strike(Fault.SILENT)
    with pytest.raises(OutcomeUnknown):
        await as_soon_as_readable(lambda: impatient.apply(ref, operation, intent))
    found = await as_soon_as_readable(lambda: target.find(ref, operation, intent))
    assert found is Finding.APPLIED
    on_git.server.repository.commit("rewritten", {"NOTES": "1\n"}, onto=[on_git.server.repository.good])
    assert await target.find(ref, operation, intent) is Finding.UNKNOWN, "it may have been thrown away with the rest"


async def test_git_proves_that_nothing_was_pushed(on_git: GitStand) -> None:
    ref, operation = await _ref(on_git), RevertCommit(commit=on_git.server.repository.bad)
    intent, brief = intent_for(await on_git.target.observe(ref)), on_git.another()
    on_git.proxy.strike(Answer(503, b"away"))
    with pytest.raises(OutcomeUnknown, match="HTTP 503"):
        await as_soon_as_readable(lambda: brief.apply(ref, operation, intent))
    assert await as_soon_as_readable(lambda: brief.find(ref, operation, intent)) is Finding.NOT_APPLIED


async def test_git_tells_rights_from_trouble(on_git: GitStand) -> None:
    target, ref = on_git.target, await _ref(on_git)
    on_git.server.read_only = True
    held = {one.right: one.held for one in await target.check(ref)}
    assert held == {"fetch the branch": True, "push to the branch": False}
    with pytest.raises(PermanentError, match="does not let the bot read"):
        await on_git.connect(token="wrong").observe(ref)
    with pytest.raises(PermanentError, match="no branch nowhere"):
        await target.resolve(on_git.nowhere())
    with pytest.raises(PermanentError, match=r"not one that the bot may touch \(allowed: shop\)"):
        await target.resolve(on_git.address.model_copy(update={"namespace": "other"}))
    git(on_git.server.repository.folder, "update-ref", "-d", "refs/heads/main")
    with pytest.raises(PreconditionFailed, match="is gone"):
        await target.observe(ref)


async def test_git_that_cannot_be_reached_was_not_sent_anything(tmp_path: Path) -> None:
    target = GitTarget({"shop": "http://127.0.0.1:9/shop.git"}, work_dir=tmp_path)
    with pytest.raises(TemporaryError, match="cannot be read"):
        await target.resolve(WorkloadAddress(platform="git", namespace="shop", name="main"))
    missing = GitTarget({"shop": str(tmp_path / "none")}, work_dir=tmp_path)
    with pytest.raises(PermanentError, match="there is no repository"):
        await missing.resolve(WorkloadAddress(platform="git", namespace="shop", name="main"))


@pytest.mark.parametrize(
    ("url", "token", "why"),
    [
        ("https://bot:secret@git.example.com/shop.git", "", "holds credentials"),
        ("http://git.example.com/shop.git", "secret", "unencrypted"),
        ("ext::sh -c touch%20/tmp/x", "", "needs a path"),
        ("--upload-pack=touch", "", "needs a path"),
    ],
)
def test_git_refuses_urls_that_are_none(tmp_path: Path, url: str, token: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        GitTarget({"shop": url}, work_dir=tmp_path, token=token)


# GitHub


class _Nth(Proxy):
    """Strikes the nth write alone."""

    nth = 0

    def _fault_for(self, request: Request):  # type: ignore[no-untyped-def]
        return super()._fault_for(request) if len(self.writes) == self.nth else None


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_github_goes_on_from_where_it_was_cut_off(on_github: GitHubStand, nth: int) -> None:
    """Tree, commit, branch, pull request: none of them counts, and none is made twice where it would show."""
    server, ref, operation = (
        on_github.server,
        await _ref(on_github),
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
    server, target, ref = on_github.server, on_github.target, await _ref(on_github)
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


async def test_github_only_opens_where_a_person_merges(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.connect(merge="person"), await _ref(on_github)
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
    server, target, ref = on_github.server, on_github.target, await _ref(on_github)
    server.methods = {method}
    tree = server.repository.tree()
    for reapply in (False, True):
        operation = RevertCommit(commit=server.repository.bad, reapply=reapply)
        await target.apply(ref, operation, intent_for(await target.observe(ref)))
        assert await target.settled(ref, operation)
    assert server.repository.tree() == tree


async def test_github_refuses_what_it_would_have_to_guess(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await _ref(on_github)
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
    server, target, ref = on_github.server, on_github.target, await _ref(on_github)
    state, operation = await target.observe(ref), RevertCommit(commit=server.repository.bad)
    said = b'{"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}'
    on_github.proxy.strike(Answer(403, said, {"Retry-After": "7"}))
    with pytest.raises(TemporaryError, match="secondary rate limit") as caught:
        await target.apply(ref, operation, intent_for(state))
    assert caught.value.retry_after_s == 7
    on_github.proxy.strike(Answer(502, b'{"message": "Server Error"}'), frozenset({"PUT"}))
    with pytest.raises(OutcomeUnknown, match="502"):
        await target.apply(ref, operation, intent_for(state))
    server.read_only = True
    assert {one.right: one.held for one in await target.check(ref)}["contents: write"] is False
    server.archived = True
    assert (await target.observe(ref)).refuses == {"revert": "the repository is archived"}
    with pytest.raises(PermanentError, match="Bad credentials"):
        await on_github.connect(token="wrong").observe(ref)
    with pytest.raises(PermanentError, match="not one that the bot may touch"):
        await on_github.connect(owner="acme/other").observe(ref)


async def test_github_does_not_merge_what_somebody_closed_or_changed(on_github: GitHubStand) -> None:
    server, target, ref = on_github.server, on_github.target, await _ref(on_github)
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


# Argo CD


async def test_argocd_says_what_automated_sync_rules_out(on_argo: ArgoStand) -> None:
    target, ref = on_argo.target, await _ref(on_argo)
    on_argo.server.app["spec"]["syncPolicy"] = {"automated": {"selfHeal": True}}
    state = await target.observe(ref)
    assert "automated sync is on and holds it at main" in state.refuses["sync"]
    assert "automated sync is on" in state.refuses["roll_back"]
    with pytest.raises(PermanentError, match="rollback cannot be initiated when auto-sync is enabled"):
        await target.apply(ref, RollBackTo(revision="0"), intent_for(state))
    with pytest.raises(PermanentError, match="auto-sync currently set to main"):
        await target.apply(ref, SyncTo(revision=NEXT), intent_for(state))
    on_argo.server.app["spec"]["syncPolicy"]["automated"]["enabled"] = False
    assert not (await target.observe(ref)).refuses
    on_argo.server.app["spec"]["sources"] = [{}, {}]
    assert "several sources" in (await target.observe(ref)).refuses["sync"]


async def test_argocd_waits_for_an_operation_under_way(on_argo: ArgoStand) -> None:
    server, target, ref = on_argo.server, on_argo.target, await _ref(on_argo)
    intent = intent_for(await target.observe(ref))
    server.paused = True
    said = b'{"error": "another operation is already in progress", "code": 9}'
    on_argo.proxy.strike(Answer(400, said))
    with pytest.raises(TemporaryError, match="already in progress"):
        await target.apply(ref, SyncTo(revision=NEXT), intent)
    server.ask_by_another(FIRST)
    assert (await target.observe(ref)).refuses["sync"] == "another operation is in progress"
    with pytest.raises(TemporaryError, match="is in progress"):
        await target.apply(ref, SyncTo(revision=NEXT), intent)
    server.work()
    with pytest.raises(PreconditionFailed):
        await target.apply(ref, SyncTo(revision=NEXT), intent)
    assert await target.find(ref, SyncTo(revision=NEXT), intent) is Finding.UNKNOWN
    assert await target.find(ref, RollBackTo(revision="0"), intent) is Finding.UNKNOWN, "alice did, not we"


async def test_argocd_tells_why_a_sync_failed(on_argo: ArgoStand) -> None:
    server, target, ref = on_argo.server, on_argo.target, await _ref(on_argo)
    server.fails = "one or more objects failed to apply, reason: admission webhook denied the request"
    operation, intent = SyncTo(revision=NEXT), intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    await until(lambda: _ended(server.app))
    with pytest.raises(PermanentError, match="admission webhook denied"):
        await target.settled(ref, operation)
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    assert (await target.observe(ref)).revision == SECOND


async def _ended(app: dict[str, object]) -> bool:
    return "operation" not in app


@pytest.mark.parametrize("operation", [SyncTo(revision=NEXT), RollBackTo(revision="0")])
async def test_argocd_finds_what_the_next_operation_took_the_place_of(
    on_argo: ArgoStand, operation: SyncTo | RollBackTo
) -> None:
    server, target, ref = on_argo.server, on_argo.target, await _ref(on_argo)
    intent = intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    await until(lambda: target.settled(ref, operation))
    server.ask_by_another(SECOND)
    await until(lambda: _ended(server.app))
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    assert not await target.settled(ref, operation)


async def test_argocd_proves_that_nothing_was_asked(on_argo: ArgoStand) -> None:
    ref, operation = await _ref(on_argo), SyncTo(revision=NEXT)
    brief = on_argo.connect(timeout_s=BRIEF_S)
    intent = intent_for(await on_argo.target.observe(ref))
    on_argo.proxy.strike(Fault.LOST)
    with pytest.raises(OutcomeUnknown):
        await as_soon_as_readable(lambda: brief.apply(ref, operation, intent))
    assert await as_soon_as_readable(lambda: brief.find(ref, operation, intent)) is Finding.NOT_APPLIED


async def test_argocd_refuses_what_is_no_revision(on_argo: ArgoStand) -> None:
    target, ref = on_argo.target, await _ref(on_argo)
    state = await target.observe(ref)
    for operation, why in (
        (SyncTo(revision="main"), "whole name of a commit"),
        (RollBackTo(revision="77"), "has no entry 77"),
        (RollBackTo(revision="latest"), "has no entry latest"),
        (ScaleTo(replicas=2), "no scale to"),
    ):
        with pytest.raises(PermanentError, match=why):
            await target.apply(ref, operation, intent_for(state))
    assert "2 manifests" in await target.rehearse(ref, SyncTo(revision=NEXT), state.generation)
    with pytest.raises(PermanentError, match="unable to resolve"):
        await target.rehearse(ref, SyncTo(revision=NOBODY), state.generation)
    assert not on_argo.server.posts, "Argo CD's own dry run would be an operation"


async def test_argocd_settles_when_the_entry_has_left_the_history(on_argo: ArgoStand) -> None:
    on_argo.server.history_limit = 2
    target, ref = on_argo.target, await _ref(on_argo)
    operation, intent = RollBackTo(revision="0"), intent_for(await target.observe(ref))
    await target.apply(ref, operation, intent)
    await until(lambda: target.settled(ref, operation))
    assert [one["id"] for one in on_argo.server.history] == [1, 2]
    assert await target.find(ref, operation, intent) is Finding.APPLIED


async def test_argocd_tells_rights_and_bounds(on_argo: ArgoStand) -> None:
    target, ref = on_argo.target, await _ref(on_argo)
    on_argo.server.granted.discard("sync")
    assert [one.held for one in await target.check(ref)] == [True, False]
    with pytest.raises(PermanentError, match="not one that the bot may touch"):
        await target.resolve(on_argo.address.model_copy(update={"namespace": "other"}))
    with pytest.raises(PermanentError, match="does not accept the bot's token"):
        await on_argo.connect(token="wrong").observe(ref)
    on_argo.server.app["spec"]["project"] = "other"
    with pytest.raises(PermanentError, match="belongs to the project other"):
        await target.observe(ref)
    with pytest.raises(ConfigurationError, match="no file of certificates"):
        ArgoCdTarget("https://argo", "token", projects=["shop"], ca="/nowhere.pem")
