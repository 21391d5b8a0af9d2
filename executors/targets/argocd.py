"""Applications of Argo CD: synced to a revision, or rolled back to what was synced before."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection
from typing import Any, NamedTuple

from executors.targets import argocd_api as api
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    ActionKind,
    ManualAction,
    Operation,
    RollBackAction,
    RollBackTo,
    SyncAction,
    SyncTo,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import Revision, TargetRef, TargetState
from pipeline.ports.targets import Target

_EXECUTION, _STEP, _FENCE = "sre-bot/execution", "sre-bot/step", "sre-bot/fence"
_GENERATION = "sre-bot/generation"
"""What was acted upon: a bot with another database may have used the same execution id before."""
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT = 12
_RETRY_S = 5.0


class _Wish(NamedTuple):
    """A request: its verb and body, and what will run when it has been carried out."""

    verb: str
    body: dict[str, Any]
    revision: str
    source: dict[str, Any] | None
    """The source with its parameters, as it was then; None: the one that the application names."""


class ArgoCdTarget(Target):
    """The applications of the listed projects; everything else is refused before anything is sent.

    A project is the namespace, an application the name. ``generation`` is of the last entry of its history, the
    beginning of its last operation and its spec. Argo CD itself compares nothing but whether an operation is under way:
    the generation is read right before, and what changes in between is not refused.

    Its own dry run takes the place of an operation and of what ``find`` reads, so a rehearsal has the manifests
    rendered instead, which changes nothing.
    """

    def __init__(
        self, url: str, token: str, *, projects: Collection[str], ca: str = "", timeout_s: float = 10.0
    ) -> None:
        self._api = api.ArgoCdApi(url, token, ca=ca, timeout_s=timeout_s)
        self._projects = frozenset(projects)
        # A call may still be connecting when it is given up, and then the server needs its time too.
        self._flight_s = 2 * timeout_s
        # Of the histories that were read: Argo CD keeps ten entries, and each sync takes the place of the oldest.
        self._seen: dict[tuple[str, int], api.Deployed] = {}

    @property
    def platform(self) -> str:
        return "argocd"

    def declares(self) -> Declaration:
        rights = ("applications, sync, PROJECT/APPLICATION",)
        guard = "no other operation under way; history and spec are compared right before"
        return Declaration(
            offers=(
                Offer("sync", True, rights, guard),
                Offer("roll_back", True, rights, f"{guard}; automated sync is off"),
            ),
            observes=("the history of syncs", "the operation under way or the last one", "health"),
            reads=("applications, get, PROJECT/APPLICATION",),
            privileges="gitops-privileges.md",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        await self._application(ref)
        held = {verb: await self._api.can(verb, ref.namespace, ref.name) for verb in ("get", "sync")}
        return tuple(
            RightCheck(f"applications, {verb}, {ref.describe()}", may, f"can-i says {'yes' if may else 'no'}")
            for verb, may in held.items()
        )

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        found = await self._named(address.namespace, address.name)
        return TargetRef(platform="argocd", namespace=address.namespace, name=address.name, uid=found.metadata.uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        found = await self._application(ref)
        history = found.history
        return TargetState(
            ref=ref,
            generation=found.generation,
            revision=history[0].revision if history else "",
            rollout=str(history[0].id) if history else "",
            wanted_revision=found.wanted_revision,
            revisions=tuple(Revision(str(one.id), one.revision[:_SHORT], one.deployedAt) for one in history[1:]),
            refuses=_refuses(found),
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        found = await self._at_generation(ref, intent.generation)
        wish = self._wish(ref, found, operation, _marks(intent))
        await self._api.ask(ref.name, wish.verb, wish.body)
        before = found.history[0].revision[:_SHORT] if found.history else "nothing"
        return f"asked for a {wish.verb} of {ref.describe()} from {before} to {wish.revision[:_SHORT]}"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        found = await self._application(ref)
        marks = {_EXECUTION: "<execution>", _STEP: "<step>", _FENCE: "<fence>", _GENERATION: generation}
        wish = self._wish(ref, found, operation, marks)
        return (
            f"POST {self._api.url}/api/v1/applications/{ref.name}/{wish.verb} {json.dumps(wish.body)}"
            f" only while {ref.describe()} is at {generation} and no operation is under way",
        )

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        found = await self._at_generation(ref, generation)
        wish = self._wish(ref, found, operation, {})
        count = await self._api.rendered(ref.name, ref.namespace, wish.revision)
        return f"Argo CD renders {count} manifests at {wish.revision[:_SHORT]}"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Raises PermanentError with Argo CD's message when the operation failed."""
        found = await self._application(ref)
        wish = self._wish(ref, found, operation, {})
        state = found.status.operationState
        if found.operation is not None or not found.history:
            return False
        if state is not None and state.phase in ("Failed", "Error") and _is_of(state.operation, wish):
            raise PermanentError(f"the {wish.verb} of {ref.describe()} has failed: {state.message}")
        runs = found.history[0]
        as_wished = runs.revision == wish.revision and (wish.source is None or runs.source == wish.source)
        return as_wished and found.status.health.status == "Healthy"

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a request, by the application itself; takes up to twice the time-out of a call.

        A sync keeps our execution in its ``info`` while it is the last operation: APPLIED, even when it failed. A
        rollback has no such place, and a sync loses it to the next operation: then an operation to this very revision,
        begun since by the bot's own account, is ours, for nobody else uses the account. NOT_APPLIED when no operation
        has begun since, once no request can be under way any more. UNKNOWN when others have begun and none is ours: it
        may have failed before them; and when the application was deleted or recreated.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        name = shlex.quote(ref.name)
        match action:
            case SyncAction(to_revision=revision):
                return (
                    f"argocd app sync {name} --project {shlex.quote(ref.namespace)} --revision {shlex.quote(revision)}"
                )
            case RollBackAction(to_revision=number):
                return f"argocd app rollback {name} {shlex.quote(number)}"
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("argocd", action)

    async def close(self) -> None:
        await self._api.close()

    def _wish(self, ref: TargetRef, found: api.Application, operation: Operation, marks: dict[str, str]) -> _Wish:
        """Raises PermanentError when there is no such revision to wish for."""
        body = {"name": ref.name, "project": ref.namespace, "prune": False, "dryRun": False}
        match operation:
            case SyncTo(revision=revision):
                if not found.is_chart and not _COMMIT.fullmatch(revision):
                    raise PermanentError(
                        f"a sync is to the whole name of a commit, for a branch moves on: {revision!r}"
                    )
                infos = [{"name": name, "value": value} for name, value in marks.items()]
                return _Wish("sync", {**body, "revision": revision, "infos": infos}, revision, None)
            case RollBackTo(revision=number):
                wanted = self._seen.get((ref.uid, int(number))) if re.fullmatch(r"[0-9]{1,18}", number) else None
                if wanted is None:
                    raise PermanentError(f"the history of {ref.describe()} has no entry {number}")
                return _Wish("rollback", {**body, "id": wanted.id}, wanted.revision, wanted.source)
            case _:
                raise not_offered("argocd", operation)

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        try:
            found = await self._application(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        wish = self._wish(ref, found, operation, {})
        newest, began_s = (int(part) for part in intent.generation.split(".")[:2])
        state = found.status.operationState
        last = found.operation or (state.operation if state else None)
        if last is not None and _bears(last, intent):
            return Finding.APPLIED
        since = [one for one in found.history if one.id > newest]
        moved = found.operation is not None or bool(since) or found.began_s != began_s
        if not moved:
            return None
        ours = await self._api.username()
        # A sync of ours that is still the last operation bears our execution.
        asked = (
            wish.verb == "rollback" and last is not None and _is_of(last, wish) and last.initiatedBy.username == ours
        )
        kept = any(one.revision == wish.revision and one.initiatedBy.username == ours for one in since)
        return Finding.APPLIED if asked or kept else Finding.UNKNOWN

    async def _at_generation(self, ref: TargetRef, generation: str) -> api.Application:
        found = await self._application(ref)
        if found.operation is not None:
            raise TemporaryError(f"another operation of {ref.describe()} is in progress", retry_after_s=_RETRY_S)
        if found.generation != generation:
            raise PreconditionFailed(f"{ref.describe()} has changed: it is at {found.generation}, not {generation}")
        return found

    async def _application(self, ref: TargetRef) -> api.Application:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        try:
            found = await self._named(ref.namespace, ref.name)
        except api.Missing as error:
            raise PreconditionFailed(f"{ref.describe()} is gone: {error}") from error
        if found.metadata.uid != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone; another has its name")
        return found

    async def _named(self, project: str, name: str) -> api.Application:
        if project not in self._projects:
            allowed = ", ".join(sorted(self._projects)) or "none"
            raise PermanentError(f"the project {project} is not one that the bot may touch (allowed: {allowed})")
        found = await self._api.application(name, project)
        if found.project != project:
            raise PermanentError(f"the application {name} belongs to the project {found.project}, not to {project}")
        self._seen.update({(found.metadata.uid, one.id): one for one in found.history})
        return found


def _refuses(found: api.Application) -> dict[ActionKind, str]:
    if found.metadata.deletionTimestamp is not None:
        return dict.fromkeys(("sync", "roll_back"), "the application is being deleted")
    if found.spec.get("sources"):
        return dict.fromkeys(("sync", "roll_back"), "it has several sources, and the bot knows of one")
    if found.operation is not None:
        return dict.fromkeys(("sync", "roll_back"), "another operation is in progress")
    if found.automated:
        return {
            "sync": f"automated sync is on and holds it at {found.target_revision}: revert in its repository",
            "roll_back": "automated sync is on, and Argo CD rolls nothing back then: revert in its repository",
        }
    return {"roll_back": "nothing else was synced before"} if len(found.history) < 2 else {}


def _marks(intent: Intent) -> dict[str, str]:
    return {
        _EXECUTION: str(intent.execution_id),
        _STEP: str(intent.step),
        _FENCE: str(intent.fence),
        _GENERATION: intent.generation,
    }


def _bears(operation: api.Operation, intent: Intent) -> bool:
    told = {one.name: one.value for one in operation.info}
    ours = _marks(intent)
    return all(told.get(mark) == ours[mark] for mark in (_EXECUTION, _STEP, _GENERATION))


def _is_of(operation: api.Operation, wish: _Wish) -> bool:
    """Whether it asks for what ``wish`` does.

    A rollback brings the source of its entry along and no ``info``; a sync none, or that of the spec since version 3.
    """
    sync = operation.sync
    alike = wish.verb == "sync" or (sync.source == wish.source and not operation.info)
    return alike and not sync.dryRun and sync.revision == wish.revision
