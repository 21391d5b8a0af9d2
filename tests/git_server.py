"""A real bare git repository over real HTTP: git's own ``http-backend`` behind aiohttp."""

from __future__ import annotations

import asyncio
import atexit
import base64
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.faults import Proxy, Request

USERNAME, TOKEN = "git", "the-bot"
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{
        f"GIT_{who}_{what}": said for who in ("AUTHOR", "COMMITTER") for what, said in (("NAME", "A"), ("EMAIL", "a@b"))
    },
}
_TALKATIVE = """#!/bin/sh
echo "curl: (7) Failed to connect to chat.example.com port 443: Connection refused" >&2
echo "notify.sh: line 3: /var/log/pushes: Permission denied" >&2
"""
_PROTECTED = """#!/bin/sh
echo "error: GH006: Protected branch update failed for refs/heads/main." >&2
exit 1
"""


def git(folder: Path, *words: str, fed: str = "") -> str:
    """What another party does in ``folder``, with nobody's settings."""
    done = subprocess.run(
        ["git", *words], cwd=folder, env=_ENVIRONMENT, input=fed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Repository:
    """A bare repository with a history of three commits on ``main``; files are written by commits of others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(_template(), folder)
        self.bad, self.good, self.first = git(folder, "rev-list", "main").split()

    @property
    def head(self) -> str:
        return self.at("main")

    def at(self, branch: str) -> str:
        return git(self.folder, "rev-parse", f"refs/heads/{branch}")

    def files(self, branch: str = "main") -> dict[str, str]:
        names = git(self.folder, "ls-tree", "-r", "--name-only", branch).splitlines()
        return {name: git(self.folder, "show", f"{branch}:{name}") for name in names}

    def tree(self, branch: str = "main") -> str:
        return git(self.folder, "rev-parse", f"{branch}^{{tree}}")

    def commit(
        self, title: str, files: dict[str, str | None], *, branch: str = "main", onto: list[str] | None = None
    ) -> str:
        """``files`` changed or, with None, deleted; on ``onto`` instead of the head, which is rewritten then."""
        parents = onto if onto is not None else self._heads(branch)
        entries = dict(self._entries(parents[0]) if parents else {})
        for name, text in files.items():
            entries.pop(name, None)
            if text is not None:
                blob = git(self.folder, "hash-object", "-w", "--stdin", fed=text)
                entries[name] = f"100644 blob {blob}"
        listing = "".join(f"{entry}\t{name}\n" for name, entry in sorted(entries.items()))
        tree = git(self.folder, "mktree", fed=listing)
        above = [word for parent in parents for word in ("-p", parent)]
        sha = git(self.folder, "commit-tree", tree, *above, "-m", title)
        git(self.folder, "update-ref", f"refs/heads/{branch}", sha)
        return sha

    def protect(self, said: str = _PROTECTED) -> None:
        """From now on its hook declines every push."""
        hook = self.folder / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(said)
        hook.chmod(0o755)

    def complain(self) -> None:
        """From now on its hook lets every push through, and has trouble with the networks of others."""
        self.protect(_TALKATIVE)

    def _heads(self, branch: str) -> list[str]:
        found = git(self.folder, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        return found.split()

    def _entries(self, commit: str) -> dict[str, str]:
        lines = git(self.folder, "ls-tree", commit).splitlines()
        return {name: entry for entry, _, name in (line.partition("\t") for line in lines)}


@cache
def _template() -> Path:
    """Made once, for each of its commits takes some processes."""
    folder = Path(tempfile.mkdtemp(prefix="repository-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "--template=", ".")
    made = Repository.__new__(Repository)
    made.folder = folder
    made.commit("begin", {"app.toml": "pool = 10\n", "README": "shop\n"})
    made.commit("more replicas", {"app.toml": "pool = 10\nreplicas = 3\n"})
    made.commit("lower the pool", {"app.toml": "pool = 1\nreplicas = 3\n"})
    return folder


class GitServer:
    """``async with GitServer(folder) as server``: ``shop.git`` below ``server.url``, for USERNAME with TOKEN.

    ``read_only``: what the account is from now on. ``pushes``: the packs that were sent to it. ``unreported``: what
    hooks say still comes through, and what came of the push does not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.repository = Repository(folder / "shop.git")
        self.read_only = False
        self.pushes = 0
        self.unreported = False
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def recreate(self) -> None:
        """Another repository under the same name."""
        shutil.rmtree(self.repository.folder)
        self.repository = Repository(self._folder / "shop.git")
        self.repository.commit("begin anew", {"app.toml": "pool = 5\n"}, onto=[])

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        expected = base64.b64encode(f"{USERNAME}:{TOKEN}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'}, text="who are you?")
        pushing = "git-receive-pack" in request.path_qs
        if pushing and self.read_only:
            return web.Response(status=403, text="remote: Write access to repository not granted.")
        body = await request.read()
        if pushing and request.method == "POST":
            self.pushes += 1
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            env={
                **_ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(self._folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": request.method,
                "PATH_INFO": request.path,
                "QUERY_STRING": request.query_string,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "REMOTE_USER": USERNAME,
                "REMOTE_ADDR": "127.0.0.1",
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        answer, _ = await process.communicate(body)
        head, _, rest = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        if self.unreported and pushing and request.method == "POST":
            return await _cut_short(request, headers["Content-Type"], _without_report(rest), len(rest))
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=rest)


async def _cut_short(request: web.Request, kind: str, body: bytes, promised: int) -> web.StreamResponse:
    """The connection ends after ``body``."""
    response = web.StreamResponse(headers={"Content-Type": kind, "Content-Length": str(promised)})
    await response.prepare(request)
    await response.write(body)
    assert request.transport is not None
    request.transport.close()
    return response


def _without_report(answer: bytes) -> bytes:
    """The packets of the second band, which hooks write to; the report is in the first, and a flush ends it."""
    kept = b""
    while answer and (length := int(answer[:4], 16)):
        kept += answer[:length] if answer[4] == 2 else b""
        answer = answer[length:]
    return kept


class GitProxy(Proxy):
    """Strikes pushes alone: git reads by POST too."""

    def _fault_for(self, request: Request):  # type: ignore[no-untyped-def]
        return super()._fault_for(request) if request.path.endswith("/git-receive-pack") else None

    @property
    def pushes(self) -> int:
        return sum(one.method == "POST" and one.path.endswith("/git-receive-pack") for one in self.requests)
