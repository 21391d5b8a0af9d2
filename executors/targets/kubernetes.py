"""Deployments, StatefulSets and DaemonSets of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from executors.targets.kubernetes_api import KubernetesApi, Missing, Right, Write
from executors.targets.kubernetes_marks import finding, hold_fence, marks, placeholders
from executors.targets.kubernetes_objects import KINDS, Autoscaler, Kind, Workload
from executors.targets.kubernetes_reads import AUTOSCALERS, BUDGETS, RESOURCES, KubernetesReads
from executors.targets.kubernetes_words import command
from executors.targets.kubernetes_workload import (
    ROLLED_BACK_TO,
    autoscaler_moved,
    away_at_once,
    bounds,
    complete,
    generation,
    refusal,
    refuses,
    restarted_by,
    rolled_out,
    stuck,
    waits_for,
    workload_moved,
)
from executors.targets.kubernetes_writes import evicted, restarted, rolled_back, scaled, with_bounds
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    InstanceRef,
    Operation,
    RestartInstance,
    RollBackTo,
    RolloutRestart,
    ScaleTo,
    SetBounds,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import ConfigurationError, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target


def configuration_for(context: str) -> Configuration:
    """In a cluster its service account, unless a context is named; elsewhere the kubeconfig's (empty: the current one).

    Raises ConfigurationError.
    """
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and not context
    return in_cluster() if inside else from_kubeconfig(context=context or None)


def in_cluster() -> Configuration:
    """The service account of the pod that we run in. Raises ConfigurationError outside of a cluster."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise ConfigurationError(f"there is no Kubernetes service account here: {error}") from error
    return configuration


def from_kubeconfig(path: Path | None = None, context: str | None = None) -> Configuration:
    """A context of a kubeconfig file; None: the one that kubectl would use. Raises ConfigurationError."""
    configuration = Configuration()
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=None if path is None else str(path),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, YAMLError, OSError) as error:
        raise ConfigurationError(f"the kubeconfig cannot be used: {error}") from error
    return configuration


@dataclass(frozen=True, slots=True)
class _Live:
    """A workload and what rules over its replicas, as they were read."""

    workload: Workload
    autoscalers: tuple[Autoscaler, ...]

    @property
    def generation(self) -> str:
        return generation(self.workload, self.autoscalers)


class KubernetesTarget(Target):
    """The workloads of the listed namespaces; everything else is refused before anything is sent.

    ``generation`` is ``metadata.generation``, which the server raises with each change of the spec (of a Deployment's
    annotations too), or what stands for it where an autoscaler rules (``kubernetes_workload.generation``). A write
    carries the resourceVersion of the object in which that generation was read just before, so whatever comes in
    between makes the server refuse it. A restart is an eviction: the server holds it to the PodDisruptionBudgets.
    """

    def __init__(self, configuration: Configuration, *, namespaces: Collection[str], timeout_s: float = 10.0) -> None:
        self._api = KubernetesApi(configuration, timeout_s=timeout_s, privileges="kubernetes-rbac.yaml")
        self._reads = KubernetesReads(self._api)
        self._namespaces = frozenset(namespaces)
        # A call may still be connecting when it is given up, and then the server needs its time too.
        self._flight_s = 2 * timeout_s
        # By uid, learnt when read, for what a TargetRef does not say.
        self._kinds: dict[str, Kind] = {}
        self._autoscalers: dict[str, str] = {}

    @property
    def platform(self) -> str:
        return "kubernetes"

    def declares(self) -> Declaration:
        patches = tuple(f"patch {resource}" for resource in RESOURCES.values())
        by_version = "resourceVersion of the generation that was read"
        return Declaration(
            offers=(
                Offer("restart", False, ("create pods/eviction",), "the pod's uid, PodDisruptionBudgets"),
                Offer("rollout_restart", False, patches, by_version),
                Offer("scale", True, patches[:2], by_version),
                Offer("bounds", True, (f"patch {AUTOSCALERS}",), f"{by_version}, of the autoscaler"),
                Offer("roll_back", True, patches, by_version),
            ),
            observes=(
                "pods, their nodes, and which are ready",
                "replicas wanted, the autoscaler's bounds",
                "images, revisions and rollout",
                "how many pods may be away",
            ),
            reads=(
                *(f"get {resource}" for resource in RESOURCES.values()),
                "list replicasets.apps",
                "list controllerrevisions.apps",
                "get pods",
                "list pods",
                f"list {AUTOSCALERS}",
                f"list {BUDGETS}",
            ),
            privileges="kubernetes-rbac.yaml",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        kind = (await self._workload(ref)).kind
        rights = [
            Right("get", RESOURCES[kind], ref.namespace),
            Right("list", "replicasets.apps" if kind == "Deployment" else "controllerrevisions.apps", ref.namespace),
            Right("get", "pods", ref.namespace),
            Right("list", "pods", ref.namespace),
            Right("list", BUDGETS, ref.namespace),
            Right("create", "pods/eviction", ref.namespace),
            Right("patch", RESOURCES[kind], ref.namespace),
        ]
        if kind != "DaemonSet":
            rights += [Right("list", AUTOSCALERS, ref.namespace), Right("patch", AUTOSCALERS, ref.namespace)]
        return tuple(await asyncio.gather(*(self._api.may(right) for right in rights)))

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        found = await self._named(address.namespace, address.name, KINDS)
        where = f"{address.namespace}/{address.name}"
        if not found:
            raise PermanentError(f"there is no Deployment, StatefulSet or DaemonSet {where}")
        if len(found) > 1:
            kinds = " and a ".join(one.kind for one in found)
            raise PermanentError(f"{where} is a {kinds}; one of them needs another name")
        uid = found[0].metadata.uid
        return TargetRef(platform="kubernetes", namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        workload = await self._workload(ref)
        autoscalers, pods, budgets, history = await asyncio.gather(
            self._ruling(workload),
            self._reads.pods(workload),
            self._reads.budgets(workload),
            self._reads.history(workload),
        )
        instances = (InstanceState(pod.name, pod.uid, pod.ready, pod.spec.node_name) for pod in pods if pod.live)
        return TargetState(
            ref=ref,
            generation=generation(workload, autoscalers),
            replicas=workload.replicas,
            instances=tuple(instances),
            revision=", ".join(workload.images),
            rollout=str(history.current or ""),
            revisions=tuple(one.revision() for one in history.earlier),
            bounds=bounds(autoscalers),
            away_at_once=away_at_once(workload),
            refuses=refuses(workload, autoscalers, pods=pods, budgets=budgets, history=history),
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        live = await self._at_generation(ref, intent.generation)
        write = await self._write(live, operation, marks(intent))
        match operation:
            case SetBounds():
                hold_fence(live.autoscalers[0].metadata.annotations, intent, ref.describe())
            case RestartInstance(instance=instance):
                await self._is_a_pod_of_it(live.workload, instance)
            case _:
                hold_fence(live.workload.metadata.annotations, intent, ref.describe())
        await self._send(ref, operation, write, live)
        return _said(live, operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        live = await self._live(ref)
        sent = self._api.shown(await self._write(live, operation, placeholders(generation)))
        return (f"{sent} only while the {live.workload.kind} {ref.describe()} is at generation {generation}",)

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        live = await self._at_generation(ref, generation)
        await self._api.write(await self._write(live, operation, placeholders(generation)), rehearsed=True)
        return "accepted by the API server (dryRun=All)"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Raises TemporaryError, besides what a read does, where the cluster itself says why it gets no further."""
        workload = await self._workload(ref)
        if not await self._is_carried_out(workload, operation):
            if why := stuck(workload) or waits_for(workload, await self._reads.pods(workload)):
                raise TemporaryError(why)
            return False
        return True

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the objects themselves; takes up to twice the time-out of a call.

        Restart: a pod's uid never comes back, so a pod that is gone or going is restarted; the cluster does not tell by
        whom. One that is still there is NOT_APPLIED once no request can be under way any more.

        All others: the annotations are written together with the change, on the same object, so ours on it prove that
        it was applied. Without them it is NOT_APPLIED when the object has moved on and an earlier execution's
        annotations still stand: the server refuses our resourceVersion by now. If it has moved on and there are none,
        or those of a later execution, ours may have stood there and been replaced: UNKNOWN. So it is with any but ours
        on a Deployment that has moved on: ``kubectl rollout undo`` writes earlier ones back. If it is unmoved,
        NOT_APPLIED once no request can be under way any more.

        "Under way" ends when every sender has given up and the server had as long again. A sender or server stopped in
        mid-call for longer meets the uid or resourceVersion it carries, so that a step done over cannot take effect
        twice.

        UNKNOWN when the workload itself was deleted or recreated, or its autoscaler was.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        # Not read since the start, it may be any of them; kubectl takes the one that exists and names the others.
        kinds = (self._kinds[ref.uid],) if ref.uid in self._kinds else KINDS
        return command(ref, action, kinds, self._autoscalers.get(ref.uid, ref.name))

    async def close(self) -> None:
        self._api.close()

    async def _write(self, live: _Live, operation: Operation, written: dict[str, str]) -> Write:
        """The one request that carries ``operation`` out. Raises PermanentError where the workload does not take it."""
        workload = live.workload
        if why := refusal(operation, workload, live.autoscalers):
            raise PermanentError(f"{workload.describe()} does not take this: {why}; nothing was sent")
        match operation:
            case RestartInstance(instance=instance):
                return evicted(workload, instance)
            case RolloutRestart():
                return restarted(workload, written)
            case ScaleTo(replicas=replicas):
                return scaled(workload, replicas, written)
            case SetBounds(bounds=wanted):
                return with_bounds(live.autoscalers[0], wanted, written)
            case RollBackTo(revision=revision):
                return rolled_back(workload, await self._reads.history(workload), revision, written)
            case _:
                raise not_offered("kubernetes", operation)

    async def _send(self, ref: TargetRef, operation: Operation, write: Write, live: _Live) -> None:
        try:
            await self._api.write(write)
        except PreconditionFailed as error:
            match operation:
                case RestartInstance(instance=instance):
                    # The server gives a conflict back, too, where many evictions compete for one budget.
                    if isinstance(error, Missing) or await self._is_gone(ref, instance):
                        raise
                    unchanged = f"the pod {instance.name} stands as it was"
                case _:
                    # Each change of its status raises the resourceVersion too, and in an incident they are many.
                    if (await self._live(ref)).generation != live.generation:
                        raise
                    unchanged = f"only the status of {ref.describe()} has changed"
            raise TemporaryError(f"{unchanged}: {error}", retry_after_s=1) from error

    async def _is_gone(self, ref: TargetRef, instance: InstanceRef) -> bool:
        pod = await self._reads.pod(ref.namespace, instance.name)
        return pod is None or pod.uid != instance.uid or pod.terminating

    async def _is_a_pod_of_it(self, workload: Workload, instance: InstanceRef) -> None:
        pods = [pod for pod in await self._reads.pods(workload) if not pod.terminating]
        if (instance.name, instance.uid) not in {(pod.name, pod.uid) for pod in pods}:
            raise PreconditionFailed(
                f"{instance.name} ({instance.uid}) is no pod of {workload.describe()} any more: nothing was sent"
            )

    async def _is_carried_out(self, workload: Workload, operation: Operation) -> bool:
        match operation:
            case RestartInstance(instance=instance):
                pods = await self._reads.pods(workload)
                return complete(workload, pods) and instance.uid not in {pod.uid for pod in pods}
            case ScaleTo(replicas=replicas):
                return workload.replicas == replicas and complete(workload, await self._reads.pods(workload))
            case RolloutRestart():
                return bool(restarted_by(workload)) and rolled_out(workload)
            case RollBackTo(revision=revision):
                return workload.metadata.annotations.get(ROLLED_BACK_TO) == revision and rolled_out(workload)
            case SetBounds(bounds=wanted):
                within = workload.replicas == 0 or wanted.minimum <= workload.replicas <= wanted.maximum
                if not within or bounds(await self._ruling(workload)) != wanted:
                    return False
                return complete(workload, await self._reads.pods(workload))
            case _:
                raise not_offered("kubernetes", operation)

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        try:
            workload = await self._workload(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        match operation:
            case RestartInstance(instance=instance):
                return Finding.APPLIED if await self._is_gone(ref, instance) else None
            case RolloutRestart() | ScaleTo() | RollBackTo():
                moved = workload_moved(workload, intent.generation)
                is_deployment = workload.kind == "Deployment"
                return finding(workload.metadata.annotations, intent, moved=moved, marks_come_back=is_deployment)
            case SetBounds():
                autoscalers = await self._ruling(workload)
                seen = autoscalers[0].metadata.annotations if len(autoscalers) == 1 else {}
                return finding(seen, intent, moved=autoscaler_moved(workload, autoscalers, intent.generation))
            case _:
                raise not_offered("kubernetes", operation)

    async def _at_generation(self, ref: TargetRef, generation: str) -> _Live:
        live = await self._live(ref)
        if live.generation != generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at generation {live.generation}, not {generation}"
            )
        return live

    async def _live(self, ref: TargetRef) -> _Live:
        workload = await self._workload(ref)
        return _Live(workload, await self._ruling(workload))

    async def _ruling(self, workload: Workload) -> tuple[Autoscaler, ...]:
        found = await self._reads.autoscalers(workload)
        if found:
            self._autoscalers[workload.metadata.uid] = found[0].metadata.name
        return found

    async def _workload(self, ref: TargetRef) -> Workload:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        kinds = (self._kinds[ref.uid],) if ref.uid in self._kinds else KINDS
        for workload in await self._named(ref.namespace, ref.name, kinds):
            if workload.metadata.uid == ref.uid:
                return workload
        raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone")

    async def _named(self, namespace: str, name: str, kinds: Collection[Kind]) -> list[Workload]:
        if namespace not in self._namespaces:
            allowed = ", ".join(sorted(self._namespaces)) or "none"
            raise PermanentError(f"the namespace {namespace} is not one that the bot may touch (allowed: {allowed})")
        read = [await self._reads.workload(kind, namespace, name) for kind in kinds]
        found = [workload for workload in read if workload is not None]
        self._kinds.update({workload.metadata.uid: workload.kind for workload in found})
        return found


def _said(live: _Live, operation: Operation) -> str:
    it = live.workload.describe()
    match operation:
        case RestartInstance(instance=instance):
            return f"evicted the pod {instance.name} ({instance.uid})"
        case RolloutRestart():
            return f"began a rolling restart of {it}"
        case ScaleTo(replicas=replicas):
            return f"scaled {it} from {live.workload.replicas} to {replicas}"
        case SetBounds(bounds=wanted):
            return f"set the bounds of {live.autoscalers[0].metadata.name} from {bounds(live.autoscalers)} to {wanted}"
        case RollBackTo(revision=revision):
            return f"rolled {it} back to its revision {revision}"
        case _:
            raise not_offered("kubernetes", operation)
