"""The execution's marks on an object, written together with the change that they prove."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.domain.errors import PreconditionFailed
from pipeline.domain.execution import Finding, Intent

_EXECUTION = "sre-bot/execution"
_STEP = "sre-bot/step"
_FENCE = "sre-bot/fence"
_GENERATION = "sre-bot/generation"
"""The generation that was acted upon: a bot with another database may have used the same execution id before."""


def marks(intent: Intent) -> dict[str, str]:
    return {
        _EXECUTION: str(intent.execution_id),
        _STEP: str(intent.step),
        _FENCE: str(intent.fence),
        _GENERATION: intent.generation,
    }


def placeholders(generation: str) -> dict[str, str]:
    """The marks where there is no execution yet."""
    return {_EXECUTION: "<execution>", _STEP: "<step>", _FENCE: "<fence>", _GENERATION: generation}


def one_line(written: Mapping[str, str]) -> str:
    """Which execution it was, for a place that takes a single text."""
    return f"execution {written[_EXECUTION]}, step {written[_STEP]}, at generation {written[_GENERATION]}"


def hold_fence(seen: Mapping[str, str], intent: Intent, what: str) -> None:
    """Raises PreconditionFailed when a later holder of the same execution has written already."""
    if seen.get(_EXECUTION) == str(intent.execution_id) and _number(seen.get(_FENCE)) > intent.fence:
        raise PreconditionFailed(f"{what} bears fence {seen[_FENCE]}, we hold {intent.fence}")


def finding(seen: Mapping[str, str], intent: Intent, *, moved: bool, marks_come_back: bool = False) -> Finding | None:
    """What an object's annotations prove. ``moved``: it is no more at the generation that the write was bound to.
    ``marks_come_back``: annotations that stood on it before may be written back, as on a Deployment, whose controller
    copies them to its ReplicaSets and whose ``kubectl rollout undo`` puts those of an old one in place of what stands.

    Ours on it: applied. An earlier execution's on one that has moved: not applied, and the server refuses our
    resourceVersion by now; unless marks come back, for then ours may have stood there in between. None, or those of a
    later one, on one that has moved: ours may have stood there and been replaced. None where it could still land.
    """
    ours = marks(intent)
    if all(seen.get(mark) == ours[mark] for mark in (_EXECUTION, _STEP, _GENERATION)):
        return Finding.APPLIED
    if not moved:
        return None
    if marks_come_back:
        return Finding.UNKNOWN
    return Finding.NOT_APPLIED if 0 < _number(seen.get(_EXECUTION)) < intent.execution_id else Finding.UNKNOWN


def _number(text: str | None) -> int:
    """0 for what is no number: a person may have edited an annotation."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() else 0
