"""Identifiers. Each is its own type, so that one can never be passed for another."""

import re
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

_LABEL = re.compile(r"(?:INC-?)?([0-9]{1,18})", re.ASCII | re.IGNORECASE)


def incident_label(incident_id: IncidentId) -> str:
    """``INC-42``."""
    return f"INC-{incident_id}"


def parse_incident_label(text: str) -> IncidentId | None:
    """Reads ``INC-42``, ``inc42`` or ``42``; None when the text is no incident's label."""
    found = _LABEL.fullmatch(text.strip())
    return IncidentId(int(found[1])) if found else None
