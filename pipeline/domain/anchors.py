"""Anchors: what the heads of all chains were at a time, kept in a file of JSON lines outside the database.

Each line holds the SHA-256 of the line before, so that none can be edited or taken out. A line names the chains that
changed since the one before and a digest over all of them; one that is gone has entry 0 and no hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pipeline.domain.trace import JsonValue

SLACK = timedelta(minutes=10)
"""How far a row's time may lie before an anchor that has not seen it: not yet committed then, or a clock set back."""


class AnchoredHead(BaseModel):
    """The last entry of one chain at the anchor's time; ``seq`` 0: the chain was gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    incident: int
    seq: int
    hash: str


class Anchor(BaseModel):
    """One line. ``file`` names the file it belongs to, ``number`` counts from 1, ``at`` is the database's clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    file: str
    number: int
    chains: tuple[AnchoredHead, ...]
    digest: str
    previous: str

    def line(self) -> bytes:
        """As it stands in the file, without the line end."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Point:
    """An anchored entry of one chain. ``before``: the anchor earlier in the file, at which it was not there yet."""

    seq: int
    hash: str
    at: datetime
    before: datetime | None


@dataclass(slots=True)
class AnchorLog:
    """One file as read. ``wrong``: for each bad line its number and what is wrong."""

    name: str
    file: str = ""
    lines: list[bytes] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    last_at: datetime | None = None
    heads: dict[int, AnchoredHead] = field(default_factory=dict)
    points: dict[int, list[Point]] = field(default_factory=dict)
    wrong: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: bytes) -> None:
        """Takes in the next line."""
        number = len(self.hashes) + 1
        previous = self.hashes[-1] if self.hashes else ""
        self.lines.append(line)
        self.hashes.append(line_hash(line))
        try:
            anchor = Anchor.model_validate_json(line)
        except ValidationError:
            self.wrong.append((number, "is no anchor"))
            return
        self.file = self.file or anchor.file
        if anchor.previous != previous:
            lost = "lines before it were cut off" if number == 1 else f"line {number - 1} was changed, or one taken out"
            self.wrong.append((number, f"does not follow the line before: {lost}"))
        elif (anchor.number, anchor.file) != (number, self.file):
            self.wrong.append((number, f"says that it is line {anchor.number} of file {anchor.file}"))
        elif self.last_at is not None and anchor.at < self.last_at - SLACK:
            self.wrong.append((number, f"is dated {anchor.at}, before the line above it"))
        for head in anchor.chains:
            self.points.setdefault(head.incident, []).append(Point(head.seq, head.hash, anchor.at, self.last_at))
            self.heads[head.incident] = head
        self.last_at = anchor.at
        if anchor.digest != heads_digest(self.heads.values()):
            self.wrong.append((number, "its digest is not that of the chains it and the lines above name"))

    def next(self, file: str, at: datetime, now: Iterable[AnchoredHead]) -> Anchor:
        """The line to append: what is not as the file has it. ``file`` names a new file, ``now`` are all heads."""
        there = {head.incident: head for head in now}
        changed = [head for incident, head in there.items() if self.heads.get(incident) != head]
        gone = [
            AnchoredHead(incident=incident, seq=0, hash="")
            for incident, head in self.heads.items()
            if incident not in there and head.seq
        ]
        return Anchor(
            at=at,
            file=self.file or file,
            number=len(self.hashes) + 1,
            chains=tuple(sorted((*changed, *gone), key=lambda head: head.incident)),
            digest=heads_digest(there.values()),
            previous=self.hashes[-1] if self.hashes else "",
        )


def line_hash(line: bytes) -> str:
    """SHA-256 (hex) of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def heads_digest(heads: Iterable[AnchoredHead]) -> str:
    """SHA-256 (hex) over ``incident:seq:hash`` and a line end each, by incident; chains that are gone are left out."""
    there = sorted((head.incident, head.seq, head.hash) for head in heads if head.seq)
    return hashlib.sha256("".join(f"{incident}:{seq}:{hash_}\n" for incident, seq, hash_ in there).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AnchorNote:
    """What the trail of the bot says of an anchor it made: the counterpart of a line, for a file that was cut."""

    file: str
    number: int
    hash: str
    path: str
    host: str
    at: datetime

    def data(self) -> dict[str, JsonValue]:
        """As it stands in the trail."""
        return {"file": self.file, "number": self.number, "hash": self.hash, "path": self.path, "host": self.host}


def cut_anchors(logs: Iterable[AnchorLog], notes: Iterable[AnchorNote], *, host: str) -> list[tuple[AnchorNote, str]]:
    """Anchors that the trail tells of and that no file holds, the first of each file, with what is wrong.

    A file of another place or another host than ``host``, where the files were read, is not missed, as long as there is
    one that holds anchors: replicas may have one each, of the same path.
    """
    by_file = {log.file: log for log in logs if log.hashes}
    names = {log.name for log in logs}
    told: set[str] = set()
    found: list[tuple[AnchorNote, str]] = []
    for note in notes:
        if note.file in told:
            continue
        log = by_file.get(note.file)
        if log is None and (not by_file or (note.path in names and note.host == host)):
            said = f"the file {note.path} on {note.host} is gone, or another was put in its place"
        elif log is not None and len(log.hashes) < note.number:
            said = f"the file was cut: it ends with line {len(log.hashes)}, the trail tells of line {note.number}"
        elif log is not None and log.hashes[note.number - 1] != note.hash:
            said = f"line {note.number} is not the one that was written then"
        else:
            continue
        told.add(note.file)
        found.append((note, said))
    return found
