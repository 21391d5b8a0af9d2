"""What a candidate cause is to the rules engine: checks with weights, a path that code accepts, a certainty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.adapters.llm.evidence_index import EvidenceIndex, cited
from pipeline.domain.causal import check_path
from pipeline.domain.diagnosis import MAX_STEPS, Category, Claim, Evidence, PathStep

MAX_STEP_CITED = 4


@dataclass(frozen=True, slots=True)
class Check:
    """One fact put to a hypothesis: ``holds`` is None when it was not read; ``says`` is it in words, for or against."""

    says: str
    holds: bool | None
    weight: int
    cites: tuple[Evidence, ...]

    @property
    def verdict(self) -> int:
        """1 confirms, -1 contradicts, 0 was not read or has no evidence to show."""
        return 0 if self.holds is None or not cited(self.cites) else 1 if self.holds else -1

    def claim(self) -> Claim:
        return Claim(text=self.says[:600], evidence=cited(self.cites))


def certainty(ceiling: float, checks: Sequence[Check]) -> float:
    """ceiling · (0.5 + 0.5 · Σ weight · verdict / Σ weight): all checks hold → the ceiling, none read → half of it."""
    total = sum(check.weight for check in checks)
    balance = sum(check.weight * check.verdict for check in checks) / total if total else 0.0
    return ceiling * (0.5 + 0.5 * balance)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cause that the facts may carry. ``path`` is empty unless every step of it holds."""

    category: Category
    cause: str
    ceiling: float
    checks: tuple[Check, ...]
    path: tuple[PathStep, ...] = ()
    suspects: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def certainty(self) -> float:
        return round(certainty(self.ceiling, self.checks), 3)

    @property
    def rank(self) -> tuple[bool, float]:
        """What has a path goes before what has none."""
        return bool(self.path), self.certainty

    def weakness(self) -> str:
        """What speaks against it, in one sentence."""
        against = next((check.says for check in self.checks if check.verdict < 0), "")
        if against:
            return f"it may be at work as well, but: {against}" if self.path else against
        unread = next((check.says for check in self.checks if check.verdict == 0 and check.says), "")
        if not self.path:
            return "no chain from it to the symptoms could be shown"
        return f"not confirmed: {unread}" if unread else "less of what was read speaks for it"


@dataclass(frozen=True, slots=True)
class Link:
    """A step of a path before it is checked. ``optional`` ones are left out when the path does not hold with them."""

    what: str
    service: str
    cites: tuple[Evidence, ...]
    optional: bool = False

    def step(self) -> PathStep:
        return PathStep(
            what=self.what[:300], service=self.service, evidence=tuple(item.id for item in self.cites[:MAX_STEP_CITED])
        )


def path_of(links: Iterable[Link], category: Category, index: EvidenceIndex) -> tuple[PathStep, ...]:
    """The longest of the chains that code accepts: with all links, else without the optional ones; else nothing."""
    links = [link for link in links if link.cites and link.service]
    needed = [link for link in links if not link.optional]
    shorter = [[link for link in links if link is not one] for one in links if one.optional]
    evidence: dict[str, Evidence] = {item.id: item for item in index.items}
    for chain in (links, *shorter, needed):
        steps = tuple(link.step() for link in chain[:MAX_STEPS])
        if check_path(steps, category, index.service, evidence, index.graph).holds:
            return steps
    return ()
