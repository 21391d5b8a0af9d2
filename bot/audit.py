"""``sre-bot audit``: the whole trail checked against itself, the decisions and the anchors; one incident as a file."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.domain.anchors import Anchor, AnchorLog, AnchorNote, cut_anchors
from pipeline.domain.audit import (
    ChainCheck,
    DecisionRow,
    Defect,
    Fault,
    TrailRow,
    decisions_by_incident,
)
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import JsonValue
from pipeline.ports.trail import TrailArchive

CleanJson = Callable[[JsonValue], JsonValue]
FORMAT = "sre-bot audit export 1"
HOW = {
    "trail": (
        "A row's hash is the SHA-256 (hex) of a text in UTF-8. Version 2: the fields '2', previous, incident, seq, "
        "at_us, kind, summary, data, each written as <number of its UTF-8 bytes>:<field>, and joined (netstrings). "
        "Version 1: the fields previous, incident, seq, at_us, kind, summary, data joined by '|'. Numbers are decimal. "
        "at_us is the time in microseconds since 1970-01-01 UTC. data is the very text that was hashed (JSON: parse it "
        "to read it, hash it as it stands). previous is the hash of the row before, '' for seq 1; seq counts from 1 "
        "without gaps; at_us never falls (version 1: by a minute at most). The last row is the one in head."
    ),
    "plans": (
        "A plan's hash is the SHA-256 (hex) of hashed_text: five lines joined by \\n, without one at the end: the "
        "incident, the revision, the action as JSON, the target as JSON (empty: none), the target's generation."
    ),
    "approvals": (
        "Each is in the trail as a row of kind 'approval' whose data has its id (approval), plan, plan hash, user, "
        "decision, at_us, and the SHA-256 (hex) of its reason; its plan_hash is the hash of that plan. A reason in "
        "which a secret was blacked out here has another hash."
    ),
    "anchors": (
        "Lines of the file of anchors that name this incident's chain: at that time the chain's last row had that seq "
        "and hash. Compare with the row of that seq, and the line with the file itself, where each line's 'previous' "
        "is the SHA-256 (hex) of the line before, without its line end."
    ),
    "secrets": "They were blacked out before a row was written: the hash covers the row as it stands here.",
}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was checked, and the first defect of each chain and file. ``elsewhere``: anchors of files not at hand."""

    chains: int
    rows: int
    decisions: int
    anchors: int
    elsewhere: int
    defects: tuple[Defect, ...]

    @property
    def ok(self) -> bool:
        return not self.defects

    def lines(self) -> list[str]:
        """For people."""
        checked = f"{self.chains} chains, {self.rows} entries, {self.decisions} decisions, {self.anchors} anchors"
        away = [f"{self.elsewhere} anchors are in files of other places: give those with --anchors"]
        bad = [f"❌ {defect.describe()}" for defect in self.defects]
        verdict = "the trail holds" if self.ok else f"{len(bad)} broken"
        return [*bad, f"checked {checked}: {verdict}", *(away if self.elsewhere else [])]

    def as_json(self) -> str:
        return json.dumps({"ok": self.ok, **asdict(self)})


async def verify(archive: TrailArchive, logs: Sequence[AnchorLog], incident_id: IncidentId | None) -> AuditReport:
    """Checks every chain, or one. Rows pass through, a few hundred at a time.

    Raises ConfigurationError when nothing is known of ``incident_id``; TemporaryError when the database is away.
    """
    async with archive.snapshot() as snapshot:
        heads = await snapshot.heads(incident_id)
        decisions = await snapshot.decisions(incident_id)
        notes = await snapshot.anchored()
        by_incident = decisions_by_incident(decisions)
        anchored = {IncidentId(one) for log in logs for one in log.points}
        expected = {*heads, *by_incident, *(anchored if incident_id is None else anchored & {incident_id})}
        found: dict[IncidentId, Defect] = {}
        rows = 0

        def begin(one: IncidentId) -> ChainCheck:
            return ChainCheck(one, logs, by_incident.get(one, ()))

        def end(one: IncidentId, check: ChainCheck) -> None:
            defect = check.end(heads.get(one))
            if defect is not None:
                found[one] = defect

        current: tuple[IncidentId, ChainCheck] | None = None
        chains = 0
        async for row in snapshot.rows(incident_id):
            rows += 1
            if current is None or current[0] != row.incident_id:
                if current is not None:
                    end(*current)
                current = row.incident_id, begin(row.incident_id)
                expected.discard(row.incident_id)
                chains += 1
            current[1].row(row)
        if current is not None:
            end(*current)
        for one in expected:
            end(one, begin(one))
    if incident_id is not None and not chains and not expected:
        raise ConfigurationError(f"INC-{incident_id} has no trail here")
    return AuditReport(
        chains=chains + len(expected),
        rows=rows,
        decisions=len(decisions),
        anchors=sum(len(log.hashes) for log in logs),
        elsewhere=_elsewhere(logs, notes),
        defects=(*(found[one] for one in sorted(found)), *_file_defects(logs, notes)),
    )


def _file_defects(logs: Sequence[AnchorLog], notes: Sequence[AnchorNote]) -> list[Defect]:
    edited = [(f"{log.name}, line {log.wrong[0][0]} {log.wrong[0][1]}") for log in logs if log.wrong]
    cut = [
        f"anchor {note.number} of {note.at.isoformat()}: {said}"
        for note, said in cut_anchors(logs, notes, host=socket.gethostname())
    ]
    return [Defect(None, None, Fault.ANCHORS, said) for said in (*edited, *cut)]


def _elsewhere(logs: Sequence[AnchorLog], notes: Sequence[AnchorNote]) -> int:
    missed = {note.file for note, _ in cut_anchors(logs, notes, host=socket.gethostname())}
    here = {log.file for log in logs} | missed
    return sum(note.file not in here for note in notes)


async def export(
    archive: TrailArchive, logs: Sequence[AnchorLog], incident_id: IncidentId, clean: CleanJson
) -> tuple[str, Defect | None]:
    """Everything of one incident as JSON, checked on the way out: with the first defect, if there is one.

    ``clean`` takes secrets out of what was not hashed. Raises ConfigurationError when there is no such incident.
    """
    async with archive.snapshot() as snapshot:
        facts = await snapshot.facts(incident_id)
        if facts is None:
            raise ConfigurationError(f"INC-{incident_id} is not known here")
        head = (await snapshot.heads(incident_id)).get(incident_id)
        decisions = await snapshot.decisions(incident_id)
        rows = [row async for row in snapshot.rows(incident_id)]
        made_at = snapshot.at
    check = ChainCheck(incident_id, logs, decisions)
    for row in rows:
        check.row(row)
    defect = check.end(head)
    exported = {
        "format": FORMAT,
        "made_at": made_at.isoformat(),
        "incident": clean(facts["incident"]),
        "plans": facts["plans"],
        "approvals": [_decision(row, clean) for row in decisions],
        "executions": clean(facts["executions"]),
        "trail": {"head": asdict(head) if head else None, "rows": [_row(row) for row in rows]},
        "anchors": [
            {"file": log.name, "number": number, "line": line.decode(), "sha256": log.hashes[number - 1]}
            for log in logs
            for number, line in enumerate(log.lines, start=1)
            if any(head["incident"] == incident_id for head in _chains(line))
        ],
        "how_hashes_are_made": HOW,
        "checked": {"ok": defect is None, "said": defect.describe() if defect else "the trail holds"},
    }
    return json.dumps(exported, ensure_ascii=False, indent=1), defect


def _decision(row: DecisionRow, clean: CleanJson) -> dict[str, Any]:
    reason = clean(row.reason)
    return {
        **{name: getattr(row, name) for name in ("id", "plan_id", "plan_hash", "user_id", "decision")},
        "at": row.at.isoformat(),
        "at_us": row.entry()["at_us"],
        "reason": reason,
        "reason_as_hashed": reason == row.reason,
    }


def _chains(line: bytes) -> list[dict[str, Any]]:
    try:
        return [head.model_dump() for head in Anchor.model_validate_json(line).chains]
    except ValidationError:
        return []


def _row(row: TrailRow) -> dict[str, Any]:
    stored = asdict(row)
    return {**stored, "incident": stored.pop("incident_id"), "at": row.at.isoformat(), "at_us": row.at_us}
