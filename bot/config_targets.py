"""Settings of the targets: where the bot may act, and with which account."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from bot.config_types import Group, Variable


def _pairs(values: tuple[str, ...]) -> tuple[str, ...]:
    names = [one.partition("=")[0].strip() for one in values]
    for one, name in zip(values, names, strict=True):
        if not name or not one.partition("=")[2].strip():
            raise ValueError(f"{one[:80]!r} is not of the form NAME=VALUE")
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return values


Pairs = Annotated[tuple[str, ...], AfterValidator(_pairs)]
"""``NAME=VALUE`` each, and each name once."""


def by_name(pairs: tuple[str, ...]) -> dict[str, str]:
    """The pairs as a mapping."""
    return {name.strip(): value.strip() for name, _, value in (one.partition("=") for one in pairs)}


class TargetSettings(Group):
    local_url: Annotated[str, Variable("SRE_LOCAL_TARGET_URL", "URL", "control API of a local process supervisor")] = ""
    kubernetes_namespaces: Annotated[
        tuple[str, ...], Variable("SRE_KUBERNETES_NAMESPACES", "names, comma-separated", "where actions are allowed")
    ] = ()
    kubernetes_context: Annotated[
        str, Variable("SRE_KUBERNETES_CONTEXT", "text", "context of the kubeconfig; empty: in-cluster or current")
    ] = ""
    kubernetes_nodes: Annotated[
        bool, Variable("SRE_KUBERNETES_NODES", "true or false", "cordon and uncordon nodes as well")
    ] = False
    pod_log_paths: Annotated[
        tuple[str, ...],
        Variable("SRE_POD_LOG_PATHS", "folders, comma-separated", "in pods, where logs may be truncated by exec"),
    ] = ()
    aws: Annotated[
        tuple[Literal["ecs", "asg", "lambda"], ...],
        Variable("SRE_AWS_TARGETS", "ecs, asg, lambda", "which of AWS may be acted on; AWS_REGION says where"),
    ] = ()
    aws_allowed: Annotated[
        tuple[str, ...],
        Variable(
            "SRE_AWS_ALLOWED",
            "names, comma-separated",
            "ECS clusters, functions and groups; of groups also web-*",
        ),
    ] = ()
    aws_alias: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$"), Variable("SRE_AWS_ALIAS", "name", "of functions, what is called")
    ] = "live"
    azure_subscription: Annotated[
        str,
        Field(pattern=r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?$"),
        Variable("SRE_AZURE_SUBSCRIPTION", "id", "App Service and Functions may be acted on there"),
    ] = ""
    azure_groups: Annotated[
        tuple[str, ...], Variable("SRE_AZURE_GROUPS", "resource groups, comma-separated", "where actions are allowed")
    ] = ()
    git_repositories: Annotated[
        Pairs, Variable("SRE_GIT_REPOSITORIES", "NAME=URL, comma-separated", "where commits may be reverted by a push")
    ] = ()
    git_token: Annotated[
        SecretStr | None, Variable("SRE_GIT_TOKEN", "text", "password for git over HTTPS; empty: git's own ways")
    ] = None
    github_repositories: Annotated[
        tuple[str, ...],
        Variable("SRE_GITHUB_REPOSITORIES", "OWNER/NAME, comma-separated", "where reverts are pull requests"),
    ] = ()
    github_token: Annotated[
        SecretStr | None, Variable("SRE_GITHUB_TOKEN", "text", "makes branches and pull requests")
    ] = None
    github_api_url: Annotated[str, Variable("SRE_GITHUB_API_URL", "URL", "of GitHub or of an own server")] = (
        "https://api.github.com"
    )
    github_merge: Annotated[
        bool, Variable("SRE_GITHUB_MERGE", "true or false", "merge a revert where GitHub lets us; false: a person does")
    ] = True
    argocd_url: Annotated[str, Variable("SRE_ARGOCD_URL", "URL", "Argo CD, to sync and roll back")] = ""
    argocd_token: Annotated[SecretStr | None, Variable("SRE_ARGOCD_TOKEN", "text", "of an Argo CD account")] = None
    argocd_projects: Annotated[
        tuple[str, ...], Variable("SRE_ARGOCD_PROJECTS", "names, comma-separated", "where actions are allowed")
    ] = ()
    certificate_folders: Annotated[
        Pairs, Variable("SRE_CERTIFICATE_FOLDERS", "NAME=FOLDER, comma-separated", "where certificate files lie")
    ] = ()
    certificate_authority: Annotated[
        Path | None,
        Variable("SRE_CERTIFICATE_AUTHORITY", "path", "PEM with the issuer's certificate and key; empty: self-signed"),
    ] = None
    truncate_copies: Annotated[
        Path | None,
        Variable("SRE_TRUNCATE_COPIES", "path", "keeps what truncated logs held; empty: in the data folder"),
    ] = None
    truncate_folders: Annotated[
        Pairs, Variable("SRE_TRUNCATE_FOLDERS", "NAME=FOLDER, comma-separated", "where log files may be truncated")
    ] = ()
