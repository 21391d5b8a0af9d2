"""What every adapter of a platform says alike."""

from __future__ import annotations

from pipeline.domain.action import Operation, TargetAction
from pipeline.domain.errors import PermanentError


def not_offered(platform: str, asked: Operation | TargetAction) -> PermanentError:
    """Of something that the platform's ``declares`` does not name: nothing was sent."""
    what = getattr(asked, "op", None) or getattr(asked, "kind", "")
    return PermanentError(f"{platform} has no {str(what).replace('_', ' ')}: nothing was sent")
