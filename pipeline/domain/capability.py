"""What the adapter of a platform declares of itself, and what its account turns out to be allowed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.action import ActionKind


@dataclass(frozen=True, slots=True)
class Offer:
    """One kind of action that a platform's adapter can carry out.

    ``reverses``: whether it can put back what stood before. ``rights``: what the account needs for it beyond reading,
    in the platform's own words. ``guarded_by``: what makes the platform refuse it once something has changed.
    """

    kind: ActionKind
    reverses: bool
    rights: tuple[str, ...]
    guarded_by: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """``observes``: what is read before, on the way and after. ``reads``: rights for that, in the platform's words.

    ``privileges`` is the file beside the adapters that grants the least of it; empty where the platform has no such.
    """

    offers: tuple[Offer, ...]
    observes: tuple[str, ...]
    reads: tuple[str, ...]
    privileges: str = ""
    settles_s: float = 0.0
    """How long the platform may take to carry something out before that is out of the ordinary; 0: no longer than
    elsewhere."""

    @property
    def kinds(self) -> frozenset[ActionKind]:
        return frozenset(offer.kind for offer in self.offers)

    def reverses(self, kind: ActionKind) -> bool:
        return any(offer.kind == kind and offer.reverses for offer in self.offers)


@dataclass(frozen=True, slots=True)
class RightCheck:
    """Whether the account holds one right; None where the platform cannot be asked without acting. ``said``: its words,
    or why it cannot tell."""

    right: str
    held: bool | None
    said: str = ""
