"""The trail of one incident: append-only entries, chained by hash in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


class TraceKind(StrEnum):
    """What an entry records."""

    DETECTED = "detected"
    FOLDED = "folded"
    LIFECYCLE = "lifecycle"
    SEVERITY = "severity"
    RETRIEVED = "retrieved"
    TOOL_CALL = "tool_call"
    PROMPT = "prompt"
    HYPOTHESIS = "hypothesis"
    PATH = "path"
    REVIEW = "review"
    CONFIDENCE = "confidence"
    PLANNED = "planned"
    GUARDRAILS = "guardrails"
    DECISION = "decision"
    APPROVAL = "approval"
    """A row of ``approvals``, word for word: written by the database, with the row."""
    DENIED = "denied"
    LOCK = "lock"
    EXECUTION = "execution"
    RECOVERY = "recovery"
    VERIFICATION = "verification"
    QUESTION = "question"
    SWITCH = "switch"
    PHASE = "phase"
    FEEDBACK = "feedback"
    NOTE = "note"
    ANCHOR = "anchor"
    """A line was added to the file of anchors."""


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """``summary`` is one line for people; ``data`` is what an auditor needs to check it."""

    kind: TraceKind
    summary: str
    data: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class StoredTraceEntry:
    """An entry as the database keeps it; ``seq`` counts from 1 within its incident."""

    seq: int
    at: datetime
    entry: TraceEntry
