"""The platforms that may be acted on, by the settings; each SDK is loaded only where it is set up."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import SecretStr

from bot.config import Settings
from bot.config_targets import TargetSettings, by_name
from executors.targets.argocd import ArgoCdTarget
from executors.targets.git import GitTarget
from executors.targets.local_process import LocalProcessTarget
from executors.targets.log_files import LogFilesTarget
from executors.targets.registry import Registry
from pipeline.domain.errors import ConfigurationError
from pipeline.ports.targets import Target
from pipeline.stages.survey import Surveyor

log = logging.getLogger(__name__)

GIT_CLONES, TRUNCATED = "git", "truncated"
"""Below the data folder: what was fetched of repositories, and what truncated logs held."""


def registry_of(settings: Settings) -> Registry:
    """Every platform that is configured. Raises ConfigurationError with what to do."""
    chosen = settings.targets
    targets: list[Target] = []
    if chosen.local_url:
        targets.append(LocalProcessTarget(chosen.local_url))
    if chosen.kubernetes_namespaces:
        targets += _kubernetes(chosen)
    elif chosen.kubernetes_nodes or chosen.pod_log_paths:
        raise ConfigurationError("SRE_KUBERNETES_NAMESPACES: needed with SRE_KUBERNETES_NODES and SRE_POD_LOG_PATHS")
    if chosen.aws:
        targets += _aws(settings)
    if chosen.azure_subscription:
        targets += _azure(chosen)
    targets += _gitops(chosen, settings.store.data_dir / GIT_CLONES)
    if chosen.certificate_folders:
        targets.append(_certificate_files(chosen))
    if chosen.truncate_folders:
        # Not beside the logs: a volume that is full to the last byte has no room for a copy.
        copies = chosen.truncate_copies or settings.store.data_dir / TRUNCATED
        targets.append(LogFilesTarget(_folders(chosen.truncate_folders), copies=copies.absolute()))
    return Registry({target.platform: target for target in targets})


def _kubernetes(chosen: TargetSettings) -> list[Target]:
    try:
        from executors.targets.cert_manager import CertManagerTarget
        from executors.targets.kubernetes import KubernetesTarget, configuration_for
        from executors.targets.kubernetes_node import KubernetesNodeTarget
        from executors.targets.pod_logs import PodLogsTarget
    except ImportError as error:
        raise ConfigurationError(
            'SRE_KUBERNETES_NAMESPACES: the Kubernetes client is missing: pip install "sre-bot[kubernetes]"'
        ) from error
    context, namespaces = chosen.kubernetes_context, chosen.kubernetes_namespaces
    found: list[Target] = [
        KubernetesTarget(configuration_for(context), namespaces=namespaces),
        CertManagerTarget(configuration_for(context), namespaces=namespaces),
    ]
    if chosen.kubernetes_nodes:
        found.append(KubernetesNodeTarget(configuration_for(context)))
    if chosen.pod_log_paths:
        found.append(PodLogsTarget(configuration_for(context), namespaces=namespaces, paths=chosen.pod_log_paths))
    return found


def _aws(settings: Settings) -> list[Target]:
    chosen, telemetry = settings.targets, settings.telemetry
    if not chosen.aws_allowed:
        raise ConfigurationError("SRE_AWS_ALLOWED: needed with SRE_AWS_TARGETS: the names that may be acted on")
    try:
        from executors.targets.aws_asg import AsgTarget
        from executors.targets.aws_ecs import EcsTarget
        from executors.targets.aws_lambda import LambdaTarget
    except ImportError as error:
        raise ConfigurationError('SRE_AWS_TARGETS: boto3 is missing: pip install "sre-bot[aws]"') from error
    region, profile, url = telemetry.aws_region or None, telemetry.aws_profile or None, telemetry.aws_endpoint_url
    found: list[Target] = []
    if "ecs" in chosen.aws:
        found.append(EcsTarget(clusters=chosen.aws_allowed, region=region, profile=profile, endpoint_url=url or None))
    if "asg" in chosen.aws:
        found.append(AsgTarget(groups=chosen.aws_allowed, region=region, profile=profile, endpoint_url=url or None))
    if "lambda" in chosen.aws:
        found.append(
            LambdaTarget(
                functions=chosen.aws_allowed,
                alias=chosen.aws_alias,
                region=region,
                profile=profile,
                endpoint_url=url or None,
            )
        )
    return found


def _azure(chosen: TargetSettings) -> list[Target]:
    if not chosen.azure_groups:
        raise ConfigurationError("SRE_AZURE_GROUPS: needed with SRE_AZURE_SUBSCRIPTION: where actions are allowed")
    try:
        from executors.targets.azure_api import Arm
        from executors.targets.azure_app_service import AzureAppServiceTarget
        from executors.targets.azure_functions import AzureFunctionsTarget
    except ImportError as error:
        raise ConfigurationError('SRE_AZURE_SUBSCRIPTION: the SDK is missing: pip install "sre-bot[azure]"') from error

    def arm() -> Arm:
        return Arm(chosen.azure_subscription, timeout_s=10.0)

    return [
        AzureAppServiceTarget(arm(), resource_groups=chosen.azure_groups),
        AzureFunctionsTarget(arm(), resource_groups=chosen.azure_groups),
    ]


def _gitops(chosen: TargetSettings, clones: Path) -> list[Target]:
    found: list[Target] = []
    if chosen.git_repositories:
        repositories = by_name(chosen.git_repositories)
        found.append(GitTarget(repositories, work_dir=clones, token=_plain(chosen.git_token)))
    if chosen.github_repositories:
        if chosen.github_token is None:
            raise ConfigurationError("SRE_GITHUB_TOKEN: needed with SRE_GITHUB_REPOSITORIES")
        try:
            from executors.targets.github import GitHubTarget
        except ImportError as error:
            raise ConfigurationError(
                'SRE_GITHUB_REPOSITORIES: gidgethub is missing: pip install "sre-bot[github]"'
            ) from error
        found.append(
            GitHubTarget(
                _plain(chosen.github_token),
                owners=chosen.github_repositories,
                api_url=chosen.github_api_url,
                merge="auto" if chosen.github_merge else "person",
            )
        )
    if chosen.argocd_url:
        if chosen.argocd_token is None or not chosen.argocd_projects:
            raise ConfigurationError("SRE_ARGOCD_TOKEN and SRE_ARGOCD_PROJECTS: needed with SRE_ARGOCD_URL")
        found.append(ArgoCdTarget(chosen.argocd_url, _plain(chosen.argocd_token), projects=chosen.argocd_projects))
    return found


def _certificate_files(chosen: TargetSettings) -> Target:
    try:
        from executors.targets.certificate_file import CertificateFileTarget
    except ImportError as error:
        raise ConfigurationError(
            'SRE_CERTIFICATE_FOLDERS: cryptography is missing: pip install "sre-bot[certificates]"'
        ) from error
    return CertificateFileTarget(_folders(chosen.certificate_folders), authority=chosen.certificate_authority)


def _folders(pairs: tuple[str, ...]) -> dict[str, Path]:
    return {name: Path(folder).absolute() for name, folder in by_name(pairs).items()}


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


async def survey(surveyor: Surveyor) -> None:
    """Says at the start what would otherwise be found out at three in the morning."""
    found = await surveyor.find(rights=True)
    for one in found:
        where = f"{one.role.value} of {one.service} ({one.address.platform} {one.address.namespace}/{one.address.name})"
        if one.problem:
            log.warning("%s cannot be acted on: %s", where, one.problem)
        for right in one.missing:
            log.warning("%s: the account lacks %s: %s", where, right.right, right.said)
    log.info("%d targets looked at; `sre-bot targets check` says more", len(found))
