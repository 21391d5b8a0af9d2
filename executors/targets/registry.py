"""The platforms that are set up."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.domain.errors import PermanentError
from pipeline.ports.targets import Target, Targets

_WHAT_ADDS = {
    "local_process": "it comes with the demo world: start it with `sre-bot demo`",
    "kubernetes": "install the extra with `pip install 'sre-bot[kubernetes]'` and set the kubernetes settings",
}


class Registry(Targets):
    """One target a platform, as wired at the start."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = dict(targets)

    def for_platform(self, platform: str) -> Target:
        """Raises PermanentError, naming the extra or setting that is missing."""
        if (target := self._targets.get(platform)) is not None:
            return target
        if (what_adds := _WHAT_ADDS.get(platform)) is not None:
            raise PermanentError(f"the platform {platform} is not set up: {what_adds}")
        raise PermanentError(f"there is no platform {platform!r}; known are {', '.join(sorted(_WHAT_ADDS))}")

    async def close(self) -> None:
        """Releases the connections of every target."""
        for target in self._targets.values():
            await target.close()
