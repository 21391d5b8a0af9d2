"""The platforms that are set up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pipeline.domain.errors import PermanentError
from pipeline.domain.plan import Platform
from pipeline.ports.targets import Target, Targets

_WHAT_ADDS: Mapping[Platform, str] = {
    "local_process": "it comes with the demo world: start it with `sre-bot demo`",
    "kubernetes": "install the extra with `pip install 'sre-bot[kubernetes]'` and set SRE_KUBERNETES_NAMESPACES",
    "kubernetes_node": "as kubernetes, and set SRE_KUBERNETES_NODES=true",
    "ecs": "install the extra with `pip install 'sre-bot[aws]'` and name it in SRE_AWS_TARGETS",
    "asg": "install the extra with `pip install 'sre-bot[aws]'` and name it in SRE_AWS_TARGETS",
    "lambda": "install the extra with `pip install 'sre-bot[aws]'` and name it in SRE_AWS_TARGETS",
    "azure_app_service": "install the extra with `pip install 'sre-bot[azure]'` and set SRE_AZURE_SUBSCRIPTION",
    "azure_functions": "install the extra with `pip install 'sre-bot[azure]'` and set SRE_AZURE_SUBSCRIPTION",
    "git": "set SRE_GIT_REPOSITORIES to NAME=URL",
    "github": "install the extra with `pip install 'sre-bot[github]'` and set SRE_GITHUB_REPOSITORIES",
    "argocd": "set SRE_ARGOCD_URL and SRE_ARGOCD_TOKEN",
    "cert_manager": "as kubernetes, with cert-manager in the cluster",
    "certificate_file": "set SRE_CERTIFICATE_FOLDERS to NAME=FOLDER, and SRE_CERTIFICATE_AUTHORITY",
    "pod_logs": "as kubernetes, and set SRE_POD_LOG_PATHS",
    "log_files": "set SRE_TRUNCATE_FOLDERS to NAME=FOLDER",
}


class Registry(Targets):
    """One target a platform, as wired at the start."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = dict(targets)

    def platforms(self) -> tuple[str, ...]:
        return tuple(sorted(self._targets))

    def for_platform(self, platform: str) -> Target:
        """Raises PermanentError, naming the extra or setting that is missing."""
        if (target := self._targets.get(platform)) is not None:
            return target
        if (what_adds := _WHAT_ADDS.get(cast(Platform, platform))) is not None:
            raise PermanentError(f"the platform {platform} is not set up: {what_adds}")
        raise PermanentError(f"there is no platform {platform!r}; known are {', '.join(sorted(_WHAT_ADDS))}")

    async def close(self) -> None:
        """Releases the connections of every target."""
        for target in self._targets.values():
            await target.close()
