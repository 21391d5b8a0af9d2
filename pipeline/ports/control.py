"""Kill switches, phase, ticks and requests seen. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.domain.ids import ServiceName, SlackUserId
from pipeline.domain.phase import Phase, TrackRecord

EVERYTHING = "all"
ENVIRONMENT = "env:"
"""How the scope of a whole environment begins."""


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """One switch. ``scope`` is ``all``, ``env:`` and an environment's name, or a service's name.

    ``resume_asked_by`` waits for a second person.
    """

    scope: str
    engaged: bool
    reason: str
    changed_by: str
    changed_at: datetime
    resume_asked_by: str | None


def scopes_of(service: ServiceName, environment: str) -> tuple[str, str, str]:
    """The scopes that cover ``service``, the widest first."""
    return EVERYTHING, f"{ENVIRONMENT}{environment}", service


class ControlStore(Protocol):
    """Kill switches, phase, ticks and requests seen."""

    async def switches(self) -> Sequence[KillSwitch]: ...
    async def engaged(self, service: ServiceName, environment: str) -> KillSwitch | None:
        """The widest engaged switch that covers ``service`` in ``environment``, if any."""
        ...

    async def kill(self, scope: str, reason: str, user: SlackUserId) -> None: ...
    async def resume(self, scope: str, reason: str, user: SlackUserId, *, people_needed: int) -> bool:
        """True when the switch is released; False when it waits for another person."""
        ...

    async def phase(self) -> Phase | None: ...
    async def set_phase(self, phase: Phase, reason: str, user: str) -> None: ...
    async def track_record(self) -> TrackRecord: ...
    async def win_tick(self, job: str, slot: int) -> bool: ...
    async def first_time(self, key: str) -> bool:
        """True once per key, over restarts and replicas."""
        ...

    async def tokens_spent(self, *, within_s: float) -> int:
        """Tokens that models were sent and wrote in the last ``within_s`` seconds, by the trail."""
        ...
