"""GitHub's REST API, as far as reverting a commit needs it, through gidgethub."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import gidgethub
from gidgethub.aiohttp import GitHubAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from executors.targets.git_trailers import LoggedCommit
from executors.targets.git_trees import Entry
from pipeline.domain.errors import OutcomeUnknown, PermanentError, SreBotError, TemporaryError

_T = TypeVar("_T")
_SECONDARY_S = 60.0
"""How long GitHub asks to wait after a secondary limit that names no time."""
_UNANSWERED = (408, 499)
"""Somebody on the way gave up waiting: it may be carried out."""
_ACCEPT = "application/vnd.github+json"


class Missing(PermanentError):
    """GitHub finds nothing there, or does not tell the token of it."""


class Refused(PermanentError):
    """Not carried out: ``status`` and GitHub's own words."""

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class _Lost(aiohttp.ClientError):
    """The connection was lost in mid-call."""


class _Answer(BaseModel):
    # Only what is used is read, so that an API which says more is no fault.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Permissions(_Answer):
    push: bool = False


class Repository(_Answer):
    id: int
    full_name: str
    default_branch: str
    archived: bool = False
    disabled: bool = False
    allow_squash_merge: bool | None = None
    allow_merge_commit: bool | None = None
    permissions: _Permissions = _Permissions()


class _Sha(_Answer):
    sha: str


class _Object(_Answer):
    object: _Sha


class _Signed(_Answer):
    date: AwareDatetime


class GitCommit(_Answer):
    """A commit of the git database."""

    sha: str = ""
    tree: _Sha
    parents: tuple[_Sha, ...] = ()
    message: str
    committer: _Signed

    def logged(self) -> LoggedCommit:
        return LoggedCommit(self.sha, tuple(one.sha for one in self.parents), self.committer.date, self.message)


class _Listed(_Answer):
    sha: str
    parents: tuple[_Sha, ...]
    commit: GitCommit

    def logged(self) -> LoggedCommit:
        inner = self.commit
        return LoggedCommit(self.sha, tuple(one.sha for one in self.parents), inner.committer.date, inner.message)


class _Item(_Answer):
    path: str
    mode: str
    type: str
    sha: str


class _Tree(_Answer):
    tree: tuple[_Item, ...]
    truncated: bool = False


class _Compared(_Answer):
    status: str


class PullRequest(_Answer):
    number: int
    html_url: str
    state: str
    merged_at: AwareDatetime | None = None
    mergeable: bool | None = None
    head: _Sha


class _CheckRun(_Answer):
    name: str
    status: str


class _CheckRuns(_Answer):
    check_runs: tuple[_CheckRun, ...] = Field(default=())


class GitHubApi:
    """One repository's calls at a time, by ``owner/name``. Reads raise Missing, PermanentError or TemporaryError.

    Writes raise Refused, PermanentError, TemporaryError or OutcomeUnknown, and are sent once; each has ``timeout_s``.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def repository(self, name: str) -> Repository:
        return await self._read(f"/repos/{name}", Repository)

    async def head(self, name: str, branch: str) -> str:
        return (await self._read(f"/repos/{name}/git/ref/heads/{quote(branch)}", _Object)).object.sha

    async def log(self, name: str, head: str, count: int) -> tuple[LoggedCommit, ...]:
        """The last ``count`` (at most 100) commits of a branch or commit, newest first."""
        path = f"/repos/{name}/commits?sha={quote(head, safe='')}&per_page={count}"
        return tuple(one.logged() for one in await self._read(path, tuple[_Listed, ...]))

    async def commit(self, name: str, sha: str) -> GitCommit:
        return await self._read(f"/repos/{name}/git/commits/{sha}", GitCommit)

    async def holds(self, name: str, head: str, sha: str) -> bool:
        """Whether ``sha`` is ``head`` or before it."""
        try:
            compared = await self._read(f"/repos/{name}/compare/{sha}...{head}?per_page=1", _Compared)
        except Missing:
            return False
        return compared.status in ("ahead", "identical")

    async def tree(self, name: str, sha: str) -> dict[str, Entry]:
        """Every file of a commit or tree. Raises PermanentError when GitHub does not tell of all."""
        found = await self._read(f"/repos/{name}/git/trees/{sha}?recursive=1", _Tree)
        if found.truncated:
            raise PermanentError(f"{name} has more files than GitHub tells of at once; revert it with git")
        return {one.path: Entry(one.mode, one.type, one.sha) for one in found.tree if one.type != "tree"}

    async def pulls(self, name: str, branch: str) -> tuple[PullRequest, ...]:
        """Those that were ever opened from a branch of the repository, newest first."""
        path = f"/repos/{name}/pulls?state=all&head={name.partition('/')[0]}:{quote(branch)}"
        return await self._read(path, tuple[PullRequest, ...])

    async def pull(self, name: str, number: int) -> PullRequest:
        return await self._read(f"/repos/{name}/pulls/{number}", PullRequest)

    async def running_checks(self, name: str, sha: str) -> tuple[str, ...]:
        """The checks that have not ended; none when the token may not read them."""
        try:
            found = await self._read(f"/repos/{name}/commits/{sha}/check-runs", _CheckRuns)
        except PermanentError:
            return ()
        return tuple(one.name for one in found.check_runs if one.status != "completed")

    async def create_tree(self, name: str, base: str, change: Mapping[str, Entry | None]) -> str:
        """The tree ``base`` with some files put back or, with None, deleted: no content is moved."""
        body = {"base_tree": base, "tree": [_entry(path, entry) for path, entry in change.items()]}
        return (await self.write("POST", f"/repos/{name}/git/trees", body, _Sha)).sha

    async def create_commit(self, name: str, tree: str, parent: str, message: str) -> str:
        body = {"message": message, "tree": tree, "parents": [parent]}
        return (await self.write("POST", f"/repos/{name}/git/commits", body, _Sha)).sha

    async def create_branch(self, name: str, branch: str, sha: str) -> None:
        await self.write("POST", f"/repos/{name}/git/refs", {"ref": f"refs/heads/{branch}", "sha": sha}, _Object)

    async def open_pull(self, name: str, body: Mapping[str, str]) -> PullRequest:
        return await self.write("POST", f"/repos/{name}/pulls", body, PullRequest)

    async def merge(self, name: str, number: int, body: Mapping[str, str]) -> str:
        return (await self.write("PUT", f"/repos/{name}/pulls/{number}/merge", body, _Sha)).sha

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _read(self, path: str, shape: type[_T]) -> _T:
        what = f"GET {path}"
        try:
            return TypeAdapter(shape).validate_python(await self._connected().getitem(path, accept=_ACCEPT))
        except gidgethub.HTTPException as error:
            raise _refusal(what, error, write=False) from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # ValueError: no JSON, or another shape
            raise TemporaryError(f"GitHub cannot be read ({what}): {_why(error)}") from error

    async def write(self, method: str, path: str, body: Mapping[str, Any], shape: type[_T]) -> _T:
        what, api = f"{method} {path}", self._connected()
        sent: Awaitable[Any]
        sent = (api.put if method == "PUT" else api.post)(path, data=body, accept=_ACCEPT)
        try:
            return TypeAdapter(shape).validate_python(await sent)
        except gidgethub.HTTPException as error:
            raise _refusal(what, error, write=True) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TemporaryError(f"GitHub cannot be reached, nothing was sent: {_why(error)}") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise OutcomeUnknown(f"{what} was sent to GitHub and not answered: {_why(error)}") from error

    def _connected(self) -> GitHubAPI:
        if self._session is None:
            # A connection of its own for each call: one that was closed while idle would look like a lost answer.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                middlewares=(_once,),
            )
        return GitHubAPI(self._session, "sre-bot", oauth_token=self._token, base_url=self.url)


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp sends a PUT again when its connection was lost; by another name of the error it does not."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost(_why(error)) from error


def _entry(path: str, entry: Entry | None) -> dict[str, str | None]:
    if entry is None:
        return {"path": path, "mode": "100644", "type": "blob", "sha": None}
    return {"path": path, "mode": entry.mode, "type": entry.kind, "sha": entry.sha}


def _refusal(what: str, error: gidgethub.HTTPException, *, write: bool) -> SreBotError:
    status, said = int(error.status_code), str(error)
    wait_s = _wait_s(error)
    if wait_s is not None:
        return TemporaryError(f"GitHub limits how often it is asked ({what}): {said}", retry_after_s=wait_s)
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return PermanentError(f"GitHub does not accept the bot's token ({what}): {said}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(
                f"the bot's token does not allow {what}; gitops-privileges.md says what it needs: {said}"
            )
        case HTTPStatus.NOT_FOUND:
            return Missing(f"GitHub finds nothing for {what}, or does not show it to the bot's token: {said}")
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _UNANSWERED:
            if write:
                return OutcomeUnknown(f"{what} was sent to GitHub, which answered {status}: {said}")
            return TemporaryError(f"GitHub answered {status} to {what}: {said}")
        case _:
            return Refused(f"GitHub refused {what} ({status}): {said}", status, said)


def _wait_s(error: gidgethub.HTTPException) -> float | None:
    """How long to wait, when it is a limit that refused; by the headers and words that GitHub documents for it."""
    if isinstance(error, gidgethub.RateLimitExceeded):
        left_s: float = (error.rate_limit.reset_datetime - datetime.now(UTC)).total_seconds()
        return max(1.0, left_s)
    limited = error.status_code == HTTPStatus.TOO_MANY_REQUESTS
    named = error.headers.get("retry-after", "")
    if limited or (error.status_code == HTTPStatus.FORBIDDEN and (named or "secondary rate limit" in str(error))):
        return float(named) if named.isascii() and named.isdecimal() else _SECONDARY_S
    return None


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error) or type(error).__name__
