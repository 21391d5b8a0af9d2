"""What Lambda says of a function and its alias, and what follows from it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import Field

from executors.targets.aws_api import Answer
from pipeline.domain.action import MAX_CONCURRENCY, ActionKind, Concurrency
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import Revision

_LATEST = "$LATEST"
_MAX_DESCRIPTION = 256
"""Characters of an alias' description that Lambda keeps."""
_MARK = re.compile(r" ?\(sre-bot execution=(\d+) step=(\d+) fence=\d+\)$")
_SEEN = re.compile(r"version=\S+ reserved=(\S+) provisioned=(\S+) revision=(\S+)$")


class _Routing(Answer):
    weights: Mapping[str, float] = Field(default={}, alias="AdditionalVersionWeights")


class Alias(Answer):
    arn: str = Field(alias="AliasArn")
    version: str = Field(alias="FunctionVersion", min_length=1)
    description: str = Field(default="", alias="Description")
    revision_id: str = Field(alias="RevisionId", min_length=1)
    routing: _Routing | None = Field(default=None, alias="RoutingConfig")

    @property
    def weights(self) -> str:
        """Empty unless some calls go to another version."""
        routed = self.routing.weights if self.routing else {}
        return ", ".join(f"{share:.0%} of the calls to version {version}" for version, share in routed.items())


class Reserved(Answer):
    number: int | None = Field(default=None, alias="ReservedConcurrentExecutions")


class Provisioned(Answer):
    arn: str = Field(alias="FunctionArn")
    requested: int = Field(alias="RequestedProvisionedConcurrentExecutions")
    status: str = Field(alias="Status")
    reason: str = Field(default="", alias="StatusReason")


class AllProvisioned(Answer):
    configs: tuple[Provisioned, ...] = Field(default=(), alias="ProvisionedConcurrencyConfigs")


class Version(Answer):
    version: str = Field(alias="Version")
    description: str = Field(default="", alias="Description")
    modified: datetime = Field(alias="LastModified")
    code_sha256: str = Field(default="", alias="CodeSha256")


class Versions(Answer):
    versions: tuple[Version, ...] = Field(alias="Versions")


@dataclass(frozen=True, slots=True)
class Function:
    """``versions``: the published ones, the latest first."""

    alias: Alias
    reserved: int | None
    provisioned: Provisioned | None
    versions: tuple[Version, ...]

    @property
    def uid(self) -> str:
        oldest = self.versions[-1]
        return f"version {oldest.version} of {oldest.modified.isoformat()}"

    @property
    def kept_warm(self) -> int | None:
        return self.provisioned.requested if self.provisioned else None

    @property
    def generation(self) -> str:
        numbers = f"reserved={_or_none(self.reserved)} provisioned={_or_none(self.kept_warm)}"
        return f"version={self.alias.version} {numbers} revision={self.alias.revision_id}"


def earlier(function: Function) -> tuple[Revision, ...]:
    """The versions before the one that the alias points to, the latest first."""
    if not function.alias.version.isdecimal():
        return ()
    before = (one for one in function.versions if int(one.version) < int(function.alias.version))
    return tuple(Revision(one.version, one.description, one.modified) for one in before)


def concurrency_of(function: Function) -> Concurrency | None:
    """None where it is more than we would set."""
    numbers = (function.reserved, function.kept_warm)
    if any(number is not None and number > MAX_CONCURRENCY for number in numbers):
        return None
    return Concurrency(reserved=function.reserved, provisioned=function.kept_warm)


def refusals(function: Function, alias: str) -> Mapping[ActionKind, str]:
    """Kinds of action that the function does not take now, each with the reason."""
    reasons: dict[ActionKind, str] = {}
    if why := why_no_roll_back(function, alias):
        reasons["roll_back"] = why
    elif not earlier(function):
        reasons["roll_back"] = f"no version before {function.alias.version} is kept"
    if concurrency_of(function) is None:
        reasons["concurrency"] = f"more than {MAX_CONCURRENCY} calls at once"
    return reasons


def why_no_roll_back(function: Function, alias: str) -> str:
    """Empty when the alias points to one published version, and to nothing else."""
    if function.alias.weights:
        return f"the alias {alias} sends {function.alias.weights}: end that first"
    return f"the alias {alias} points to {_LATEST}, which is no version" if function.alias.version == _LATEST else ""


def marked(description: str, mark: str) -> str:
    """What a person wrote, shortened where there is no room, and our mark in place of an earlier one."""
    theirs = _MARK.sub("", description)[: _MAX_DESCRIPTION - len(mark) - 1]
    return f"{theirs} {mark}".lstrip()


def concurrency_finding(function: Function, wanted: Concurrency, intent: Intent) -> Finding | None:
    """By the numbers that differ from those of before; None: no trace yet."""
    if (seen := _SEEN.search(intent.generation)) is None:
        return Finding.UNKNOWN
    triples = (
        (seen[1], _or_none(wanted.reserved), _or_none(function.reserved)),
        (seen[2], _or_none(wanted.provisioned), _or_none(function.kept_warm)),
    )
    changed = [(former, then, now) for former, then, now in triples if former != then]
    if all(now == then for _, then, now in changed):
        return Finding.APPLIED
    return None if all(now == former for former, _, now in changed) else Finding.UNKNOWN


def roll_back_finding(alias: Alias, version: str, intent: Intent) -> Finding | None:
    """By the mark beside the version; None: no trace yet."""
    if (seen := _SEEN.search(intent.generation)) is None:
        return Finding.UNKNOWN
    if alias.revision_id == seen[3]:
        return None
    mark = _MARK.search(alias.description)
    execution, step = (int(mark[1]), int(mark[2])) if mark else (0, 0)
    if (execution, step, alias.version) == (intent.execution_id, intent.step, version):
        return Finding.APPLIED
    return Finding.NOT_APPLIED if 0 < execution < intent.execution_id else Finding.UNKNOWN


def _or_none(number: int | None) -> str:
    return "none" if number is None else str(number)
