"""Logs of a host without a log server: files named after the instance that writes them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from pipeline.adapters.telemetry.guard import Guard
from pipeline.domain.errors import PermanentError, SreBotError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.telemetry import SourceFailure

TAIL_BYTES = 1024 * 1024
"""Of each file the last megabyte is looked at: a log may be gigabytes, and only its end is about now."""
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?)\s+(.*)", re.DOTALL)


class LogFilesSource:
    """Reads ``<folder>/<service>-<number>.log`` (or ``<service>.log``), whose lines begin with an ISO 8601 time.

    A time without a zone is UTC. Lines without a time belong to the line before them (a stack trace) and are left out.
    """

    def __init__(self, folder: Path, *, timeout_s: float = 5.0) -> None:
        self._folder = folder
        self._guard = Guard("log files", timeout_s=timeout_s, concurrency=2)

    @property
    def name(self) -> str:
        return "log files"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        return await self._read(lambda line: since <= line.at < until, limit)

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        return await self._read(
            lambda line: line.service == service and text in line.text and since <= line.at < until, limit
        )

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _read(self, wanted: Callable[[LogLine], bool], limit: int) -> LogReading:
        try:
            async with self._guard.call():
                lines = await asyncio.to_thread(self._lines, wanted)
        except SreBotError as error:
            return LogReading(failures=(SourceFailure(self.name, str(error)),))
        return LogReading(tuple(lines[-limit:]), truncated=len(lines) > limit)

    def _lines(self, wanted: Callable[[LogLine], bool]) -> list[LogLine]:
        if not self._folder.is_dir():
            raise PermanentError(f"{self._folder} is no folder")
        try:
            found = [line for file in sorted(self._folder.glob("*.log")) for line in _parsed(file) if wanted(line)]
        except OSError as error:
            raise PermanentError(f"{error.filename}: {error.strerror}") from error
        return sorted(found, key=lambda line: line.at)


def _parsed(file: Path) -> Iterator[LogLine]:
    service = ServiceName(re.sub(r"-\d+$", "", file.stem))
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - TAIL_BYTES))
        text = opened.read(TAIL_BYTES).decode(errors="replace")
    # The first line may be cut in two.
    for line in islice(text.splitlines(), 1 if size > TAIL_BYTES else 0, None):
        if (match := _STAMP.fullmatch(line)) is None:
            continue
        at = datetime.fromisoformat(match[1].replace(",", "."))
        yield LogLine(at if at.tzinfo else at.replace(tzinfo=UTC), service, match[2], file.stem)
