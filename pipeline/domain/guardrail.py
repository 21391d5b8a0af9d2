"""What the guardrails answer; the rules themselves stand in ``executors.guardrails``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

RuleName = Literal[
    "kill_switch",
    "blast_radius",
    "scale_cap",
    "cooldown",
    "budget",
    "concurrency",
    "change_window",
    "ineffective",
    "oscillation",
    "preconditions",
    "confidence",
    "causal_path",
    "phase",
]


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """One rule's yes or no, and why in one line. ``inputs``: every figure it judged by, and the limits it held it to.

    Units stand in the names of the figures; answers of before 0010 have none.
    """

    rule: RuleName
    allowed: bool
    reason: str
    inputs: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuardrailResult:
    """Every rule's answer. An empty result allows nothing."""

    answers: tuple[RuleAnswer, ...] = ()

    @property
    def allowed(self) -> bool:
        return bool(self.answers) and all(answer.allowed for answer in self.answers)

    @property
    def refusals(self) -> tuple[RuleAnswer, ...]:
        return tuple(answer for answer in self.answers if not answer.allowed)

    def why_refused(self) -> str:
        """``cooldown: last action 20 s ago; budget: …``; empty when nothing was refused."""
        return "; ".join(f"{answer.rule.replace('_', ' ')}: {answer.reason}" for answer in self.refusals)
