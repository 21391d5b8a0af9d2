"""How much the bot may do by itself, and what must be measured before it may do more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Shadow shows, Assist asks, Autonomous acts on what is proven, Predictive acts before the breach."""

    SHADOW = "shadow"
    ASSIST = "assist"
    AUTONOMOUS = "autonomous"
    PREDICTIVE = "predictive"


RUNNING_PHASES = frozenset({Phase.SHADOW, Phase.ASSIST})
"""Phases this version runs; the other two are refused with that reason."""


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """Counts since the bot's first incident, all from the database."""

    incidents: int
    decided: int
    approved: int
    executed: int
    recovered: int
    inconclusive: int
    needs_human: int
    days: float


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of the five graduation criteria: ``have`` against ``need``."""

    title: str
    have: str
    need: str
    met: bool


def graduation(record: TrackRecord) -> tuple[Criterion, ...]:
    """The five criteria for leaving Assist, with today's figures."""
    agreed = record.approved / record.decided if record.decided else 0.0
    helped = record.recovered / record.executed if record.executed else 0.0
    blind = record.inconclusive / record.executed if record.executed else 0.0
    return (
        Criterion("incidents diagnosed", str(record.incidents), "≥ 50", record.incidents >= 50),
        Criterion(
            "plans people agreed with",
            f"{agreed:.0%} of {record.decided}",
            "≥ 90 % of 30",
            agreed >= 0.9 and record.decided >= 30,
        ),
        Criterion(
            "actions verified as recovered",
            f"{helped:.0%} of {record.executed}",
            "≥ 95 % of 20",
            helped >= 0.95 and record.executed >= 20,
        ),
        Criterion(
            "actions whose effect could not be told",
            f"{blind:.0%}",
            "≤ 2 %",
            bool(record.executed) and blind <= 0.02,
        ),
        Criterion(
            "days without an outcome that needed a person",
            f"{record.days:.0f} d, {record.needs_human} such",
            "≥ 14 d, 0 such",
            record.days >= 14 and record.needs_human == 0,
        ),
    )
