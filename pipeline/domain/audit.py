"""The check of the trail: every hash computed again, apart from the database, over rows as they are read.

What each hash covers, so that anybody can compute it with SHA-256 alone:

- an entry, version 2: the fields ``2``, previous hash, incident, number, time in µs since 1970 UTC, kind, summary,
  data, each as ``<length in UTF-8 bytes>:<text>,`` and all joined (D. J. Bernstein's netstrings);
- an entry, version 1 (databases of before): the fields from the previous hash on, joined by ``|``;
- a plan: ``pipeline.domain.plan.plan_text``; a decision stands in the trail as an entry of kind ``approval``.

The database gives a time that never lies before the entry above: a clock that was set back stands still in the trail.
So an entry that does was not written by it; only those of version 1 are allowed ``CLOCK_STEP``. Nor may an entry lie
before an anchor that has not seen it, by more than ``anchors.SLACK``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pipeline.domain.anchors import SLACK, AnchorLog, Point
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import JsonValue, TraceKind

CLOCK_STEP = timedelta(minutes=1)
"""How far a clock of before may have been set back between two entries."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrailRow:
    """One entry with everything that goes into its hash; ``data`` is the very text that was hashed."""

    incident_id: IncidentId
    version: int
    seq: int
    at: datetime
    kind: str
    summary: str
    data: str
    previous: str
    hash: str

    @property
    def at_us(self) -> int:
        return microseconds(self.at)

    def computed(self) -> str:
        """The hash as it has to be."""
        parts = [self.previous, str(self.incident_id), str(self.seq), str(self.at_us), self.kind, self.summary]
        text = "|".join((*parts, self.data)) if self.version == 1 else netstrings("2", *parts, self.data)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The last entry of a chain, as the database keeps it beside the chain."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One row of ``approvals`` with the plan it is about; ``plan_computed`` is the plan's hash as it has to be."""

    id: int
    incident_id: IncidentId
    plan_id: int
    plan_hash: str
    user_id: str
    decision: str
    reason: str
    at: datetime
    plan_stored: str
    plan_computed: str

    def entry(self) -> dict[str, JsonValue]:
        """The data of its entry in the trail."""
        return {
            "approval": self.id,
            "plan": self.plan_id,
            "hash": self.plan_hash,
            "user": self.user_id,
            "decision": self.decision,
            "reason_sha256": hashlib.sha256(self.reason.encode()).hexdigest(),
            "at_us": microseconds(self.at),
        }


class Fault(StrEnum):
    """What was done to the trail."""

    CHANGED = "changed"
    MISSING = "missing"
    TAIL_CUT = "tail cut"
    REMOVED = "chain removed"
    BACK_DATED = "back-dated"
    FORGED = "forged"
    REWRITTEN = "rewritten"
    DECISION = "decision changed"
    ANCHORS = "anchor file"


@dataclass(frozen=True, slots=True)
class Defect:
    """The first thing wrong with a chain (``seq`` counts from 1) or, without an incident, with a file of anchors."""

    incident_id: IncidentId | None
    seq: int | None
    fault: Fault
    said: str

    def describe(self) -> str:
        where = self.said if self.incident_id is None else f"{chain_label(self.incident_id)} {self.said}"
        return f"{where} ({self.fault})"


def chain_label(incident_id: IncidentId) -> str:
    """``INC-7``, or the bot's own trail."""
    return f"INC-{incident_id}" if incident_id else "INC-0 (the bot as a whole)"


def microseconds(at: datetime) -> int:
    """Since 1970 UTC, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def netstrings(*fields: str) -> str:
    """Fields that cannot be shifted into one another."""
    return "".join(f"{len(field.encode())}:{field}," for field in fields)


class ChainCheck:
    """Takes the rows of one chain in order of their numbers; says the first thing that does not fit.

    ``logs``: files of anchors. ``decisions``: the incident's approvals, or None to leave them unchecked.
    """

    def __init__(
        self,
        incident_id: IncidentId,
        logs: Sequence[AnchorLog] = (),
        decisions: Sequence[DecisionRow] | None = None,
    ) -> None:
        self._incident_id = incident_id
        self._witnesses = [_Witness(log, incident_id) for log in logs if log.last_at is not None]
        self._decisions = {row.id: row for row in decisions} if decisions is not None else None
        self._last: TrailRow | None = None
        self._found: Defect | None = None

    def row(self, row: TrailRow) -> Defect | None:
        """Checks the next row. After the first defect nothing more is looked at."""
        if self._found is None:
            self._found = self._order(row) or self._time(row) or self._anchored(row) or self._decision(row)
            self._last = row
        return self._found

    def end(self, head: ChainHead | None) -> Defect | None:
        """Checks the tail against the chain's head, the anchors and the decisions. The first defect of the chain."""
        return self._found or self._tail(head) or self._undecided()

    def _order(self, row: TrailRow) -> Defect | None:
        above = self._last
        expected = above.seq + 1 if above else 1
        if row.seq > expected:
            return self._defect(expected, Fault.MISSING, f"entry {expected} is missing: {row.seq} comes in its place")
        if row.seq < expected:
            return self._defect(row.seq, Fault.FORGED, f"entry {row.seq} has a number that is none")
        known = (1, 2) if above is None or above.version == 1 else (2,)
        if row.version not in known:
            return self._defect(row.seq, Fault.CHANGED, f"entry {row.seq} has a hash of version {row.version}")
        if row.hash != row.computed():
            return self._defect(row.seq, Fault.CHANGED, f"entry {row.seq} is not what was hashed")
        if row.previous != (above.hash if above else ""):
            follows = f"does not follow entry {row.seq - 1}: one of them was changed" if above else "is not the first"
            return self._defect(row.seq, Fault.CHANGED, f"entry {row.seq} {follows}")
        return None

    def _time(self, row: TrailRow) -> Defect | None:
        above = self._last
        slack = CLOCK_STEP if row.version == 1 else timedelta(0)
        if above is not None and row.at < above.at - slack:
            said = f"entry {row.seq} says {row.at.isoformat()}, before entry {above.seq} of {above.at.isoformat()}"
            return self._defect(row.seq, Fault.BACK_DATED, said)
        for witness in self._witnesses:
            unseen = witness.unseen_at()
            if unseen is not None and row.at < unseen - SLACK:
                said = f"entry {row.seq} says {row.at.isoformat()}; the anchor of {unseen.isoformat()} has not seen it"
                return self._defect(row.seq, Fault.BACK_DATED, said)
        return None

    def _anchored(self, row: TrailRow) -> Defect | None:
        for witness in self._witnesses:
            first = witness.good + 1
            if (point := witness.contradicts(row)) is not None:
                said = f"entries {first} to {row.seq} are" if first < row.seq else f"entry {row.seq} is"
                said += f" not what the anchor of {point.at.isoformat()} holds"
                return self._defect(first, Fault.REWRITTEN, said)
        return None

    def _decision(self, row: TrailRow) -> Defect | None:
        if self._decisions is None or row.kind != TraceKind.APPROVAL:
            return None
        told = json.loads(row.data)
        number = told.get("approval") if isinstance(told, dict) else None
        decision = self._decisions.pop(number, None) if isinstance(number, int) else None
        if decision is None:
            return self._defect(row.seq, Fault.DECISION, f"decision {number} of entry {row.seq} is gone from approvals")
        ours = decision.entry()
        if different := [name for name in ours if told.get(name) != ours[name]]:
            said = f"decision {number} in approvals is not that of entry {row.seq}: {', '.join(different)}"
            return self._defect(row.seq, Fault.DECISION, said)
        if not decision.plan_hash == decision.plan_stored == decision.plan_computed:
            said = f"plan {decision.plan_id} is not the one that was decided on in entry {row.seq}"
            return self._defect(row.seq, Fault.DECISION, said)
        return None

    def _tail(self, head: ChainHead | None) -> Defect | None:
        last = self._last.seq if self._last else 0
        lost = [point for witness in self._witnesses if (point := witness.beyond(last)) is not None]
        fault = Fault.TAIL_CUT if last else Fault.REMOVED
        if lost:
            point = min(lost, key=lambda one: one.at)
            said = (
                f"entry {last + 1} is missing, and all after it: the anchor of {point.at.isoformat()} holds {point.seq}"
            )
            return self._defect(last + 1, fault, said)
        if head is None:
            return self._defect(last + 1, fault, f"has no head: entries after {last} may be missing") if last else None
        if head.seq > last:
            return self._defect(last + 1, fault, f"entry {last + 1} is missing, and all up to {head.seq}")
        if head.seq < last:
            said = f"entry {head.seq + 1} was not written by the trail, whose head is {head.seq}"
            return self._defect(head.seq + 1, Fault.FORGED, said)
        if self._last is not None and head.hash != self._last.hash:
            return self._defect(last, Fault.CHANGED, f"entry {last} is not the one at the head of the chain")
        return None

    def _undecided(self) -> Defect | None:
        if not self._decisions:
            return None
        number, decision = min(self._decisions.items())
        said = f"decision {number} of plan {decision.plan_id} by {decision.user_id} is in approvals, not in the trail"
        return self._defect(None, Fault.DECISION, said)

    def _defect(self, seq: int | None, fault: Fault, said: str) -> Defect:
        return Defect(self._incident_id, seq, fault, said)


class _Witness:
    """What one file of anchors says of one chain; asked with growing numbers."""

    def __init__(self, log: AnchorLog, incident_id: IncidentId) -> None:
        self._points = [point for point in log.points.get(incident_id, []) if point.seq]
        self._last_at = log.last_at
        self._next = 0
        self.good = 0
        """The last entry that an anchor bears out."""

    def unseen_at(self) -> datetime | None:
        """The last anchor at which the next entry was not there yet."""
        return self._points[self._next].before if self._next < len(self._points) else self._last_at

    def contradicts(self, row: TrailRow) -> Point | None:
        while self._next < len(self._points) and self._points[self._next].seq <= row.seq:
            point = self._points[self._next]
            self._next += 1
            if point.seq == row.seq and point.hash != row.hash:
                return point
            self.good = point.seq
        return None

    def beyond(self, last: int) -> Point | None:
        """The first anchor that holds an entry after ``last``."""
        return next((point for point in self._points if point.seq > last), None)


def decisions_by_incident(rows: Sequence[DecisionRow]) -> Mapping[IncidentId, list[DecisionRow]]:
    """Of each incident its decisions."""
    found: dict[IncidentId, list[DecisionRow]] = {}
    for row in rows:
        found.setdefault(row.incident_id, []).append(row)
    return found
