"""Branches of git repositories, over whatever git speaks: a commit is taken back by a push of our own."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from executors.targets.git_clone import Clone, NoBranch
from executors.targets.git_process import Git
from executors.targets.git_trailers import LoggedCommit, bears, our_revert, revert_message, stands
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import Action, ManualAction, Operation, RevertAction, RevertCommit
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import Revision, TargetRef, TargetState
from pipeline.ports.targets import Target

_SHOWN = 50
"""Commits of a branch that are told of as revisions."""
_LOOKED_THROUGH = 1000
"""Commits in which a revert of ours is looked for."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class GitTarget(Target):
    """Branches of the listed repositories (name to URL or path); everything else is refused before anything is sent.

    A repository is the namespace, its branch the name; ``uid`` is the commit that its history begins with, and
    ``generation`` its head. Commits are made by ``author`` (``Name <address>``) in clones of our own under ``work_dir``
    and pushed with a lease on the head that was seen, so that whatever comes in between makes the remote refuse them.
    ``token`` is the password where a remote asks for one over HTTPS. Raises ConfigurationError.
    """

    def __init__(
        self,
        repositories: Mapping[str, str],
        *,
        work_dir: Path,
        author: str = "sre-bot <sre-bot@localhost>",
        username: str = "git",
        token: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        urls = {name: _checked(name, url, token) for name, url in repositories.items()}
        git = Git(
            work_dir,
            author=author,
            username=username,
            token=token,
            local=sorted(
                {path for url in urls.values() if url.startswith("/") for path in (url, os.path.realpath(url))}
            ),
            timeout_s=timeout_s,
        )
        self._clones = {
            name: Clone(git, url, work_dir / f"{name}.git", patience_s=2 * timeout_s) for name, url in urls.items()
        }
        # Killed with its children a push sends nothing more, but what it sent may still be worked on over there.
        self._flight_s = 2 * timeout_s

    @property
    def platform(self) -> str:
        return "git"

    def declares(self) -> Declaration:
        return Declaration(
            offers=(
                Offer("revert", True, ("push to the branch",), "a lease on the branch's head (--force-with-lease)"),
            ),
            observes=("the branch's head", "its last commits", "trailers of the bot's own commits"),
            reads=("fetch the branch",),
            privileges="gitops-privileges.md",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        clone = self._clone(ref.namespace)
        async with clone.held():
            head = await self._head(clone, ref)
            read = RightCheck("fetch the branch", True, f"fetched {head[:12]}")
            return read, await _may_push(clone, ref.name, head)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        clone = self._clone(address.namespace)
        async with clone.held():
            uid = await clone.root(await clone.fetch(address.name))
        return TargetRef(platform="git", namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        clone = self._clone(ref.namespace)
        async with clone.held():
            head = await self._head(clone, ref)
            commits = await clone.log(head, _SHOWN)
        return TargetState(
            ref=ref,
            generation=head,
            revision=head,
            rollout=head,
            revisions=tuple(Revision(one.sha, one.title, one.at) for one in commits),
            refuses={"revert": "the branch has one commit only"} if not commits[0].parents else {},
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        clone = self._clone(ref.namespace)
        async with clone.held():
            sha, title = await self._prepared(clone, ref, _revert(operation), intent.generation, intent)
            try:
                await clone.push(ref.name, sha, intent.generation)
            except PreconditionFailed:
                if not await self._has_arrived(clone, ref, sha):
                    raise
        return f"pushed {sha[:12]} “{title}” to {ref.describe()}"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        clone = self._clone(ref.namespace)
        async with clone.held():
            commits = await clone.log(await self._head(clone, ref), _LOOKED_THROUGH)
            commit = await _meant(clone, ref, _revert(operation), commits)
        title = revert_message(commit, reapply=_revert(operation).reapply, intent=None).partition("\n")[0]
        branch = f"refs/heads/{ref.name}"
        return (
            f"git push --force-with-lease={branch}:{generation} {clone.url} <{title}>:{branch}"
            f" only while {ref.describe()} is at {generation}",
        )

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        clone = self._clone(ref.namespace)
        async with clone.held():
            sha, _ = await self._prepared(clone, ref, _revert(operation), generation, None)
            await clone.push(ref.name, sha, generation, rehearsed=True)
        return "it reverts without a conflict, and the remote answers the push (git push --dry-run)"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        revert = _revert(operation)
        clone = self._clone(ref.namespace)
        async with clone.held():
            commits = await clone.log(await self._head(clone, ref), _LOOKED_THROUGH)
        return stands(commits, revert.commit, reapply=revert.reapply)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a push, by the branch itself; takes up to twice the time-out of a call.

        Our commit bears execution and step, and follows on the commit that was the head at the time: APPLIED. Without
        it, NOT_APPLIED once that head has been followed by others, for then the lease makes the remote refuse ours;
        with the head unmoved, once no push can be under way any more. UNKNOWN when the branch is gone, was begun anew,
        or was rewritten so that the head of that time is not part of it: ours may have been thrown away with it.
        """
        _revert(operation)
        return await wait_out(lambda: self._look(ref, intent), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        match action:
            case RevertAction(commit=commit, reapply=reapply):
                url = shlex.quote(self._clone(ref.namespace).url)
                ours = f"\"$(git log -1 --format=%H --grep 'This reverts commit {commit}' FETCH_HEAD)\""
                return (
                    f"git fetch {url} {ref.name} && git checkout --detach FETCH_HEAD"
                    f" && git revert --no-edit {ours if reapply else commit}"
                    f" && git push {url} HEAD:refs/heads/{ref.name}"
                )
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("git", action)

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _prepared(
        self, clone: Clone, ref: TargetRef, revert: RevertCommit, generation: str, intent: Intent | None
    ) -> tuple[str, str]:
        """The commit to push, and its title; it is made here and nowhere else."""
        head = await self._head(clone, ref)
        if head != generation:
            raise PreconditionFailed(f"{ref.describe()} has changed: it is at {head}, not {generation}")
        commits = await clone.log(head, _LOOKED_THROUGH)
        commit = await _meant(clone, ref, revert, commits)
        message = revert_message(commit, reapply=revert.reapply, intent=intent)
        tree = await clone.reverted(head, commit)
        return await clone.commit(tree, head, message), message.partition("\n")[0]

    async def _has_arrived(self, clone: Clone, ref: TargetRef, sha: str) -> bool:
        """What carried a refused push may have sent it twice: then the second one came too late for the first."""
        try:
            return await clone.holds(await self._head(clone, ref), sha)
        except TemporaryError as error:
            raise OutcomeUnknown(f"{sha} was refused by {ref.describe()}, perhaps for it is there: {error}") from error

    async def _look(self, ref: TargetRef, intent: Intent) -> Finding | None:
        clone = self._clone(ref.namespace)
        async with clone.held():
            try:
                head = await self._head(clone, ref)
            except PreconditionFailed:
                return Finding.UNKNOWN
            commits = await clone.log(head, _LOOKED_THROUGH)
            if any(bears(one.message, intent) and intent.generation in one.parents for one in commits):
                return Finding.APPLIED
            if head == intent.generation:
                return None
            return Finding.NOT_APPLIED if await clone.holds(head, intent.generation) else Finding.UNKNOWN

    async def _head(self, clone: Clone, ref: TargetRef) -> str:
        """Raises PreconditionFailed when the branch is gone, or begins with another commit than ``ref`` means."""
        try:
            head = await clone.fetch(ref.name)
        except NoBranch as error:
            raise PreconditionFailed(f"{ref.describe()} is gone: {error}") from error
        if (root := await clone.root(head)) != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} has another history: it begins with {root}, not {ref.uid}")
        return head

    def _clone(self, name: str) -> Clone:
        if (clone := self._clones.get(name)) is not None:
            return clone
        allowed = ", ".join(sorted(self._clones)) or "none"
        raise PermanentError(f"the repository {name} is not one that the bot may touch (allowed: {allowed})")


async def _meant(clone: Clone, ref: TargetRef, revert: RevertCommit, commits: tuple[LoggedCommit, ...]) -> LoggedCommit:
    """The commit to take back. Raises PermanentError when it is not on the branch."""
    if revert.reapply:
        ours = our_revert(commits, revert.commit)
        if ours is None:
            raise PermanentError(f"there is no revert of {revert.commit} by the bot on {ref.describe()}")
        return ours
    if (listed := next((one for one in commits if one.sha == revert.commit), None)) is not None:
        return listed
    if not await clone.holds(commits[0].sha, revert.commit):
        raise PermanentError(f"the commit {revert.commit} is not on {ref.describe()}")
    return (await clone.log(revert.commit, 1))[0]


async def _may_push(clone: Clone, branch: str, head: str) -> RightCheck:
    right = "push to the branch"
    if clone.url.startswith("/"):
        held = any(os.access(f"{clone.url}/{refs}", os.W_OK) for refs in ("refs/heads", ".git/refs/heads"))
        return RightCheck(right, held, f"its refs can {'' if held else 'not '}be written to; hooks are not asked")
    try:
        await clone.push(branch, head, head, rehearsed=True)
    except PreconditionFailed as error:
        return RightCheck(right, None, f"the branch moved meanwhile: {error}")
    except PermanentError as error:
        return RightCheck(right, False, str(error))
    except TemporaryError as error:
        return RightCheck(right, None, str(error))
    return RightCheck(right, True, "the remote opens the branch for a push; its hooks are asked by a real one only")


def _revert(operation: Operation) -> RevertCommit:
    match operation:
        case RevertCommit():
            return operation
        case _:
            raise not_offered("git", operation)


def _checked(name: str, url: str, token: str) -> str:
    """The URL as git takes it. Raises ConfigurationError."""
    if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,100}[A-Za-z0-9])?", name):
        raise ConfigurationError(f"a repository's name is of letters, digits, dashes and dots, not {name!r}")
    if url.startswith("/"):
        return url.rstrip("/")
    if re.fullmatch(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^\s:]+", url):
        return url
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return parts.path.rstrip("/")
    if parts.scheme not in ("http", "https", "ssh") or not parts.hostname or re.search(r"\s", url):
        raise ConfigurationError(f"the repository {name} needs a path or an http, https or ssh URL, not {url!r}")
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise ConfigurationError(f"the URL of {name} holds credentials; set SRE_GIT_TOKEN instead")
    if token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigurationError(f"the URL of {name} would send the token unencrypted; use https")
    return url
