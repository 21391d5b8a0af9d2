"""Documents of a git repository, by a shallow clone that runs nothing of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from knowledge_base.addresses import HostGuard
from knowledge_base.readers.documents import RawDocument
from knowledge_base.sources import FolderSource, GitPlace, Listing
from knowledge_base.text import cleaned
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError

TIMEOUT_S = 180.0
_PROTOCOLS = "https:http:ssh:file"
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "USER",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TMPDIR",
)
# No hook, no filter, no link that leads out of the clone; a redirect would get past the guard.
_SAFE = (
    "core.hooksPath=/dev/null",
    "core.symlinks=false",
    "core.fsmonitor=false",
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "advice.detachedHead=false",
)


class GitSource:
    """The documents of a branch (by default the repository's own) as it is now; the URL names the collection.

    ``guard`` checks the host as for pages; over http(s) git connects to the address that was checked. Credentials
    come from ssh or git's own helpers, never from a prompt. Raises ConfigurationError when git is missing.
    """

    def __init__(self, place: GitPlace, guard: HostGuard, *, timeout_s: float = TIMEOUT_S) -> None:
        git = shutil.which("git")
        if git is None:
            raise ConfigurationError("git is not installed: apt-get install git, or give a folder")
        self._git = git
        self._place = place
        self._guard = guard
        self._timeout_s = timeout_s
        self._clone: Path | None = None
        self._files: FolderSource | None = None

    @property
    def collection(self) -> str:
        place = self._place
        part = place.ref + (f":{place.folder}" if place.folder else "")
        return f"{place.url}#{part}" if part else place.url

    async def listing(self) -> Listing:
        if self._files is None:
            self._files = await self._cloned()
        return await self._files.listing()

    async def read(self, path: str) -> RawDocument:
        assert self._files is not None
        return await self._files.read(path)

    async def close(self) -> None:
        """Removes the clone."""
        if self._clone is not None:
            await asyncio.to_thread(shutil.rmtree, self._clone, ignore_errors=True)
            self._clone = None

    async def _cloned(self) -> FolderSource:
        pinned = await self._pinned()
        self._clone = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="sre-bot-kb-"))
        clone = self._clone / "clone"
        options = [option for setting in (*_SAFE, *pinned) for option in ("-c", setting)]
        branch = [f"--branch={self._place.ref}"] if self._place.ref else []
        await self._run(
            *options,
            "clone",
            "--quiet",
            "--depth=1",
            "--single-branch",
            "--no-tags",
            "--no-recurse-submodules",
            "--template=",
            *branch,
            "--",
            self._place.url,
            str(clone),
        )
        revision = (await self._run("-C", str(clone), "rev-parse", "--short=12", "HEAD")).strip()
        folder = await asyncio.to_thread((clone / self._place.folder).resolve)
        if not folder.is_relative_to(clone.resolve()) or not await asyncio.to_thread(folder.is_dir):
            raise PermanentError(f"{self._place.url} has no folder {self._place.folder}")
        prefix = f"{self._place.folder}/" if self._place.folder else ""
        return FolderSource(folder, collection=self.collection, origin=f"{self._place.url}@{revision}/{prefix}")

    async def _pinned(self) -> tuple[str, ...]:
        """Checks the host, and says how git is held to the address that was checked."""
        url = self._place.url
        if "://" not in url:  # user@host:path
            return await self._ssh_host(url.partition(":")[0].rpartition("@")[2], 22)
        parts = urlsplit(url)
        if parts.scheme == "file":
            return ()
        if parts.scheme not in _PROTOCOLS.split(":") or not parts.hostname:
            raise PermanentError(f"{url}: git is used over https, http, ssh and file only")
        if parts.scheme == "ssh":
            return await self._ssh_host(parts.hostname, parts.port or 22)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = await self._guard.addresses(parts.hostname, port)
        if addresses == (parts.hostname,):
            return ("http.proxy=",)
        shown = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
        return (f"http.curloptResolve={parts.hostname}:{port}:{shown}", "http.proxy=")

    async def _ssh_host(self, host: str, port: int) -> tuple[str, ...]:
        # A name that does not resolve may be an alias of ~/.ssh/config; keys hold ssh to the right host.
        with suppress(TemporaryError):
            await self._guard.addresses(host, port)
        return ()

    async def _run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            self._git,
            *arguments,
            env={
                **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                "LANG": "C.UTF-8",
                "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ASKPASS": "false",
                "SSH_ASKPASS": "false",
                "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15",
                "GIT_LFS_SKIP_SMUDGE": "1",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                output, trouble = await process.communicate()
        except TimeoutError:
            raise TemporaryError(f"{self._place.url} was not cloned within {self._timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                # With what it started: transports are processes of their own.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode != 0:
            raise PermanentError(f"{self._place.url} cannot be cloned: {_last_line(trouble)}")
        return output.decode(errors="replace")


def _last_line(trouble: bytes) -> str:
    """What git says is wrong: its first "fatal" or "error" line, else its last one."""
    lines = [line.strip() for line in trouble.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: error:"))]
    return cleaned((telling or lines[-1:] or ["git says nothing"])[0])[:300]
