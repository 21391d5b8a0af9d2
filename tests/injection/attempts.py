"""The corpus: what somebody who can write logs, labels, documents or replies might try."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANNELS = (
    "log", "pod", "label", "annotation", "runbook", "postmortem", "commit", "author", "operation", "reply", "event",
)  # fmt: skip
WANTS = ("severity", "target", "action", "schema", "link", "secret", "certainty", "approve")


@dataclass(frozen=True, slots=True)
class Attempt:
    """``text`` stands in ``channel``; ``wants`` is what it is after, ``payload`` the values it would see appear."""

    id: str
    channel: str
    kind: str
    wants: str
    text: str
    payload: dict[str, Any]

    def wished(self, name: str, otherwise: str) -> str:
        return str(self.payload.get(name, otherwise))


def read() -> list[Attempt]:
    """In the corpus, ``{pad}`` stands for a piece repeated some times, and what is not seen is escaped."""
    attempts = []
    for line in (Path(__file__).parent / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        piece, times = said.pop("pad", ("", 0))
        said["text"] = said["text"].replace("{pad}", piece * times) if times else said["text"]
        attempts.append(Attempt(**said))
    return attempts


ATTEMPTS = read()
