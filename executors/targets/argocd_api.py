"""Argo CD's REST API (its gRPC gateway), as far as syncing and rolling back need it."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.domain.errors import ConfigurationError, OutcomeUnknown, PermanentError, SreBotError, TemporaryError

_T = TypeVar("_T")
_BUSY = "another operation is already in progress"
_WAIT_S = 5.0
_UNDECIDED = (408, 409, 499)
"""Cancelled or aborted while it was at work (408 and 499 are the same to gateways of different age): perhaps done."""


class Missing(PermanentError):
    """There is no such application, or the account is not told of it."""


class _Answer(BaseModel):
    # Only what is used is read, so that a server which says more is no fault.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Metadata(_Answer):
    uid: str
    deletionTimestamp: str | None = None


class _Initiator(_Answer):
    username: str = ""


class _Info(_Answer):
    name: str
    value: str = ""


class _Sync(_Answer):
    revision: str = ""
    source: dict[str, Any] | None = None
    dryRun: bool = False


class Operation(_Answer):
    """What was asked of the controller; ``source`` is set by a rollback, and since version 3 by a sync too."""

    sync: _Sync = _Sync()
    initiatedBy: _Initiator = _Initiator()
    info: tuple[_Info, ...] = ()


class _OperationState(_Answer):
    phase: str
    message: str = ""
    operation: Operation
    startedAt: AwareDatetime


class Deployed(_Answer):
    """An entry of the history: what was synced, by whom."""

    id: int = 0
    revision: str = ""
    source: dict[str, Any] | None = None
    deployedAt: AwareDatetime | None = None
    initiatedBy: _Initiator = _Initiator()


class _Health(_Answer):
    status: str = ""


class _Compared(_Answer):
    """What the repository says, and whether that is what runs."""

    status: str = ""
    revision: str = ""


class _Status(_Answer):
    sync: _Compared = _Compared()
    health: _Health = _Health()
    history: tuple[Deployed, ...] = ()
    operationState: _OperationState | None = None


class Application(_Answer):
    """One Application, as the server tells of it."""

    metadata: _Metadata
    spec: dict[str, Any]
    status: _Status = _Status()
    operation: Operation | None = None

    @property
    def project(self) -> str:
        return str(self.spec.get("project", "default"))

    @property
    def history(self) -> tuple[Deployed, ...]:
        """The latest first: the first one is what runs."""
        return tuple(sorted(self.status.history, key=lambda one: one.id, reverse=True))

    @property
    def newest(self) -> int:
        """The id of what runs; -1 before the first sync."""
        return self.history[0].id if self.history else -1

    @property
    def began_s(self) -> int:
        """When its last operation began, as seconds since the epoch; 0 without one."""
        state = self.status.operationState
        return int(state.startedAt.timestamp()) if state else 0

    @property
    def generation(self) -> str:
        """What was last synced, when the last operation began, and a digest of the spec."""
        digest = hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()
        return f"{self.newest}.{self.began_s}.{digest[:16]}"

    @property
    def wanted_revision(self) -> str:
        """The commit that the repository says, where another one was synced last; empty otherwise."""
        compared = self.status.sync
        runs = self.history[0].revision if self.history else ""
        return compared.revision if compared.status == "OutOfSync" and compared.revision != runs else ""

    @property
    def automated(self) -> bool:
        """Whether Argo CD syncs on its own."""
        automated = (self.spec.get("syncPolicy") or {}).get("automated")
        return automated is not None and automated.get("enabled", True) is not False

    @property
    def target_revision(self) -> str:
        return str((self.spec.get("source") or {}).get("targetRevision") or "HEAD")

    @property
    def is_chart(self) -> bool:
        """Whether revisions are versions of a Helm chart, and no commits."""
        return bool((self.spec.get("source") or {}).get("chart"))


class _Manifests(_Answer):
    manifests: tuple[Any, ...] | None = Field(default=())


class _CanI(_Answer):
    value: str


class _User(_Answer):
    username: str = ""


class _Taken(_Answer):
    """Of a write only that it was taken: what came of it is read back."""


class ArgoCdApi:
    """Reads raise Missing, PermanentError or TemporaryError; writes as ``Target.apply``, and are sent once.

    ``ca``: a PEM file with the authority that signed the server's certificate; empty: the machine's own list.
    """

    def __init__(self, url: str, token: str, *, ca: str, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._user: str | None = None
        try:
            self._tls = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise ConfigurationError(f"SRE_ARGOCD_CA: {ca} is no file of certificates: {error}") from error

    async def application(self, name: str, project: str) -> Application:
        query = f"?project={quote(project, safe='')}"
        return await self._call("GET", f"/api/v1/applications/{quote(name, safe='')}{query}", Application)

    async def can(self, verb: str, project: str, name: str) -> bool:
        """Whether the account may do ``verb`` to an application."""
        answer = await self._call("GET", f"/api/v1/account/can-i/applications/{verb}/{project}/{name}", _CanI)
        return answer.value == "yes"

    async def username(self) -> str:
        """What operations of this account are signed with."""
        if self._user is None:
            self._user = (await self._call("GET", "/api/v1/session/userinfo", _User)).username
        return self._user

    async def rendered(self, name: str, project: str, revision: str) -> int:
        """How many manifests the repository holds for it at ``revision``; nothing is changed by asking."""
        query = f"?project={quote(project, safe='')}&revision={quote(revision, safe='')}"
        found = await self._call("GET", f"/api/v1/applications/{quote(name, safe='')}/manifests{query}", _Manifests)
        return len(found.manifests or ())

    async def ask(self, name: str, verb: str, body: Mapping[str, Any]) -> None:
        """``sync`` or ``rollback``: the server notes it on the application, and the controller takes it up."""
        await self._call("POST", f"/api/v1/applications/{quote(name, safe='')}/{verb}", _Taken, body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _call(self, method: str, path: str, shape: type[_T], body: Mapping[str, Any] | None = None) -> _T:
        what, write = f"{method} {path.partition('?')[0]}", body is not None
        try:
            async with self._connected().request(method, self.url + path, json=body, allow_redirects=False) as response:
                status, wait, answer = response.status, response.headers.get("Retry-After", ""), await response.read()
            if status == HTTPStatus.OK:
                return TypeAdapter(shape).validate_json(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TemporaryError(f"Argo CD cannot be reached, nothing was sent: {_why(error)}") from error
        except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
            if write:
                raise OutcomeUnknown(f"{what} was sent to Argo CD and not answered: {_why(error)}") from error
            raise TemporaryError(f"Argo CD cannot be read ({what}): {_why(error)}") from error
        raise _refusal(what, status, _message(answer), wait, write=write)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection of its own for each call: one that was closed while idle would look like a lost answer.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"Authorization": f"Bearer {self._token}"},
            )
        return self._session


def _refusal(what: str, status: int, said: str, wait: str, *, write: bool) -> SreBotError:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return PermanentError(f"Argo CD does not accept the bot's token ({what}): {said}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(f"Argo CD does not allow {what}; gitops-privileges.md has the policy: {said}")
        case HTTPStatus.NOT_FOUND:
            return Missing(f"Argo CD finds nothing for {what}: {said}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            seconds = float(wait) if wait.isascii() and wait.isdecimal() else _WAIT_S
            return TemporaryError(f"Argo CD refused {what} for now: {said}", retry_after_s=seconds)
        case _ if _BUSY in said:
            # Whatever status it comes with: the gateway's versions differ in what they make of a wrapped error.
            return TemporaryError(f"Argo CD refused {what} for now: {said}", retry_after_s=_WAIT_S)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _UNDECIDED:
            if write:
                return OutcomeUnknown(f"{what} was sent to Argo CD, which answered {status}: {said}")
            return TemporaryError(f"Argo CD answered {status} to {what}: {said}")
        case _:
            return PermanentError(f"Argo CD refused {what} ({status}): {said}")


def _message(answer: bytes) -> str:
    """The gateway's own words: ``message`` of ``{"error", "code", "message"}``."""
    try:
        said = json.loads(answer)
    except ValueError:
        return answer[:200].decode(errors="replace")
    return str(said.get("message") or said.get("error") or "")[:400] if isinstance(said, dict) else ""


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error) or type(error).__name__
