"""What the contract of targets does not ask of git: bad input, refusals, races, and where each stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executors.targets.git import GitTarget
from executors.targets.git_clone import Clone
from executors.targets.git_process import Git, Ran
from pipeline.domain.action import RevertCommit, ScaleTo
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding
from tests.contract.targets.places import BRIEF_S, as_soon_as_readable, intent_for
from tests.contract.targets.stand_git import GitStand, open_git
from tests.faults import Answer, Fault
from tests.git_server import TOKEN, USERNAME, GitServer, Repository, git

NOBODY = "0" * 40


@pytest.fixture
async def on_git() -> AsyncIterator[GitStand]:
    async with open_git() as stand:
        yield stand


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
    repository, target, ref = on_git.server.repository, on_git.target, await on_git.target.resolve(on_git.address)
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
    target, ref = on_git.target, await on_git.target.resolve(on_git.address)
    on_git.server.repository.protect()
    with pytest.raises(PermanentError, match=r"pre-receive hook declined.*GH006: Protected branch"):
        await target.apply(
            ref, RevertCommit(commit=on_git.server.repository.bad), intent_for(await target.observe(ref))
        )
    assert on_git.server.repository.head == on_git.server.repository.bad


async def test_git_does_not_take_a_hooks_trouble_for_its_own(tmp_path: Path) -> None:
    """The push went through, and all that came back of it is what the hook said."""
    async with GitServer(tmp_path / "served") as server:
        url = {"shop": f"{server.url}/shop.git"}
        target = GitTarget(url, work_dir=tmp_path / "work", username=USERNAME, token=TOKEN, timeout_s=20.0)
        await _told_by_the_hook_alone(server, target)


async def _told_by_the_hook_alone(server: GitServer, target: GitTarget) -> None:
    repository, ref = server.repository, await target.resolve(GitStand.address)
    state, operation = await target.observe(ref), RevertCommit(commit=repository.bad)
    repository.complain()
    server.unreported = True
    intent = intent_for(state)
    with pytest.raises(OutcomeUnknown, match=r"Failed to connect.*Permission denied"):
        await target.apply(ref, operation, intent)
    assert repository.head != repository.bad
    assert await target.find(ref, operation, intent) is Finding.APPLIED


class _Said(Git):
    """A push that ends with these words."""

    def __init__(self, err: str, out: str = "") -> None:
        self._ran = Ran(1, out, err)

    async def run(self, folder: Path, *words: str, fed: str = "", timeout_s: float = 0.0) -> Ran:
        return self._ran


_SENT_IN_VAIN = (
    "send-pack: unexpected disconnect while reading sideband packet\nfatal: the remote end hung up unexpectedly"
)
_REF = "To {0}\n!\t{1}:refs/heads/main\t{2}\nDone"


@pytest.mark.parametrize(
    ("err", "said", "kind"),
    [
        (f"remote: curl: (7) Failed to connect to x: Connection refused\n{_SENT_IN_VAIN}", "", OutcomeUnknown),
        (f"remote: notify.sh: Permission denied\n{_SENT_IN_VAIN}", "", OutcomeUnknown),
        ("remote: notify.sh:\x0cPermission denied\nfatal: the remote end hung up unexpectedly", "", OutcomeUnknown),
        ("remote: The requested URL returned error: 403\rremote: 403\nfatal: early EOF", "", OutcomeUnknown),
        ("remote: Failed to connect to x", "[remote failure] (remote failed to report status)", OutcomeUnknown),
        ("error: RPC failed; HTTP 408 curl 22 The requested URL returned error: 408", "", OutcomeUnknown),
        ("error: RPC failed; HTTP 460 curl 22 The requested URL returned error: 460", "", OutcomeUnknown),
        ("error: RPC failed; curl 56 Recv failure: Connection timed out", "", OutcomeUnknown),
        ("error: RPC failed; curl 7 Failed to connect to x port 443: Connection refused", "", OutcomeUnknown),
        ("Read from remote host x: Connection timed out\nfatal: Could not read from remote", "", OutcomeUnknown),
        ("client_loop: send disconnect: Broken pipe\nbash: x: Permission denied", "", OutcomeUnknown),
        ("error: RPC failed; HTTP 401 curl 22 The requested URL returned error: 401", "", PermanentError),
        ("error: RPC failed; HTTP 403 curl 22 The requested URL returned error: 403", "", PermanentError),
        ("error: RPC failed; HTTP 429 curl 22 The requested URL returned error: 429", "", TemporaryError),
        ("fatal: unable to access 'x': The requested URL returned error: 408", "", TemporaryError),
        ("ssh: connect to host x port 22: Connection timed out", "", TemporaryError),
        ("git@x: Permission denied (publickey).", "", PermanentError),
        ("remote: update: non-fast-forward", "[remote rejected] (pre-receive hook declined)", PermanentError),
        ("remote: error: RPC failed; HTTP 500", "[remote rejected] (pre-receive hook declined)", PermanentError),
        ("remote: error: cannot lock ref 'x'", "[remote rejected] (failed to update ref)", PreconditionFailed),
        ("", "[rejected] (stale info)", PreconditionFailed),
    ],
)
async def test_git_tells_what_was_sent_from_what_was_not(
    tmp_path: Path, err: str, said: str, kind: type[Exception]
) -> None:
    clone = Clone(_Said(err, _REF.format("x", NOBODY, said) if said else ""), "x", tmp_path, patience_s=1.0)
    with pytest.raises(kind) as caught:
        await clone.push("main", NOBODY, NOBODY)
    assert caught.type is kind
    assert err.partition("\n")[0].removeprefix("remote: ")[:10] in str(caught.value) or kind is PreconditionFailed


async def test_git_tells_what_the_remote_says_of_access_in_a_rehearsal(tmp_path: Path) -> None:
    said = "remote: ERROR: Permission denied to push code.\nfatal: Could not read from remote repository."
    with pytest.raises(PermanentError, match="Permission denied to push code"):
        await Clone(_Said(said), "x", tmp_path, patience_s=1.0).push("main", NOBODY, NOBODY, rehearsed=True)
    cut = _Said("client_loop: send disconnect: Broken pipe")
    with pytest.raises(TemporaryError, match="could not be rehearsed"):
        await Clone(cut, "x", tmp_path, patience_s=1.0).push("main", NOBODY, NOBODY, rehearsed=True)


async def test_git_reverts_one_change_of_a_file_that_was_changed_again_elsewhere(on_git: GitStand) -> None:
    """git merges the file line by line, and says so."""
    repository, target, ref = on_git.server.repository, on_git.target, await on_git.target.resolve(on_git.address)
    lines = [f"line {number}\n" for number in range(12)]
    for number, said in ((None, ""), (1, "bad\n"), (10, "good\n")):
        if number is not None:
            lines[number] = said
        repository.commit(f"change {number}", {"app.toml": "".join(lines)})
    bad = git(repository.folder, "rev-parse", "main~1")
    state = await target.observe(ref)
    assert await target.rehearse(ref, RevertCommit(commit=bad), state.generation)
    await target.apply(ref, RevertCommit(commit=bad), intent_for(state))
    assert repository.files()["app.toml"].splitlines()[1::9] == ["line 1", "good"]
    later = repository.commit("change 1", {"app.toml": "".join([lines[0], "worse\n", *lines[2:]])})
    repository.commit("change 2", {"app.toml": "".join([lines[0], "other\n", *lines[2:]])})
    with pytest.raises(PermanentError, match=r"without a person: CONFLICT \(content\): Merge conflict in app\.toml"):
        await target.apply(ref, RevertCommit(commit=later), intent_for(await target.observe(ref)))


async def test_git_shares_no_connection_of_ssh(tmp_path: Path) -> None:
    process = Git(tmp_path, author="Bot <bot@example.com>", username="", token="", local=[], timeout_s=20.0)
    ran = await process.run(tmp_path, "-c", "alias.say=!printenv GIT_SSH_COMMAND", "say")
    assert ran.out.split() == ["ssh", "-oBatchMode=yes", "-oControlMaster=no", "-oControlPath=none"]


async def test_git_loses_a_race_for_the_branch(on_git: GitStand) -> None:
    """Somebody pushes while ours is on its way: the remote refuses the later one."""
    repository, target, ref = on_git.server.repository, on_git.target, await on_git.target.resolve(on_git.address)
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
    target, ref, operation = (
        on_git.target,
        await on_git.target.resolve(on_git.address),
        RevertCommit(commit=on_git.server.repository.bad),
    )
    intent, impatient = intent_for(await target.observe(ref)), on_git.connect(timeout_s=BRIEF_S)
    on_git.proxy.strike(Fault.SILENT)
    with pytest.raises(OutcomeUnknown):
        await as_soon_as_readable(lambda: impatient.apply(ref, operation, intent))
    assert await target.find(ref, operation, intent) is Finding.APPLIED
    on_git.server.repository.commit("rewritten", {"NOTES": "1\n"}, onto=[on_git.server.repository.good])
    assert await target.find(ref, operation, intent) is Finding.UNKNOWN, "it may have been thrown away with the rest"


async def test_git_proves_that_nothing_was_pushed(on_git: GitStand) -> None:
    ref, operation = await on_git.target.resolve(on_git.address), RevertCommit(commit=on_git.server.repository.bad)
    intent, brief = intent_for(await on_git.target.observe(ref)), on_git.connect(timeout_s=BRIEF_S)
    on_git.proxy.strike(Answer(503, b"away"))
    with pytest.raises(OutcomeUnknown, match="HTTP 503"):
        await on_git.target.apply(ref, operation, intent)
    assert await as_soon_as_readable(lambda: brief.find(ref, operation, intent)) is Finding.NOT_APPLIED


async def test_git_tells_rights_from_trouble(on_git: GitStand) -> None:
    target, ref = on_git.target, await on_git.target.resolve(on_git.address)
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


async def test_git_clones_are_shared_and_outlive_a_kill(on_git: GitStand) -> None:
    """Two workers of one machine have one clone, and one of them was killed while git wrote to it."""
    ref = await on_git.target.resolve(on_git.address)
    head = on_git.server.repository.commit("add a note", {"NOTES": "hello\n"})
    (clone,) = (path for path in on_git.work_dir.iterdir() if path.suffix == ".git")
    (clone / "refs/remotes/origin/main.lock").touch()
    both = await asyncio.gather(*(target.observe(ref) for target in (on_git.target, on_git.connect())))
    assert [state.generation for state in both] == [head, head]
