"""The version-controlled configuration of the services: a real git repository."""

import asyncio
import os
import shutil

from bot.demo.world.spec import SPECS, WorldPaths

_AUTHOR = {"name": "Dana Ruiz", "email": "dana.ruiz@demo.invalid"}


class GitError(Exception):
    """git is missing or refused a command; the message holds git's own words."""


class ConfigRepo:
    """Creates <data dir>/world/config-repo, commits to it and reverts.

    The services read the working tree, so whatever moves it (a commit here, a revert by anybody) is deployed.
    """

    def __init__(self, paths: WorldPaths) -> None:
        """Raises: GitError when git is not installed."""
        git = shutil.which("git")
        if git is None:
            raise GitError("git is not installed; the demo world needs it: apt-get install git")
        self._git = git
        self._paths = paths

    async def ensure(self) -> None:
        """Create the repository with the first commit, unless it is there already."""
        if await self._has_commit():
            return
        self._paths.config_repo.mkdir(parents=True, exist_ok=True)
        await self._run("init", "--quiet", "--initial-branch=main")
        for spec in SPECS.values():
            self._write_timeout(spec.name, spec.upstream_timeout_ms)
        await self._run("add", "--all")
        # Dated back: what the services have run on from the beginning is no change of today.
        await self._run("commit", "--quiet", "--message", "Settings of the four services", at="2026-01-05T09:00:00Z")

    async def commit_timeout(self, service: str, timeout_ms: int, message: str) -> str:
        """Commit a new upstream time-out of `service` and return the commit's id."""
        self._write_timeout(service, timeout_ms)
        await self._run("commit", "--quiet", "--message", message, "--", self._relative(service))
        return await self.head()

    async def revert_last(self, service: str) -> str:
        """Revert the last commit that touched the settings of `service`; returns the new commit's id.

        Raises: GitError when git cannot, for example because of a conflict; the tree is then left as it was.
        """
        commit = await self.last_change(service)
        try:
            await self._run("revert", "--no-edit", commit)
        except GitError:
            await self._run("reset", "--quiet", "--hard", "HEAD")
            raise
        return await self.head()

    async def head(self) -> str:
        return await self._run("rev-parse", "HEAD")

    async def last_change(self, service: str) -> str:
        """The id of the last commit that touched the settings of `service`."""
        return await self._run("log", "-1", "--format=%H", "--", self._relative(service))

    async def _has_commit(self) -> bool:
        # Asked of our own .git: below somebody else's checkout, git would answer for the repository around it.
        if not (self._paths.config_repo / ".git").is_dir():
            return False
        try:
            await self.head()
        except GitError:
            return False
        return True

    def _relative(self, service: str) -> str:
        return str(self._paths.config_file(service).relative_to(self._paths.config_repo))

    def _write_timeout(self, service: str, timeout_ms: int) -> None:
        spec = SPECS[service]
        upstream = spec.calls or "the card provider"
        path = self._paths.config_file(service)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"# Settings of {service}. A commit to this repository is deployed within two seconds.\n"
            f"# How long {service} waits for {upstream}, in milliseconds.\n"
            f"upstream_timeout_ms = {timeout_ms}\n",
            encoding="utf-8",
        )

    async def _run(self, *arguments: str, at: str | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            self._git,
            *arguments,
            cwd=self._paths.config_repo,
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
