"""Every physical change ever made, and the durable state that follows from it."""

import json
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import JsonValue, ValidationError

from bot.demo.world.durable import replace_file_durably, sync_directory
from bot.demo.world.messages import ChangeKind, JournalEntry
from bot.demo.world.spec import SPECS


class JournalError(Exception):
    """A journal that cannot be trusted; the message says where it is broken."""


class Journal:
    """An append-only file of JSON lines, flushed to the disk before a change takes effect.

    The wanted replicas, the generation and the highest fence of each service are read off the entries, so there is
    no second copy that a crash could leave behind. The uids of the services lie beside it, written once.
    """

    def __init__(self, directory: Path) -> None:
        """Raises: JournalError, OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "journal.jsonl"
        self._uids = _service_uids(directory / "services.json")
        self._entries = self._load()

    def record(
        self,
        *,
        service: str,
        kind: ChangeKind,
        execution_id: str,
        step: int,
        fence: int,
        detail: dict[str, JsonValue],
    ) -> JournalEntry:
        """Append an entry and return when it is on the disk. Raises: OSError, and then nothing may be changed."""
        entry = JournalEntry(
            seq=len(self._entries) + 1,
            at=datetime.now(UTC),
            service=service,
            kind=kind,
            execution_id=execution_id,
            step=step,
            fence=fence,
            detail=detail,
        )
        size_bytes = self._path.stat().st_size
        try:
            with self._path.open("ab") as file:
                file.write(entry.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # Half a line, left by a full disk, would spoil the next entry; the next start drops it as well.
            os.truncate(self._path, size_bytes)
            raise
        self._entries.append(entry)
        return entry

    def entries(self, service: str | None = None, execution_id: str | None = None) -> Sequence[JournalEntry]:
        """Entries in order, of one service or one execution if asked for."""
        return [
            entry
            for entry in self._entries
            if service in (None, entry.service) and execution_id in (None, entry.execution_id)
        ]

    def uid(self, service: str) -> str:
        return self._uids[service]

    def generation(self, service: str) -> int:
        """1 for a new service and one more with each scale; a restart changes no wish, so it does not count."""
        return 1 + sum(entry.kind == "scale" for entry in self.entries(service))

    def highest_fence(self, service: str) -> int:
        return max((entry.fence for entry in self.entries(service)), default=0)

    def replicas(self, service: str, at: datetime | None = None) -> int:
        """Replicas wanted now, or at a moment in the past."""
        wanted = SPECS[service].replicas
        for entry in self.entries(service):
            if entry.kind == "scale" and (at is None or entry.at <= at):
                wanted = _replicas_of(entry)
        return wanted

    def replicas_1h_ago(self, service: str) -> int:
        return self.replicas(service, datetime.now(UTC) - timedelta(hours=1))

    def _load(self) -> list[JournalEntry]:
        if not self._path.exists():
            self._path.touch()
            sync_directory(self._path.parent)
        content = self._path.read_bytes()
        whole, separator, torn = content.rpartition(b"\n")
        if torn:
            # The writer died in the middle of a line: the change was not acknowledged and took no effect.
            os.truncate(self._path, len(whole) + len(separator))
        entries = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = JournalEntry.model_validate_json(line)
            except ValidationError as error:
                raise JournalError(f"{self._path}: line {number} is damaged") from error
            if entry.seq != number or entry.service not in SPECS:
                raise JournalError(f"{self._path}: line {number} does not follow the line before it")
            entries.append(entry)
        return entries


def _replicas_of(entry: JournalEntry) -> int:
    to = entry.detail["to"]
    if not isinstance(to, int):
        raise JournalError(f"entry {entry.seq} scales to {to!r}")
    return to


def _service_uids(path: Path) -> dict[str, str]:
    """The uids given when the world was first started; they last as long as the data directory."""
    if path.exists():
        try:
            known: dict[str, str] = json.loads(path.read_text())
            return {name: known[name] for name in SPECS}
        except (ValueError, KeyError) as error:
            raise JournalError(f"{path} is damaged: {error!r}") from error
    uids = {name: str(uuid.uuid4()) for name in SPECS}
    replace_file_durably(path, json.dumps(uids, indent=1).encode())
    return uids
