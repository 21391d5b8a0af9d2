"""Identifiers. Each is its own type, so that one can never be passed for another."""

from typing import NewType

IncidentId = NewType("IncidentId", int)
"""Row id of an incident; shown to people as ``INC-<id>``."""
PlanId = NewType("PlanId", int)
ExecutionId = NewType("ExecutionId", int)
OutboxId = NewType("OutboxId", int)
EvidenceId = NewType("EvidenceId", str)
"""Short id of a piece of evidence inside one incident: ``E1``, ``E2``, … as cited on the card."""
ServiceName = NewType("ServiceName", str)
SlackUserId = NewType("SlackUserId", str)


def incident_label(incident_id: IncidentId) -> str:
    """``INC-42``."""
    return f"INC-{incident_id}"


def parse_incident_label(text: str) -> IncidentId | None:
    """Reads ``INC-42``, ``inc42`` or ``42``; None when the text is no incident's label."""
    digits = text.strip().upper().removeprefix("INC").removeprefix("-")
    return IncidentId(int(digits)) if digits.isdecimal() and digits.isascii() and len(digits) <= 18 else None
