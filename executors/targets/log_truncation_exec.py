"""Scripts in a pod's container, by the exec subresource of the Kubernetes API over a websocket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream.ws_client import (
    ERROR_CHANNEL,
    STDERR_CHANNEL,
    STDOUT_CHANNEL,
    WSClient,
    get_websocket_url,
)
from pydantic import BaseModel, ConfigDict, ValidationError
from websocket import WebSocketBadStatusException, WebSocketException

from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

_PRIVILEGES = "executors/targets/pod-logs-rbac.yaml"
LOADER = 's=$(head -c "$1"); [ ${#s} = "$1" ] || exit 42; shift; eval "$s"'
"""The script comes by stdin, for many a proxy takes no URL of 8 kB; half of it is never run."""
_NO_SHELL = ("executable file not found", "no such file or directory")
_NO_SUCH_COMMAND = (126, 127)
_NOT_REACHED = (
    "Internal error occurred: unable to upgrade connection: ",
    "Internal error occurred: error sending request: ",
)
"""How an API server that takes v5 itself (by default since 1.30) begins when the kubelet did not take the command: the
websocket is open by then, and nothing of what came over it was passed on."""
_MOST_OUTPUT_BYTES = 1 << 20
_LOOK_UP_S = 0.2
"""How often a waiting thread sees whether anybody still wants the answer."""


class _Cause(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    reason: str = ""
    message: str = ""


class _Details(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    causes: tuple[_Cause, ...] = ()


class _Status(BaseModel):
    """The API server's Status object, as the error channel and refusals carry it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    status: str = ""
    message: str = ""
    details: _Details | None = None

    @property
    def exit_status(self) -> int | None:
        """None when the command did not end by itself."""
        if self.status == "Success":
            return 0
        codes = [one.message for one in self.details.causes if one.reason == "ExitCode"] if self.details else []
        return int(codes[0]) if codes and codes[0].isdecimal() else None


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended by itself."""

    status: int
    out: str
    err: str


class PodExec:
    """The official client's websocket in threads; ``timeout_s`` is what every script gets."""

    def __init__(self, configuration: Configuration, *, timeout_s: float) -> None:
        self._configuration = configuration
        self._timeout_s = timeout_s

    async def run(
        self, namespace: str, pod: str, container: str, script: str, arguments: Sequence[str], *, more_s: float = 0.0
    ) -> Ran:
        """Runs a script of ASCII once, with ``more_s`` of time for it.

        Raises TemporaryError and PermanentError when it surely did not run, PreconditionFailed when the pod is gone,
        OutcomeUnknown when it may have, or may still.
        """
        text = script.strip("\n").encode("ascii")
        url = self._url(namespace, pod, container, ("sh", "-c", LOADER, "sre-bot", str(len(text)), *arguments))
        call = _Call(self._configuration, url, text)
        threading.Thread(target=call.run, daemon=True, name=f"exec {namespace}/{pod}").start()
        try:
            async with asyncio.timeout(self._timeout_s + more_s):
                outcome = await asyncio.wrap_future(call.outcome)
        except TimeoutError as error:
            call.given_up.set()  # before the look: one that opens after it sends nothing any more
            if not call.opened:
                raise TemporaryError(f"exec in {namespace}/{pod} was not opened in time, nothing ran") from error
            raise OutcomeUnknown(f"the script in {namespace}/{pod} gave no answer in time") from error
        finally:
            call.given_up.set()
        if isinstance(outcome, Exception):
            raise _refusal(namespace, pod, outcome, opened=call.opened) from outcome
        return outcome

    def shown(self, namespace: str, pod: str, name: str, arguments: Sequence[str]) -> str:
        """``run`` as it goes over the wire, with a name for the script."""
        url = f"{self._configuration.host}/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        return f"GET {url} (websocket), the script {name} with {json.dumps(list(arguments))}"

    def _url(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> str:
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/exec"
        query = [("command", word) for word in command]
        query += [("container", container), ("tty", "false")]
        query += [(stream, "true") for stream in ("stdin", "stdout", "stderr")]
        url = get_websocket_url(f"{self._configuration.host}{path}?{urlencode(query)}")  # type: ignore[no-untyped-call]
        return str(url)


class _Call:
    """One command over one websocket, in a thread of its own: the SDK cannot be told how long to wait for a handshake,
    and a thread that waits for ever must not keep the bot from ending."""

    def __init__(self, configuration: Configuration, url: str, text: bytes) -> None:
        self.outcome: Future[Ran | Exception] = Future()
        self.opened = False
        self.given_up = threading.Event()
        self._configuration = configuration
        self._url = url
        self._text = text

    def run(self) -> None:
        try:
            found: Ran | Exception = self._talk()
        except (WebSocketException, OSError, ValueError, ConfigException, SreBotError) as error:
            found = error
        if self.outcome.set_running_or_notify_cancel():
            self.outcome.set_result(found)

    def _talk(self) -> Ran:
        client: Any = WSClient(  # type: ignore[no-untyped-call]
            self._configuration, self._url, self._headers(), capture_all=False, binary=True
        )
        self.opened = True
        try:
            if self.given_up.is_set():
                raise OSError("nobody waits for it any more")
            client.write_stdin(self._text)
            while client.is_open() and not client.peek_channel(ERROR_CHANNEL):
                client.update(timeout=_LOOK_UP_S)
                if self.given_up.is_set() or len(client.peek_channel(STDOUT_CHANNEL)) > _MOST_OUTPUT_BYTES:
                    raise OSError("the answer was given up, or is too long")
            ended, out, err = (client.read_channel(one) for one in (ERROR_CHANNEL, STDOUT_CHANNEL, STDERR_CHANNEL))
        finally:
            client.sock.shutdown()
        return _ran(ended, out.decode(errors="replace"), err.decode(errors="replace"))

    def _headers(self) -> dict[str, str]:
        """Asks for the token, which may run a program of the kubeconfig's, for as long as that takes."""
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"authorization": str(token)} if token else {}


def _ran(ended: bytes, out: str, err: str) -> Ran:
    """Raises PermanentError when there is no shell to run it, TemporaryError when nothing was run, ValueError when the
    end was not told."""
    status = _Status.model_validate_json(ended)
    if status.message.startswith(_NOT_REACHED):
        raise TemporaryError(f"nothing ran: {status.message}")
    code = status.exit_status
    if code in _NO_SUCH_COMMAND or (code is None and any(words in status.message for words in _NO_SHELL)):
        raise PermanentError(f"the container has no shell that could do it: {err.strip() or status.message}")
    if code is None:
        raise ValueError(status.message)
    return Ran(code, out, err.strip())


def _refusal(namespace: str, pod: str, error: Exception, *, opened: bool) -> SreBotError:
    where = f"{namespace}/{pod}"
    match error:
        case PermanentError():
            return PermanentError(f"{where}: {error}")
        case TemporaryError():
            return TemporaryError(f"{where}: {error}")
        case WebSocketBadStatusException():
            body = (error.resp_body or b"").decode(errors="replace")
            right = f"get and create pods/exec in namespace {namespace}"
            return _http_refusal(right, error.status_code, body, error.resp_headers or {})
        case _ if not opened:
            why = str(error) or type(error).__name__
            return TemporaryError(f"exec in {where} could not be opened, nothing ran: {why}")
        case _:
            return OutcomeUnknown(f"the command in {where} was sent and not answered: {error or type(error).__name__}")


def _http_refusal(right: str, status: int, body: str, headers: Mapping[str, str]) -> SreBotError:
    try:
        message = _Status.model_validate_json(body).message
    except ValidationError:
        message = body[:300]
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return PermanentError(f"Kubernetes does not accept the bot's credentials (to {right}): {message}")
        case HTTPStatus.FORBIDDEN:
            return PermanentError(f"the bot's account may not {right}; {_PRIVILEGES} grants it: {message}")
        case HTTPStatus.NOT_FOUND:
            return PreconditionFailed(f"Kubernetes finds nothing to {right}: {message}")
        case HTTPStatus.TOO_MANY_REQUESTS:
            wait = headers.get("Retry-After") or headers.get("retry-after") or ""
            wait_s = float(wait) if wait.isdecimal() else None
            return TemporaryError(f"Kubernetes refused to {right} for now: {message}", retry_after_s=wait_s)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == 0:
            # Nothing ran: the script is sent once the websocket is open. So answers a container that is not running.
            return TemporaryError(f"Kubernetes answered {status} to {right}, nothing ran: {message}")
        case _:
            return PermanentError(f"Kubernetes refused to {right} ({status}): {message}")
