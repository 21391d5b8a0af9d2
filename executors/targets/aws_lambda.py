"""Lambda functions: their reserved and provisioned concurrency, and the version that an alias points to."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from executors.targets.aws_api import AwsApi
from executors.targets.aws_lambda_function import (
    Alias,
    AllProvisioned,
    Function,
    Reserved,
    Versions,
    concurrency_finding,
    concurrency_of,
    earlier,
    marked,
    refusals,
    roll_back_finding,
    why_no_roll_back,
)
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    Concurrency,
    ConcurrencyAction,
    ManualAction,
    Operation,
    RollBackAction,
    RollBackTo,
    SetConcurrency,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target

_OF_FUNCTION = ("lambda:UpdateAlias", "lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency")
_OF_ALIAS = ("lambda:PutProvisionedConcurrencyConfig", "lambda:DeleteProvisionedConcurrencyConfig")
_READS = (
    "lambda:GetAlias",
    "lambda:GetFunctionConcurrency",
    "lambda:ListProvisionedConcurrencyConfigs",
    "lambda:ListVersionsByFunction",
)


class LambdaTarget(Target):
    """The listed functions of one region, each by one alias; everything else is refused before anything is sent.

    The region is the namespace of an address, and its name the function's. ``alias``: what callers name, which a
    roll-back points to an earlier version and which provisioned concurrency is kept for.

    ``generation`` is what the alias points to, both concurrencies and the alias' RevisionId. A roll-back carries the
    RevisionId that was read just before, so whatever comes in between makes Lambda refuse it. The calls that set a
    concurrency take no precondition: it is read and compared right before, and a change in the moment between is not
    noticed. Lambda sets the two by different calls, so that one operation changes one of them.

    ``uid`` is the oldest published version and when it was published, for Lambda does not say when a function was
    made, and its ARN is that of its name. So deleting the oldest version looks like a function that was recreated; and
    a function without a published version cannot be told from another of its name, and is refused.
    """

    def __init__(
        self,
        *,
        functions: Collection[str],
        alias: str = "live",
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._api = AwsApi(
            "lambda",
            policy="aws-lambda-policy.json",
            region=region,
            profile=profile,
            endpoint_url=endpoint_url,
            timeout_s=timeout_s,
        )
        self._functions = frozenset(functions)
        self._alias = alias

    @property
    def platform(self) -> str:
        return "lambda"

    def declares(self) -> Declaration:
        return Declaration(
            offers=(
                Offer(
                    "concurrency",
                    True,
                    (*_OF_FUNCTION[1:], *_OF_ALIAS),
                    "alias and both concurrencies compared right before; Lambda refuses what the account cannot keep",
                ),
                Offer("roll_back", True, _OF_FUNCTION[:1], "RevisionId of the alias"),
            ),
            observes=(
                "the version that the alias points to",
                "published versions",
                "reserved and provisioned concurrency",
                "how far provisioned concurrency is allocated",
            ),
            reads=_READS,
            privileges="aws-lambda-policy.json",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        arn = (await self._read(ref)).alias.arn
        read = tuple(RightCheck(right, True, "it was just read") for right in _READS)
        of_function = await self._api.check(_OF_FUNCTION, arn.removesuffix(f":{self._alias}"))
        return read + of_function + await self._api.check(_OF_ALIAS, arn)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        try:
            function = await self._named(address.namespace, address.name)
        except PreconditionFailed as error:
            raise PermanentError(
                f"there is no function {address.name} with the alias {self._alias} in {address.namespace}: {error}"
            ) from error
        return TargetRef(platform="lambda", namespace=address.namespace, name=address.name, uid=function.uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        function = await self._read(ref)
        running = next((one for one in function.versions if one.version == function.alias.version), None)
        return TargetState(
            ref=ref,
            generation=function.generation,
            revision=running.code_sha256 if running else "",
            rollout=function.alias.version,
            revisions=earlier(function),
            concurrency=concurrency_of(function),
            away_at_once=0,
            refuses=refusals(function, self._alias),
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        function = await self._read(ref)
        if function.generation != intent.generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at {function.generation}, not {intent.generation}"
            )
        mark = f"(sre-bot execution={intent.execution_id} step={intent.step} fence={intent.fence})"
        call, parameters = self._wish(ref, function, operation, mark)
        await self._api.write(call, parameters)
        match operation:
            case SetConcurrency(concurrency=wanted):
                return f"set the concurrency of {ref.describe()} from {concurrency_of(function)} to {wanted}"
            case RollBackTo(revision=version):
                return f"pointed {self._alias} of {ref.describe()} from version {function.alias.version} to {version}"
            case _:
                raise not_offered("lambda", operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        function = await self._read(ref)
        mark = "(sre-bot execution=<execution> step=<step> fence=<fence>)"
        sent = await self._api.shown(*self._wish(ref, function, operation, mark))
        return (f"{sent} only while {ref.describe()} is read at {generation} right before",)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Raises PermanentError, in Lambda's words, when it could not keep warm what it was asked to."""
        function = await self._read(ref)
        provisioned = function.provisioned
        if provisioned is not None and provisioned.status == "FAILED":
            raise PermanentError(
                f"Lambda cannot keep {provisioned.requested} of {ref.describe()} warm: {provisioned.reason}"
            )
        is_warm = provisioned is None or provisioned.status == "READY"
        match operation:
            case SetConcurrency(concurrency=wanted):
                now = (function.reserved, function.kept_warm)
                return now == (wanted.reserved, wanted.provisioned) and is_warm
            case RollBackTo(revision=version):
                return function.alias.version == version and not function.alias.weights and is_warm
            case _:
                raise not_offered("lambda", operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the function itself; takes up to twice the time-out of a call.

        Roll-back: the mark at the end of the alias' description is written together with the version, so ours there
        proves that it was applied. Without it and with the RevisionId unmoved it is NOT_APPLIED once no request can be
        under way any more. Moved, with an earlier execution's mark still standing, it is NOT_APPLIED: Lambda refuses
        our RevisionId by now. Moved and without one, or with a later one, ours may have stood there: UNKNOWN.

        Concurrency: Lambda has no place for a mark with it. The wanted number is APPLIED, whoever set it; that of
        before is NOT_APPLIED once no request can be under way any more (somebody may have put it back in that time);
        any other one is UNKNOWN, for ours may have stood there and been replaced.

        UNKNOWN when the function or its alias was deleted or recreated.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._api.flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        match action:
            case ConcurrencyAction(from_concurrency=before, to_concurrency=wanted):
                # A person's line may take several calls, where one of the bot's takes one.
                calls = self._settings(ref.name, (before.reserved, before.provisioned), wanted)
            case RollBackAction(to_revision=version):
                named = {"FunctionName": ref.name, "Name": self._alias}
                calls = [("update_alias", {**named, "FunctionVersion": version})]
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("lambda", action)
        return " && ".join(self._line(call, parameters) for call, parameters in calls)

    async def close(self) -> None:
        self._api.close()

    def _line(self, call: str, parameters: Mapping[str, Any]) -> str:
        words = [call.replace("_", "-")]
        for name, value in parameters.items():
            words += ["--" + re.sub(r"(?<!^)([A-Z])", r"-\1", name).lower(), str(value)]
        return shlex.join(self._api.cli("lambda", *words))

    def _wish(self, ref: TargetRef, function: Function, operation: Operation, mark: str) -> tuple[str, dict[str, Any]]:
        """The one call that it takes. Raises PermanentError when it takes none or two, or Lambda could not tell."""
        match operation:
            case SetConcurrency(concurrency=wanted):
                calls = self._settings(ref.name, (function.reserved, function.kept_warm), wanted)
                if len(calls) != 1:
                    why = "is set already" if not calls else "changes both numbers: propose one of them at a time"
                    raise PermanentError(f"the concurrency {wanted} of {ref.describe()} {why}; nothing was sent")
                return calls[0]
            case RollBackTo(revision=version):
                if why := why_no_roll_back(function, self._alias):
                    raise PermanentError(f"{ref.describe()}: {why}")
                if version not in {one.version for one in function.versions}:
                    raise PreconditionFailed(f"version {version} of {ref.describe()} was deleted or never published")
                return "update_alias", {
                    "FunctionName": ref.name,
                    "Name": self._alias,
                    "FunctionVersion": version,
                    "Description": marked(function.alias.description, mark),
                    "RevisionId": function.alias.revision_id,
                }
            case _:
                raise not_offered("lambda", operation)

    def _settings(
        self, name: str, now: tuple[int | None, int | None], wanted: Concurrency
    ) -> list[tuple[str, dict[str, Any]]]:
        """The calls that lead from ``now`` (reserved, provisioned) to what is wanted, none to two."""
        reserved, provisioned = now
        calls: list[tuple[str, dict[str, Any]]] = []
        if wanted.reserved != reserved:
            named = {"FunctionName": name}
            if wanted.reserved is None:
                calls.append(("delete_function_concurrency", named))
            else:
                setting = {"ReservedConcurrentExecutions": wanted.reserved}
                calls.append(("put_function_concurrency", {**named, **setting}))
        if wanted.provisioned != provisioned:
            named = {"FunctionName": name, "Qualifier": self._alias}
            if wanted.provisioned is None:
                calls.append(("delete_provisioned_concurrency_config", named))
            else:
                setting = {"ProvisionedConcurrentExecutions": wanted.provisioned}
                calls.append(("put_provisioned_concurrency_config", {**named, **setting}))
        return calls

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        try:
            function = await self._read(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        match operation:
            case SetConcurrency(concurrency=wanted):
                return concurrency_finding(function, wanted, intent)
            case RollBackTo(revision=version):
                return roll_back_finding(function.alias, version, intent)
            case _:
                raise not_offered("lambda", operation)

    async def _read(self, ref: TargetRef) -> Function:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        function = await self._named(ref.namespace, ref.name)
        if function.uid != ref.uid:
            raise PreconditionFailed(
                f"the function {ref.describe()} was recreated, or its oldest version was deleted: that is now"
                f" {function.uid}, not {ref.uid}"
            )
        return function

    async def _named(self, region: str, name: str) -> Function:
        """Raises PreconditionFailed when there is no such function or alias."""
        if region != self._api.region:
            raise PermanentError(f"the bot is set up for {self._api.region}, and {region}/{name} is elsewhere")
        if name not in self._functions:
            allowed = ", ".join(sorted(self._functions)) or "none"
            raise PermanentError(f"the function {name} is not one that the bot may touch (allowed: {allowed})")
        named = {"FunctionName": name}
        alias, reserved, provisioned, versions = await asyncio.gather(
            self._api.read("get_alias", {**named, "Name": self._alias}, Alias),
            self._api.read("get_function_concurrency", named, Reserved),
            self._api.read("list_provisioned_concurrency_configs", named, AllProvisioned),
            self._api.read("list_versions_by_function", named, Versions),
        )
        published = sorted(
            (one for one in versions.versions if one.version.isdecimal()), key=lambda one: -int(one.version)
        )
        if not published:
            raise PermanentError(f"{region}/{name} has no published version: publish one and point {self._alias} to it")
        warm = next((one for one in provisioned.configs if one.arn.endswith(f":{self._alias}")), None)
        return Function(alias, reserved.number, warm, tuple(published))
