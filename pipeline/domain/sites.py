"""What of a service can be acted on, as it was read when a plan is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.domain.action import ActionKind
from pipeline.domain.capability import Declaration
from pipeline.domain.catalogue import Role
from pipeline.domain.plan import TargetState

NOTHING = Declaration((), (), ())


@dataclass(frozen=True, slots=True)
class Site:
    """One of them. ``state`` is None when it cannot be read, or is not known: ``problem`` says why."""

    role: Role
    state: TargetState | None = None
    problem: str = ""
    declared: Declaration = NOTHING

    def takes(self, kind: ActionKind) -> bool:
        """Whether this very target can be asked for it now."""
        return self.state is not None and kind in self.declared.kinds and kind not in self.state.refuses

    def why_not(self, kind: ActionKind) -> str:
        """Why it does not take it; empty when it does."""
        if self.state is None:
            return self.problem
        if kind not in self.declared.kinds:
            return f"{self.state.ref.platform} has no {kind.replace('_', ' ')}"
        return self.state.refuses.get(kind, "")


Sites = Mapping[Role, Site]
