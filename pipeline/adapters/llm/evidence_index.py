"""Looking up which evidence carries a sentence, so that the rules engine can cite what really exists."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.changes import SHORT_REVISION
from pipeline.domain.diagnosis import Claim, Evidence
from pipeline.domain.ids import ServiceName
from pipeline.domain.review import known_instances
from pipeline.ports.model import Question

MAX_CITED = 4


class EvidenceIndex:
    """The evidence of one question, found by what it is about and by its words."""

    def __init__(self, question: Question) -> None:
        self._service = question.service
        self._evidence = tuple(question.evidence)
        self._own = {"", question.service, *known_instances(question)}

    def find(self, words: Sequence[str]) -> tuple[str, ...]:
        """Ids of measurements of the service itself whose statement, or else whose query, has one of ``words``."""
        own = [item for item in self._evidence if item.subject in self._own and item.kind in ("anomaly", "metric")]
        stated = [item for item in own if _has(item.statement, words)]
        return _ids(stated or [item for item in own if _has(item.query, words)])

    def find_about(self, services: Sequence[ServiceName]) -> tuple[str, ...]:
        """Ids of what was read about other services."""
        wanted = set(services)
        about = [item for item in self._evidence if item.subject in wanted]
        return _ids(about or [item for item in self._evidence if _has(item.statement, tuple(wanted))])

    def of_change(self, revision: str) -> tuple[str, ...]:
        """Ids of what was read about one change."""
        short = revision[:SHORT_REVISION]
        return _ids([item for item in self._evidence if item.kind == "change" and short in item.statement])

    def below(self) -> tuple[str, ...]:
        """Ids of the service graph and of what was measured at the services that this one calls."""
        measured = [item for item in self._evidence if item.kind == "metric" and item.subject not in self._own]
        return _ids([*(item for item in self._evidence if item.kind == "topology"), *measured])

    def context_claims(self, replicas: int | None) -> list[Claim]:
        """What neither confirms nor contradicts, but belongs to the picture: the target as it is."""
        targets = _ids([item for item in self._evidence if item.kind == "target"])
        if replicas is None or not targets:
            return []
        return [Claim(text=f"{self._service} runs with {replicas} replicas.", evidence=targets)]


def _has(text: str, words: Sequence[str]) -> bool:
    lowered = text.lower()
    return any(word.lower() in lowered for word in words)


def _ids(found: Sequence[Evidence]) -> tuple[str, ...]:
    return tuple(item.id for item in found[:MAX_CITED])
