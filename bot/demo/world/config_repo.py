"""The version-controlled configuration of the services: a real git repository."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from bot.demo.world.spec import SPECS, WorldPaths

_AUTHOR = {"name": "Dana Ruiz", "email": "dana.ruiz@demo.invalid"}
_BRANCH = "main"
_ATTEMPTS = 5
"""Of a push: two at once, and git takes one of them."""
_PAUSE_S = 0.3


class GitError(Exception):
    """git is missing or refused a command; the message holds git's own words."""


class ConfigRepo:
    """Creates <data dir>/world/config-repo and changes it as every developer does: by a push from a clone.

    The services read the working tree of the repository, and git moves it with each push that it takes. So whatever is
    pushed, by whomever, is deployed, and git itself says who was first.
    """

    def __init__(self, paths: WorldPaths) -> None:
        """Raises: GitError when git is not installed."""
        git = shutil.which("git")
        if git is None:
            raise GitError("git is not installed; the demo world needs it: apt-get install git")
        self._git = git
        self._paths = paths
        self._repo = paths.config_repo
        self._clone = paths.config_clone

    async def ensure(self) -> None:
        """Create the repository with the first commit, unless it is there already, and a fresh clone of it."""
        if not await self._has_commit():
            self._repo.mkdir(parents=True, exist_ok=True)
            await self._run(self._repo, "init", "--quiet", f"--initial-branch={_BRANCH}")
            for spec in SPECS.values():
                self._write_timeout(self._repo, spec.name, spec.upstream_timeout_ms)
            await self._run(self._repo, "add", "--all")
            # Dated back: what the services have run on from the beginning is no change of today.
            first = "Settings of the four services"
            await self._run(self._repo, "commit", "--quiet", "--message", first, at="2026-01-05T09:00:00Z")
        await self._run(self._repo, "config", "receive.denyCurrentBranch", "updateInstead")
        # A tree that is not as it was committed takes no push, and a git that was killed leaves its lock behind.
        (self._repo / ".git" / "index.lock").unlink(missing_ok=True)
        await self._run(self._repo, "reset", "--quiet", "--hard", "HEAD")
        if self._clone.exists():
            shutil.rmtree(self._clone)
        await self._run(self._repo, "clone", "--quiet", "--branch", _BRANCH, str(self._repo), str(self._clone))

    async def commit_timeout(self, service: str, timeout_ms: int, message: str) -> None:
        """Push a new upstream time-out of `service`. Raises: GitError, also when it is that already."""

        async def commit() -> bool:
            self._write_timeout(self._clone, service, timeout_ms)
            await self._run(self._clone, "commit", "--quiet", "--message", message, "--", self._file(service))
            return True

        await self._push(commit)

    async def revert_last(self, service: str, *, unless: Callable[[Path], bool]) -> None:
        """Push a revert of the last commit that touched the settings of `service`.

        Nothing is done when the settings, as they were pushed last, meet `unless`: somebody else was faster.

        Raises: GitError when git cannot, for example because of a conflict; nothing is changed then.
        """

        async def revert() -> bool:
            if unless(self._clone / self._file(service)):
                return False
            last = await self._run(self._clone, "log", "-1", "--format=%H", "--", self._file(service))
            await self._run(self._clone, "revert", "--no-edit", last)
            return True

        await self._push(revert)

    async def last_change(self, service: str) -> str:
        """The id of the last commit that touched the settings of `service`, as they are deployed."""
        return await self._run(self._repo, "log", "-1", "--format=%H", "--", self._file(service))

    async def _push(self, commit: Callable[[], Awaitable[bool]]) -> None:
        """Have `commit` change the clone, on top of what was pushed last, and push it; again when another was faster.

        `commit` says whether there is anything to push.
        """
        for left in reversed(range(_ATTEMPTS)):
            await self._run(self._clone, "fetch", "--quiet", "origin", _BRANCH)
            await self._run(self._clone, "reset", "--quiet", "--hard", "FETCH_HEAD")
            if not await commit():
                return
            try:
                await self._run(self._clone, "push", "--quiet", "origin", f"HEAD:{_BRANCH}")
            except GitError:
                if not left:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _has_commit(self) -> bool:
        # Asked of our own .git: below somebody else's checkout, git would answer for the repository around it.
        if not (self._repo / ".git").is_dir():
            return False
        try:
            await self._run(self._repo, "rev-parse", "--verify", "--quiet", "HEAD")
        except GitError:
            return False
        return True

    def _file(self, service: str) -> str:
        return str(self._paths.config_file(service).relative_to(self._repo))

    def _write_timeout(self, tree: Path, service: str, timeout_ms: int) -> None:
        upstream = SPECS[service].calls or "the card provider"
        path = tree / self._file(service)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"# Settings of {service}. What is pushed to this repository is deployed within two seconds.\n"
            f"# How long {service} waits for {upstream}, in milliseconds.\n"
            f"upstream_timeout_ms = {timeout_ms}\n",
            encoding="utf-8",
        )

    async def _run(self, tree: Path, *arguments: str, at: str | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            self._git,
            *arguments,
            cwd=tree,
            env=_environment() | ({"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        text = output.decode(errors="replace").strip()
        if process.returncode != 0:
            raise GitError(f"git {arguments[0]}: {text}")
        return text


def _environment() -> dict[str, str]:
    """An environment of our own: no settings of the user, no GIT_DIR of a hook that started us."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": _AUTHOR["name"],
        "GIT_AUTHOR_EMAIL": _AUTHOR["email"],
        "GIT_COMMITTER_NAME": _AUTHOR["name"],
        "GIT_COMMITTER_EMAIL": _AUTHOR["email"],
    }
