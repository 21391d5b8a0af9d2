"""Repositories on GitHub: a commit is taken back by a branch, a pull request, and its merge."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, TypeVar

from executors.targets.git_trailers import LoggedCommit, bears, our_revert, revert_message, revertible, stands
from executors.targets.git_trees import Entry, taken_back
from executors.targets.github_api import GitHubApi, Missing, PullRequest, Refused, Repository
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import Action, ManualAction, Operation, RevertAction, RevertCommit
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import Revision, TargetRef, TargetState
from pipeline.ports.targets import Target

_T = TypeVar("_T")
_SHOWN = 50
_LOOKED_THROUGH = 100
"""Commits in which a revert of ours is looked for: a page of GitHub's."""
_SHORT = 10
_PAUSE_S = 0.25
_CHECKS_S = 15.0
"""How long to wait before a pull request is looked at again whose checks still run."""
_PASSES = re.compile(
    r"required status checks?\b.*\b(expected|pending|in progress)|base branch was modified", re.IGNORECASE
)
"""What GitHub says of checks that it has not even begun, and while it takes in what was merged meanwhile."""

MergePolicy = Literal["auto", "person"]


@dataclass(frozen=True, slots=True)
class _Reverting:
    """What a pull request is made of. ``change`` is by path, None deletes."""

    commit: LoggedCommit
    change: dict[str, Entry | None]
    branch: str
    message: str

    @property
    def title(self) -> str:
        return self.message.partition("\n")[0]


class GitHubTarget(Target):
    """The default branches of the repositories of ``owners`` (``owner``, or ``owner/name`` for one alone).

    An owner is the namespace, a repository the name; ``uid`` is GitHub's number of it, ``generation`` the head of its
    default branch. A revert is a commit of whole files on a branch of our own, and a pull request. With ``merge``
    ``auto`` it is merged at once, and that is the one write that counts: what comes before it changes nothing that
    runs, is found again by its name, and is used again. Where GitHub does not let the bot merge, the pull request stays
    open, and the error names it. With ``person`` the pull request is what counts, and a person merges it.

    Verification rests on what runs after the merge; while nobody merges, it can but find that nothing has changed.
    """

    def __init__(
        self,
        token: str,
        *,
        owners: Collection[str],
        api_url: str = "https://api.github.com",
        merge: MergePolicy = "auto",
        timeout_s: float = 10.0,
    ) -> None:
        self._api = GitHubApi(api_url, token, timeout_s=timeout_s)
        self._owners = frozenset(owner.casefold() for owner in owners)
        self._merge = merge
        self._timeout_s = timeout_s
        # A call may still be connecting when it is given up, and then GitHub needs its time too.
        self._flight_s = 2 * timeout_s

    @property
    def platform(self) -> str:
        return "github"

    def declares(self) -> Declaration:
        guard = "the pull request's head (sha of the merge); the branch's head is compared right before"
        return Declaration(
            offers=(Offer("revert", True, ("contents: write", "pull requests: write"), guard),),
            observes=("the default branch's head", "its last commits", "the bot's own pull requests and their checks"),
            reads=("metadata: read", "contents: read", "pull requests: read", "checks: read"),
            privileges="gitops-privileges.md",
            settles_s=600.0 if self._merge == "auto" else 3600.0,
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        repository = await self._repository(ref)
        await self._api.log(repository.full_name, repository.default_branch, 1)
        push = repository.permissions.push and not repository.archived
        said = "the account may push; what of it the token was given, GitHub tells with the first write"
        if not push:
            said = "the repository is archived" if repository.archived else "the account may not push"
        unknown = "GitHub does not tell before the first pull request"
        return (
            RightCheck("contents: read", True, "the branch was read"),
            RightCheck("contents: write", push, said),
            RightCheck("pull requests: write", None, unknown),
        )

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        repository = await self._named(address.namespace, address.name)
        return TargetRef(platform="github", namespace=address.namespace, name=address.name, uid=str(repository.id))

    async def observe(self, ref: TargetRef) -> TargetState:
        repository = await self._repository(ref)
        head = await self._api.head(repository.full_name, repository.default_branch)
        commits = await self._api.log(repository.full_name, head, _SHOWN)
        return TargetState(
            ref=ref,
            generation=head,
            revision=head,
            rollout=head,
            revisions=tuple(Revision(one.sha, one.title, one.at) for one in commits),
            refuses={"revert": "the repository is archived"} if repository.archived or repository.disabled else {},
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        repository = await self._repository(ref)
        reverting = await self._reverting(repository, ref, _revert(operation), intent.generation, intent)
        pull = await self._pull(repository, reverting.branch)
        if pull is None:
            await self._branch(repository, reverting, intent)
            opening = self._api.open_pull(repository.full_name, _pull_body(repository, reverting, intent))
            pull = await (opening if self._merge == "person" else _harmless(opening))
        elif pull.state == "closed":
            raise PermanentError(f"somebody closed {pull.html_url}, so it is not merged")
        if self._merge == "person":
            return f"opened {pull.html_url} “{reverting.title}”: a person has to merge it"
        sha = await self._merged(repository, pull, reverting)
        return f"merged {pull.html_url} “{reverting.title}” as {sha[:12]}"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        repository = await self._repository(ref)
        revert = _revert(operation)
        name, base = repository.full_name, f"{self._api.url}/repos/{repository.full_name}"
        commit = await self._meant(repository, await self._api.log(name, generation, _LOOKED_THROUGH), revert)
        branch = _branch_name(revert, None)
        title = revert_message(commit, reapply=revert.reapply, intent=None).partition("\n")[0]
        merging = f'PUT {base}/pulls/<number>/merge {{"sha": "<commit>", "merge_method": "{_method(repository)}"}}'
        return (
            f"POST {base}/git/trees, the files of {generation} as they were before {commit.sha}",
            f'POST {base}/git/commits {{"message": {title!r}, "parents": ["{generation}"]}}',
            f'POST {base}/git/refs {{"ref": "refs/heads/{branch}"}} refused when there is such a branch',
            f'POST {base}/pulls {{"head": "{branch}", "base": "{repository.default_branch}"}}',
            *((f"{merging} only while {ref.describe()} is at {generation}",) if self._merge == "auto" else ()),
        )

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        repository = await self._repository(ref)
        reverting = await self._reverting(repository, ref, _revert(operation), generation, None)
        return f"no conflict: each of its {len(reverting.change)} files is as the commit left it"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        revert = _revert(operation)
        repository = await self._repository(ref)
        commits = await self._api.log(repository.full_name, repository.default_branch, _LOOKED_THROUGH)
        return stands(commits, revert.commit, reapply=revert.reapply)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of it, by the pull request from the branch that is named after execution and step; takes up to
        twice the time-out of a call.

        Merged it is APPLIED, closed without that NOT_APPLIED. Open or none is NOT_APPLIED once no merge can be under
        way any more: to be done over finds the branch and the pull request and goes on from there. Where a person
        merges, having been opened is APPLIED. UNKNOWN when the repository was deleted or recreated.
        """
        branch = _branch_name(_revert(operation), intent)
        return await wait_out(lambda: self._look(ref, branch), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        match action:
            case RevertAction(commit=commit, reapply=reapply):
                ours = f"\"$(git log -1 --format=%H --grep 'This reverts commit {commit}')\""
                return (
                    f"gh repo clone {ref.describe()} && cd {ref.name} && git switch -c revert-{commit[:_SHORT]}"
                    f" && git revert --no-edit {ours if reapply else commit} && git push -u origin HEAD"
                    f" && gh pr create --fill && gh pr merge"
                )
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("github", action)

    async def close(self) -> None:
        await self._api.close()

    async def _reverting(
        self, repository: Repository, ref: TargetRef, revert: RevertCommit, generation: str, intent: Intent | None
    ) -> _Reverting:
        name = repository.full_name
        head = await self._api.head(name, repository.default_branch)
        if head != generation:
            raise PreconditionFailed(f"{ref.describe()} has changed: it is at {head}, not {generation}")
        commit = await self._meant(repository, await self._api.log(name, head, _LOOKED_THROUGH), revert)
        revertible(commit)
        before, after, now = [await self._api.tree(name, one) for one in (commit.parents[0], commit.sha, head)]
        try:
            change = taken_back(before, after, now)
        except PermanentError as error:
            raise PermanentError(f"{commit.sha} cannot be reverted: {error}") from error
        message = revert_message(commit, reapply=revert.reapply, intent=intent)
        return _Reverting(commit, change, _branch_name(revert, intent), message)

    async def _meant(
        self, repository: Repository, commits: tuple[LoggedCommit, ...], revert: RevertCommit
    ) -> LoggedCommit:
        """The commit to take back. Raises PermanentError when it is not on the branch."""
        name, branch = repository.full_name, repository.default_branch
        if revert.reapply:
            ours = our_revert(commits, revert.commit)
            if ours is None:
                raise PermanentError(f"there is no revert of {revert.commit} by the bot on {branch} of {name}")
            return ours
        if (listed := next((one for one in commits if one.sha == revert.commit), None)) is not None:
            return listed
        if not await self._api.holds(name, commits[0].sha, revert.commit):
            raise PermanentError(f"the commit {revert.commit} is not on {branch} of {name}")
        return (await self._api.commit(name, revert.commit)).logged()

    async def _branch(self, repository: Repository, reverting: _Reverting, intent: Intent) -> None:
        """Has the branch with our commit, made now or by an earlier attempt."""
        name, head = repository.full_name, intent.generation
        base = (await self._api.commit(name, head)).tree.sha
        tree = await _harmless(self._api.create_tree(name, base, reverting.change))
        sha = await _harmless(self._api.create_commit(name, tree, head, reverting.message))
        try:
            await _harmless(self._api.create_branch(name, reverting.branch, sha))
        except Refused as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            standing = await self._standing(name, reverting.branch)
            if standing is None or not bears(standing.message, intent):
                raise

    async def _standing(self, name: str, branch: str) -> LoggedCommit | None:
        try:
            return (await self._api.commit(name, await self._api.head(name, branch))).logged()
        except Missing:
            return None

    async def _merged(self, repository: Repository, pull: PullRequest, reverting: _Reverting) -> str:
        pull = await self._mergeable(repository.full_name, pull)
        method = _method(repository)
        body = {"sha": pull.head.sha, "merge_method": method}
        if method == "squash":
            title, _, text = reverting.message.partition("\n")
            body |= {"commit_title": title, "commit_message": text.strip()}
        try:
            return await self._api.merge(repository.full_name, pull.number, body)
        except Refused as error:
            if error.status == HTTPStatus.CONFLICT:
                raise PreconditionFailed(f"{pull.html_url} has changed, so it was not merged: {error.said}") from error
            running = await self._api.running_checks(repository.full_name, pull.head.sha)
            if running or _PASSES.search(error.said):
                waits = f"{pull.html_url} waits for {', '.join(running) or 'GitHub'}: {error.said}"
                raise TemporaryError(waits, retry_after_s=_CHECKS_S) from error
            raise PermanentError(
                f"GitHub does not let the bot merge {pull.html_url}, which a person can: {error.said}"
            ) from error

    async def _mergeable(self, name: str, pull: PullRequest) -> PullRequest:
        """As soon as GitHub has found out whether it conflicts."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._timeout_s
        while (pull := await self._api.pull(name, pull.number)).mergeable is None:
            if clock.time() > deadline:
                raise TemporaryError(f"GitHub has not found out yet whether {pull.html_url} conflicts")
            await asyncio.sleep(_PAUSE_S)
        if not pull.mergeable:
            raise PermanentError(f"{pull.html_url} conflicts with what was merged meanwhile; a person has to merge it")
        return pull

    async def _look(self, ref: TargetRef, branch: str) -> Finding | None:
        try:
            repository = await self._repository(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        pull = await self._pull(repository, branch)
        if pull is None:
            return None
        if pull.merged_at is not None or self._merge == "person":
            return Finding.APPLIED
        return Finding.NOT_APPLIED if pull.state == "closed" else None

    async def _pull(self, repository: Repository, branch: str) -> PullRequest | None:
        return next(iter(await self._api.pulls(repository.full_name, branch)), None)

    async def _repository(self, ref: TargetRef) -> Repository:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        try:
            repository = await self._named(ref.namespace, ref.name)
        except Missing as error:
            raise PreconditionFailed(f"{ref.describe()} is gone: {error}") from error
        if str(repository.id) != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone; another has its name")
        return repository

    async def _named(self, owner: str, name: str) -> Repository:
        asked = f"{owner}/{name}"
        if not {owner.casefold(), asked.casefold()} & self._owners:
            allowed = ", ".join(sorted(self._owners)) or "none"
            raise PermanentError(f"the repository {asked} is not one that the bot may touch (allowed: {allowed})")
        repository = await self._api.repository(asked)
        if repository.full_name.casefold() != asked.casefold():
            raise PermanentError(
                f"the repository {asked} is called {repository.full_name} now; say so in the catalogue"
            )
        return repository


async def _harmless(write: Awaitable[_T]) -> _T:
    """A write that changes nothing that runs, and that a second attempt finds: a lost answer is no unknown outcome."""
    try:
        return await write
    except OutcomeUnknown as error:
        raise TemporaryError(f"nothing is merged: {error}", retry_after_s=1) from error


def _method(repository: Repository) -> str:
    """One commit on the branch where the repository allows that; a token that may not see the settings leaves both."""
    if repository.allow_squash_merge is not False:
        return "squash"
    return "rebase" if repository.allow_merge_commit is False else "merge"


def _branch_name(revert: RevertCommit, intent: Intent | None) -> str:
    verb = "reapply" if revert.reapply else "revert"
    which = f"{intent.execution_id}-{intent.step}" if intent else "<execution>-<step>"
    return f"sre-bot/{verb}-{revert.commit[:_SHORT]}-{which}"


def _pull_body(repository: Repository, reverting: _Reverting, intent: Intent) -> dict[str, str]:
    files = "\n".join(f"- `{path}`" for path in reverting.change)
    text = (
        f"Takes back {reverting.commit.sha}, file by file; none of them was changed again since.\n\n{files}\n\n"
        f"Approved in the incident's thread: execution {intent.execution_id}, step {intent.step}. "
        f"At the time {repository.default_branch} was at {intent.generation}."
    )
    return {
        "title": reverting.title,
        "head": reverting.branch,
        "base": repository.default_branch,
        "body": text,
    }


def _revert(operation: Operation) -> RevertCommit:
    match operation:
        case RevertCommit():
            return operation
        case _:
            raise not_offered("github", operation)
