"""What is alike wherever a log is emptied: which files are logs, the record that is kept of it, and what it proves."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.domain.action import LogFile
from pipeline.domain.action_words import in_mib
from pipeline.domain.errors import PreconditionFailed
from pipeline.domain.execution import Finding, Intent

LEAST_KEPT_BYTES = 1 << 20
"""Of the newest lines at least so much has to be kept, or nothing is emptied."""
MOST_LISTED = 100
"""Files of a service that are told of, the largest first."""
HEAD_BYTES = 1 << 16
"""By so many first bytes a log that was emptied and written on is told from one that was never emptied."""

_LOG = re.compile(r"[A-Za-z0-9_@%+=:,-][A-Za-z0-9_.@%+=:,-]{0,200}\.(log|out|err|log\.[0-9]{1,6})")


def is_log(name: str) -> bool:
    """``*.log``, ``*.out``, ``*.err`` and rotated ``*.log.N``; no hidden file, and no copy of ours."""
    return _LOG.fullmatch(name) is not None


class Entry(BaseModel):
    """One line of the record: an emptying that began (written before it takes effect), or that is done."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    phase: Literal["began", "done"]
    execution: int
    step: int
    fence: int
    path: str
    uid: str
    planned_bytes: int
    """The file's size in the plan: a bot with another database may have used the same execution id before."""
    size_bytes: int = 0
    head: str = ""
    """Of its first ``head_bytes``, a checksum."""
    head_bytes: int = 0
    copy_name: str = ""
    freed_bytes: int = 0


def read_entries(text: str) -> tuple[Entry, ...]:
    """The record's whole lines. One that a crash cut off was forced to the disk before no effect: it is passed over."""
    found = []
    for line in text.splitlines():
        try:
            found.append(Entry.model_validate_json(line))
        except ValidationError:
            continue
    return tuple(found)


def is_of(entry: Entry, file: LogFile, intent: Intent) -> bool:
    """Whether it tells of this very step."""
    return (entry.execution, entry.step, entry.path, entry.uid, entry.planned_bytes) == (
        int(intent.execution_id),
        intent.step,
        file.path,
        file.uid,
        file.size_bytes,
    )


@dataclass(frozen=True, slots=True)
class FileNow:
    """A file as it is, and the checksum of as many first bytes as were asked for."""

    size_bytes: int
    head: str


def is_emptied(began: Entry, now: FileNow) -> bool:
    """Whether the file was emptied since: a log that only grew is no smaller, and begins as it did."""
    return now.size_bytes < began.size_bytes or now.head != began.head


def verdict(ours: Sequence[Entry], now: FileNow | None) -> Finding | None:
    """What the record and the file prove of one step once nobody is at work; None: there is no trace of it.

    ``now`` is None when the file is gone or another one bears its name. A log whose first 64 KiB were written again
    byte by byte would pass for one that was never emptied.
    """
    if any(entry.phase == "done" for entry in ours):
        return Finding.APPLIED
    if not ours:
        return None
    if now is None:
        return Finding.UNKNOWN
    return Finding.APPLIED if is_emptied(ours[-1], now) else Finding.NOT_APPLIED


def refuse_by_record(entries: Sequence[Entry], file: LogFile, intent: Intent) -> None:
    """Raises PreconditionFailed when a later claim was here, or when this step stands already."""
    fences = [entry.fence for entry in entries if is_of(entry, file, replace(intent, step=entry.step))]
    if fences and max(fences) > intent.fence:
        raise PreconditionFailed(f"the record of {file.path} bears fence {max(fences)}, we hold {intent.fence}")
    if any(is_of(entry, file, intent) and entry.phase == "done" for entry in entries):
        raise PreconditionFailed(f"{file.path} was emptied by this very step already")


def kept_in_words(*, kept_bytes: int, size_bytes: int, copy: str, copy_bytes: int, why_not_all: str) -> str:
    """What of a log there is a copy of, and what is gone for good."""
    where = f"{copy} ({in_mib(copy_bytes)})"
    if kept_bytes >= size_bytes:
        return f"all of it is kept in {where}"
    kept = f"kept the newest {in_mib(kept_bytes).removesuffix(' MiB')} of {in_mib(size_bytes)} in {where}"
    return f"{kept}, what is older is gone: {why_not_all}"


def freed_in_words(log_bytes: int, copy_bytes: int) -> str:
    """``copy_bytes``: of a copy on the same disk."""
    net = f"{in_mib(log_bytes - copy_bytes)} freed"
    return f"{net} ({in_mib(log_bytes)} of log, less {in_mib(copy_bytes)} of copy)" if copy_bytes else net


class Permit:
    """Leave to take effect, until ``deadline_s`` from now or until the one who asked has gone; threads share it."""

    def __init__(self, deadline_s: float) -> None:
        self._until = time.monotonic() + deadline_s
        self._guard = threading.Lock()
        self._withdrawn = False
        self._begun = False

    def begin(self) -> bool:
        """Whether to go on, past the point of no return. Once True, ``withdraw`` comes too late."""
        with self._guard:
            self._begun = not self._withdrawn and time.monotonic() < self._until
            return self._begun

    def withdraw(self) -> bool:
        """Whether nothing has begun, and nothing will."""
        with self._guard:
            self._withdrawn = True
            return not self._begun
