"""git as a process of its own: no shell, no prompt, no hooks, no settings but these, and an end to every call."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain.errors import ConfigurationError

_ASKPASS = """#!/bin/sh
case "$1" in
  Username*) printf '%s\\n' "$SRE_BOT_GIT_USERNAME" ;;
  *) printf '%s\\n' "$SRE_BOT_GIT_TOKEN" ;;
esac
"""
_SETTINGS: Mapping[str, str] = {
    "core.hooksPath": "/dev/null",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # A redirect would be asked for credentials too, which are meant for one host.
    "http.followRedirects": "false",
    # libcurl sends a request again when a connection that it used before turns out to be closed: each gets its own.
    "http.version": "HTTP/1.1",
    "http.extraHeader": "Connection: close",
    "http.maxRetries": "0",
    "ssh.variant": "ssh",
}
_PASSED_ON = ("HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR")
_AUTHOR = re.compile(r"^([^<>\n]+?) <([^<>\s]+)>$")
_MAX_WORDS = 400


@dataclass(frozen=True, slots=True)
class Ran:
    """A call of git that came to an end."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it complained about, on one line: the remote's own words first where there are such."""
        remote = [line.removeprefix("remote:").strip() for line in _lines(self.err) if line.startswith("remote:")]
        own = [line.strip() for line in self.own.splitlines() if line.strip() and not line.startswith("hint:")]
        return "; ".join([*(line for line in remote if line), *own])[:_MAX_WORDS] or f"exit code {self.code}"

    @property
    def own(self) -> str:
        """What git and ssh of this machine complained about, without what the remote and its hooks said."""
        return "\n".join(line for line in _lines(self.err) if not line.startswith("remote:"))


class Git:
    """Runs git with the settings above. ``folder`` holds what it needs: an askpass program and a list of safe folders.

    ``author`` is ``Name <address>``; ``local`` are paths of repositories on this machine, which may belong to somebody
    else. A call that takes longer than ``timeout_s`` is killed with all its children, and raises TimeoutError.
    """

    def __init__(
        self, folder: Path, *, author: str, username: str, token: str, local: Sequence[str], timeout_s: float
    ) -> None:
        program = shutil.which("git")
        if program is None:
            raise ConfigurationError("git is not installed: apt-get install git, or leave SRE_GIT_REPOSITORIES empty")
        who = _AUTHOR.match(author)
        if who is None:
            raise ConfigurationError(f"the author of commits is written as Name <address>, not {author!r}")
        self._program = program
        self._timeout_s = timeout_s
        try:
            self._environment = _environment(folder, who.group(1), who.group(2), username, token, local)
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be written to: {error}") from error

    async def run(self, folder: Path, *words: str, fed: str = "", timeout_s: float = 0.0) -> Ran:
        """``git WORDS`` in ``folder``, with ``fed`` as its input; ``timeout_s`` where it is longer than usual."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *words,
            cwd=folder,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(max(timeout_s, self._timeout_s)):
                out, err = await process.communicate(fed.encode())
        finally:
            # Whatever it started is in its group: nothing may go on sending once nobody waits for it.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return Ran(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def _environment(
    folder: Path, name: str, address: str, username: str, token: str, local: Sequence[str]
) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    safe = "".join(f"\tdirectory = {_quoted(path)}\n\tdirectory = {_quoted(f'{path}/.git')}\n" for path in local)
    # Given on the command line it would not reach the process that serves a repository of this machine.
    _replace(folder / "gitconfig", f"[safe]\n{safe}" if safe else "", 0o600)
    _replace(folder / "askpass", _ASKPASS, 0o700)
    settings = {
        word: text
        for number, (key, value) in enumerate(_SETTINGS.items())
        for word, text in ((f"GIT_CONFIG_KEY_{number}", key), (f"GIT_CONFIG_VALUE_{number}", value))
    }
    return {
        **{key: os.environ[key] for key in _PASSED_ON if key in os.environ},
        **settings,
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
        "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        # A connection shared with others would outlive the call, and break in the middle of it when they end it.
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oControlMaster=no -oControlPath=none",
        "GIT_ASKPASS": str(folder / "askpass"),
        "SRE_BOT_GIT_USERNAME": username,
        "SRE_BOT_GIT_TOKEN": token,
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
    }


def _lines(said: str) -> list[str]:
    """Parted as git does before it puts ``remote:`` before each: a hook's form feed begins no line of git's own."""
    return re.split(r"[\r\n]+", said)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _replace(path: Path, text: str, mode: int) -> None:
    """All at once: another process of ours may be about to read it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.chmod(mode)
    beside.replace(path)
