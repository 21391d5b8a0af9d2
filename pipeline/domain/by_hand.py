"""What a person would type first, by category and platform, where no executor does it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import assert_never

from pipeline.domain.catalogue import Role
from pipeline.domain.changes import OURS, SHORT_REVISION, ChangeEvent, ChangeKind
from pipeline.domain.diagnosis import Category, Diagnosis
from pipeline.domain.facts import Facts
from pipeline.domain.plan import TargetRef
from pipeline.domain.sites import Sites

LATE = timedelta(seconds=60)
"""Measured over a window, and by another clock than the change's."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ANY_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_NO_COMMIT = "git log -5 --stat && git revert --no-edit <the change before the errors began>"


def newest_commit(facts: Facts) -> ChangeEvent | None:
    """The last commit of the configuration since shortly before the trouble, by its whole name; none of the bot's."""
    commits = [one for one in before_the_trouble(facts) if one.kind is ChangeKind.CONFIGURATION and one.author != OURS]
    return commits[-1] if commits and _COMMIT.fullmatch(commits[-1].revision) else None


def before_the_trouble(facts: Facts) -> tuple[ChangeEvent, ...]:
    """Changes that may have brought it, oldest first: a symptom may be dated a little before what brought it."""
    if facts.began is None:
        return facts.recent_changes
    latest = facts.began + LATE
    return tuple(one for one in facts.recent_changes if one.at <= latest)


def manual_command(diagnosis: Diagnosis, facts: Facts, sites: Sites) -> str:
    """One line; ``<…>`` stands for what was not read."""
    refs = {role: site.state.ref for role, site in sites.items() if site.state is not None}
    ref = refs.get(Role.WORKLOAD)
    name = ref.name if ref else str(diagnosis.service)
    match diagnosis.category:
        case Category.MEMORY:
            return _look(ref, name) if "restart" in facts.in_vain else _restart(ref, name)
        case Category.SATURATION:
            return _look(ref, name) if "scale" in facts.in_vain else _more(ref, name)
        case Category.BAD_CHANGE:
            return _before_the_change(facts, ref)
        case Category.DISK:
            return "du -xh --max-depth=2 <log directory> | sort -h | tail && truncate -s 0 <largest log>"
        case Category.CERTIFICATE:
            certificate = refs.get(Role.CERTIFICATE)
            if certificate is not None and certificate.platform == "cert_manager":
                return f"cmctl renew {certificate.name} -n {certificate.namespace}"
            if ref is not None and ref.platform == "kubernetes":
                return f"kubectl -n {ref.namespace} get certificates && cmctl renew <certificate> -n {ref.namespace}"
            return "openssl x509 -noout -enddate -in <certificate file>"
        case Category.UNKNOWN:
            return _look(ref, name)
        case _:
            assert_never(diagnosis.category)


def _restart(ref: TargetRef | None, name: str) -> str:
    match ref.platform if ref else "":
        case "kubernetes":
            return f"kubectl rollout restart deployment/{name} -n {_namespace(ref)}"
        case "ecs":
            return f"aws ecs update-service --cluster {_namespace(ref)} --service {name} --force-new-deployment"
        case "asg":
            return f"aws autoscaling start-instance-refresh --auto-scaling-group-name {name}"
        case "azure_app_service" | "azure_functions":
            return f"az webapp restart --resource-group {_namespace(ref)} --name {name}"
        case _:
            return f"restart {name} one by one"


def _more(ref: TargetRef | None, name: str) -> str:
    match ref.platform if ref else "":
        case "kubernetes":
            return f"kubectl scale deployment/{name} -n {_namespace(ref)} --replicas=<now × load>"
        case "ecs":
            count = "<now × load>"
            return f"aws ecs update-service --cluster {_namespace(ref)} --service {name} --desired-count {count}"
        case "asg":
            group = f"--auto-scaling-group-name {name}"
            return f"aws autoscaling set-desired-capacity {group} --desired-capacity <now × load>"
        case "lambda":
            concurrent = "--reserved-concurrent-executions <now × load>"
            return f"aws lambda put-function-concurrency --function-name {name} {concurrent}"
        case "azure_app_service" | "azure_functions":
            group = f"--resource-group {_namespace(ref)}"
            return f"az appservice plan update {group} --name <its plan> --number-of-workers <now × load>"
        case _:
            return f"add replicas to {name}"


def _before_the_change(facts: Facts, ref: TargetRef | None) -> str:
    commits = [one.revision for one in before_the_trouble(facts) if one.kind is ChangeKind.CONFIGURATION]
    if not commits:
        match ref.platform if ref else "":
            case "kubernetes":
                return f"kubectl rollout undo deployment/{ref.name if ref else ''} -n {_namespace(ref)}"
            case "lambda":
                name = ref.name if ref else ""
                return f"aws lambda update-alias --function-name {name} --name live --function-version <version before>"
            case _:
                return _NO_COMMIT
    # People paste this: nothing but a commit's name may stand there.
    if not _ANY_COMMIT.fullmatch(commits[-1]):
        return _NO_COMMIT
    last = commits[-1][:SHORT_REVISION]
    return f"git show --stat {last} && git revert --no-edit {last}"


def _look(ref: TargetRef | None, name: str) -> str:
    match ref.platform if ref else "":
        case "kubernetes":
            return f"kubectl describe deployment/{name} -n {_namespace(ref)}"
        case "ecs":
            return f"aws ecs describe-services --cluster {_namespace(ref)} --services {name}"
        case _:
            return f"look at {name}'s logs and metrics"


def _namespace(ref: TargetRef | None) -> str:
    return ref.namespace if ref else "<namespace>"
