"""Changes from a git repository whose commits are deployed: GitOps manifests, configuration."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import one_line
from pipeline.domain.changes import OURS, ChangeEvent, ChangeKind, ChangeReading
from pipeline.domain.errors import ConfigurationError, PermanentError, SreBotError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SourceFailure

_TRAILER = "Sre-Bot-Execution"
"""On commits that the bot made, by whatever account and way they came here."""
_FIELD, _RECORD = "\x1f", "\x1e"


class GitChanges:
    """Commits of ``branch`` in a local clone, each a change of the services whose files it touches.

    A file belongs to the service that its path names below ``folder``: ``services/checkout.toml`` and
    ``services/checkout/values.yaml`` are both ``checkout``'s when ``folder`` is ``services``. A commit counts from its
    committer date. Raises ConfigurationError when git is missing or ``repository`` is none.
    """

    def __init__(
        self, repository: Path, *, folder: str = "services", branch: str = "HEAD", timeout_s: float = 10.0
    ) -> None:
        git = shutil.which("git")
        if git is None:
            raise ConfigurationError("git is not installed: apt-get install git, or leave SRE_CHANGES_REPO empty")
        if not (repository / ".git").exists() and not (repository / "HEAD").exists():
            raise ConfigurationError(f"SRE_CHANGES_REPO: {repository} is no git repository")
        self._git = git
        self._repository = repository
        self._folder = PurePosixPath(folder)
        self._branch = branch
        self._guard = Guard("git", timeout_s=timeout_s, concurrency=1)

    @property
    def name(self) -> str:
        return "git"

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        """Commits of the window, oldest first; one that touches two services is a change of each."""
        try:
            async with self._guard.call():
                text = await self._log(since, until)
        except SreBotError as error:
            return ChangeReading(failures=(SourceFailure(self.name, str(error)),))
        found = sorted(self._parse(text), key=lambda change: change.at)
        return ChangeReading(tuple(change for change in found if since <= change.at < until))

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _log(self, since: datetime, until: datetime) -> str:
        process = await asyncio.create_subprocess_exec(
            self._git,
            "log",
            self._branch,
            "--no-merges",
            "--name-only",
            f"--since={since.isoformat()}",
            f"--until={until.isoformat()}",
            f"--format={_RECORD}%H{_FIELD}%ct{_FIELD}%an{_FIELD}%(trailers:key={_TRAILER},separator=%x2C){_FIELD}%s",
            "--",
            str(self._folder),
            cwd=self._repository,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, trouble = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise PermanentError(f"git log: {one_line(trouble.decode(errors='replace'))}")
        return output.decode(errors="replace")

    def _parse(self, text: str) -> Iterator[ChangeEvent]:
        for record in text.split(_RECORD)[1:]:
            head, _, files = record.partition("\n")
            revision, at_s, author, ours, title = head.split(_FIELD, 4)
            for service in sorted({name for line in files.splitlines() if (name := self._service(line))}):
                yield ChangeEvent(
                    ServiceName(service),
                    datetime.fromtimestamp(int(at_s), UTC),
                    ChangeKind.CONFIGURATION,
                    revision,
                    one_line(title),
                    OURS if ours else author,
                )

    def _service(self, path: str) -> str:
        file = PurePosixPath(path)
        if not path or not file.is_relative_to(self._folder):
            return ""
        parts = file.relative_to(self._folder).parts
        return parts[0] if len(parts) > 1 else PurePosixPath(parts[0]).stem
