"""What the guardrails answer; the rules themselves stand in ``executors.guardrails``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RuleName = Literal[
    "kill_switch",
    "blast_radius",
    "scale_cap",
    "cooldown",
    "budget",
    "preconditions",
    "confidence",
    "causal_path",
    "phase",
]


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """One rule's yes or no, and the figures it rests on, in one line."""

    rule: RuleName
    allowed: bool
    reason: str


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
