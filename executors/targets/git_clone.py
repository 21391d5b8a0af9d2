"""A clone of our own of one remote repository: commits are made in it, and nobody's work tree is touched."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from executors.targets.git_process import Git, Ran
from executors.targets.git_trailers import LoggedCommit, revertible
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

_PAUSE_S = 0.05
_FIRST_S = 120.0
"""How long the first fetch of a branch may take: all of its history comes with it, later only what is new."""
_DENIED = re.compile(
    r"Authentication failed|could not read (Username|Password)|Permission denied|Host key verification failed"
    r"|error: 40[13]\b|HTTP 40[13]\b|access denied",
    re.IGNORECASE,
)
_NO_REPOSITORY = re.compile(
    r"not appear to be a git repository|repository '[^']*' (not found|does not exist)|Repository not found"
)
_NO_BRANCH = re.compile(r"couldn't find remote ref|invalid refspec")
_NOT_SENT = re.compile(r"Could not resolve host|Failed to connect|Couldn't connect|unable to access|connect to host")
"""git names so what fails before it sends a pack: with HTTP, all that comes before the POST is ``unable to access``."""
_SENT = re.compile(r"RPC failed|send-pack: unexpected disconnect|client_loop|Read from remote host")
"""git and ssh name so what fails once the pack is on its way, whatever else they say of why."""
_REFUSED = (401, 403, 429)
"""Who answers so has not looked at the pack; with any other status the remote may have taken it by then."""
_STATUS = re.compile(r"(?:error:|HTTP) (\d{3})\b")
_MOVED = re.compile(r"stale info|fetch first|non-fast-forward|cannot lock ref|incorrect old value|remote ref updated")


class NoBranch(PermanentError):
    """The remote has no such branch."""


class Clone:
    """``async with clone.held():`` nobody else works in it, in this process or another on this machine."""

    def __init__(self, git: Git, url: str, folder: Path, *, patience_s: float) -> None:
        self._git = git
        self._url = url
        self._folder = folder
        self._patience_s = patience_s
        self._one = asyncio.Lock()
        self._root = ("", "")  # of which head, and what it is

    @property
    def url(self) -> str:
        return self._url

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Raises TemporaryError when another process keeps it."""
        async with self._one:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                await self._locked(lock)
                yield
            finally:
                os.close(lock)

    async def fetch(self, branch: str) -> str:
        """The branch's head now, with its history here. Raises NoBranch, PermanentError, TemporaryError."""
        mirror = f"refs/remotes/origin/{branch}"
        try:
            if not (self._folder / "HEAD").exists():
                await self._begin()
            ran = await self._fetch(branch, mirror)
            if ran.code and ".lock': File exists" in ran.err:
                # git was killed in mid-write here, and as we hold the clone nobody is at work in it.
                await self._begin()
                ran = await self._fetch(branch, mirror)
        except TimeoutError as error:
            raise TemporaryError(f"git did not answer in time for {self._url}") from error
        if ran.code:
            raise _unreadable(self._url, branch, ran)
        return (self._folder / mirror).read_text(encoding="ascii").strip()

    async def root(self, head: str) -> str:
        """The commit that the history of ``head`` begins with, by first parents."""
        if self._root[0] != head:
            self._root = (head, await self._said("rev-list", "--first-parent", "--max-parents=0", head))
        return self._root[1]

    async def log(self, head: str, count: int) -> tuple[LoggedCommit, ...]:
        """The last ``count`` commits, newest first."""
        text = await self._said("log", "-z", f"--max-count={count}", "--format=%H%x00%P%x00%ct%x00%B", head)
        parts = text.removesuffix("\0").split("\0")
        return tuple(
            LoggedCommit(sha.strip(), tuple(parents.split()), datetime.fromtimestamp(int(at_s), UTC), message)
            for sha, parents, at_s, message in zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True)
        )

    async def holds(self, head: str, sha: str) -> bool:
        """Whether ``sha`` is ``head`` or before it; not when there is no such commit here."""
        return (await self._local("merge-base", "--is-ancestor", sha, head)).code == 0

    async def reverted(self, head: str, commit: LoggedCommit) -> str:
        """The tree of ``head`` without what ``commit`` changed: the three-way merge that ``git revert`` does.

        Raises PermanentError in git's words when it conflicts, and when there is nothing left to take back.
        """
        revertible(commit)
        # A commit beside ours that has its parent's files: merged into the head, it takes the change back.
        before = await self._said("commit-tree", f"{commit.parents[0]}^{{tree}}", "-p", commit.sha, "-m", "before")
        merged = await self._local("merge-tree", "--write-tree", "--name-only", head, before)
        if merged.code == 1:
            said = [line for line in merged.out.splitlines() if line.startswith("CONFLICT")]
            raise PermanentError(
                f"{commit.sha} cannot be reverted without a person: {'; '.join(said) or merged.out.strip()}"[:500]
            )
        if merged.code:
            raise PermanentError(f"git merge-tree failed: {merged.words}")
        tree = merged.out.split("\n", 1)[0]
        if tree == await self._said("rev-parse", f"{head}^{{tree}}"):
            raise PermanentError(f"nothing of {commit.sha} is left to take back: it has been reverted already")
        return tree

    async def commit(self, tree: str, parent: str, message: str) -> str:
        return await self._said("commit-tree", tree, "-p", parent, "-F", "-", fed=message)

    async def push(self, branch: str, sha: str, seen: str, *, rehearsed: bool = False) -> str:
        """Moves the branch from ``seen`` to ``sha``, or nothing. Returns what git said. Raises as ``Target.apply``."""
        try:
            ran = await self._git.run(
                self._folder,
                *("push", "--porcelain", "--no-verify", *(("--dry-run",) if rehearsed else ())),
                *(f"--force-with-lease=refs/heads/{branch}:{seen}", "--", self._url, f"{sha}:refs/heads/{branch}"),
            )
        except TimeoutError as error:
            why = f"git push to {self._url} was not answered in time"
            raise (TemporaryError(why) if rehearsed else OutcomeUnknown(why)) from error
        if ran.code:
            raise _refusal(self._url, branch, ran, rehearsed=rehearsed)
        return ran.words if ran.err.strip() else "ok"

    async def _locked(self, lock: int) -> None:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if clock.time() > deadline:
                    raise TemporaryError(f"another process is at work in {self._folder}") from error
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _fetch(self, branch: str, mirror: str) -> Ran:
        words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", "--", self._url)
        first = not (self._folder / mirror).exists()
        spec = f"+refs/heads/{branch}:{mirror}"
        return await self._git.run(self._folder, *words, spec, timeout_s=_FIRST_S if first else 0.0)

    async def _begin(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        ran = await self._git.run(self._folder, "init", "--quiet", "--bare", ".")
        if ran.code:
            raise PermanentError(f"there can be no clone in {self._folder}: {ran.words}")

    async def _local(self, *words: str, fed: str = "") -> Ran:
        try:
            return await self._git.run(self._folder, *words, fed=fed)
        except TimeoutError as error:
            raise TemporaryError(f"git {words[0]} took too long in {self._folder}") from error

    async def _said(self, *words: str, fed: str = "") -> str:
        ran = await self._local(*words, fed=fed)
        if ran.code:
            raise PermanentError(f"git {words[0]} failed in the clone of {self._url}: {ran.words}")
        return ran.out.strip()


def _unreadable(url: str, branch: str, ran: Ran) -> SreBotError:
    if _NO_BRANCH.search(ran.err):
        return NoBranch(f"{url} has no branch {branch}")
    if _DENIED.search(ran.err):
        return PermanentError(f"{url} does not let the bot read it: {ran.words}")
    if _NO_REPOSITORY.search(ran.err):
        return PermanentError(f"there is no repository at {url}: {ran.words}")
    return TemporaryError(f"{url} cannot be read: {ran.words}")


def _refusal(url: str, branch: str, ran: Ran, *, rehearsed: bool) -> SreBotError:
    what = f"the push to {branch} of {url}"
    line = next((line for line in ran.out.splitlines() if line.startswith("!")), "")
    said = line.rpartition("\t")[2]
    if said and not said.startswith("[remote failure]"):
        # Why a ref was not moved stands in the remote's words, unless a hook declined it, which may say anything.
        if _MOVED.search(said if "declined" in said else f"{said} {ran.err}"):
            return PreconditionFailed(f"{what} was refused, for the branch has moved: {said}")
        return PermanentError(f"{what} was refused: {said}; {ran.words}")
    # No hook runs in a rehearsal: what the remote says then is whether it lets the bot in.
    told = ran.err if rehearsed else ran.own
    status = _STATUS.search(told)
    code = int(status.group(1)) if status else 0
    if (said or _SENT.search(told)) and code not in _REFUSED:
        if rehearsed:
            return TemporaryError(f"{what} could not be rehearsed: {ran.words}")
        return OutcomeUnknown(f"{what} was sent and not answered: {ran.words}")
    if code in (408, 429) or (_NOT_SENT.search(told) and not 400 <= code < 500 and not _DENIED.search(told)):
        return TemporaryError(f"{what} came to nothing: {ran.words}")
    if 400 <= code < 500 or _DENIED.search(told) or _NO_REPOSITORY.search(told):
        return PermanentError(f"{what} is not allowed to the bot: {ran.words}")
    if rehearsed:
        return TemporaryError(f"{what} could not be rehearsed: {ran.words}")
    return OutcomeUnknown(f"{what} was sent and not answered: {ran.words}")
