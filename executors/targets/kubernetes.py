"""Deployments and StatefulSets of a Kubernetes cluster."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, assert_never

from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from executors.targets.kubernetes_api import KINDS, Kind, KubernetesApi, Pod, Workload
from executors.targets.late import wait_out
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import ConfigurationError, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import (
    Action,
    InstanceRef,
    InstanceState,
    ManualAction,
    Operation,
    RestartAction,
    RestartInstance,
    ScaleAction,
    ScaleTo,
    TargetRef,
    TargetState,
)
from pipeline.ports.targets import Target

_EXECUTION = "sre-bot/execution"
_STEP = "sre-bot/step"
_FENCE = "sre-bot/fence"
_GENERATION = "sre-bot/generation"
"""The generation that was acted upon: a bot with another database may have used the same execution id before."""


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


class KubernetesTarget(Target):
    """The workloads of the listed namespaces; everything else is refused before anything is sent.

    ``generation`` is ``metadata.generation``, which the server raises with each change of the spec. A write carries
    the resourceVersion of the object in which that generation was read just before, so whatever comes in between
    makes the server refuse it.
    """

    def __init__(self, configuration: Configuration, *, namespaces: Collection[str], timeout_s: float = 10.0) -> None:
        self._api = KubernetesApi(configuration, timeout_s=timeout_s)
        self._namespaces = frozenset(namespaces)
        # A call may still be connecting when it is given up, and then the server needs its time too.
        self._flight_s = 2 * timeout_s
        self._kinds: dict[str, Kind] = {}  # by uid, learnt when read: a TargetRef does not say

    @property
    def platform(self) -> str:
        return "kubernetes"

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        found = await self._named(address.namespace, address.name, KINDS)
        where = f"{address.namespace}/{address.name}"
        if not found:
            raise PermanentError(f"there is no Deployment or StatefulSet {where}")
        if len(found) > 1:
            raise PermanentError(f"{where} is a Deployment and a StatefulSet; one of them needs another name")
        return TargetRef(platform="kubernetes", namespace=address.namespace, name=address.name, uid=found[0].uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        workload = await self._workload(ref)
        pods = await self._api.pods(workload)
        return TargetState(
            ref=ref,
            generation=str(workload.generation),
            replicas=workload.replicas,
            # As its controller counts: a pod on its way out, or ended, is none of its replicas.
            instances=tuple(InstanceState(pod.name, pod.uid, pod.ready) for pod in pods if _is_live(pod)),
            revision=", ".join(workload.images),
            rollout=workload.rollout,
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        workload = await self._at_generation(ref, intent.generation)
        match operation:
            case RestartInstance(instance=instance):
                return await self._restart(workload, instance)
            case ScaleTo(replicas=replicas):
                return await self._scale(ref, workload, replicas, intent)
            case _:
                assert_never(operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        workload = await self._workload(ref)
        match operation:
            case RestartInstance(instance=instance):
                sent = self._api.shown_delete(workload.namespace, instance.name, instance.uid)
            case ScaleTo(replicas=replicas):
                sent = self._api.shown_patch(workload, _scaled(replicas, _placeholders(generation)))
            case _:
                assert_never(operation)
        return (f"{sent} only while {workload.kind} {ref.describe()} is at generation {generation}",)

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        workload = await self._at_generation(ref, generation)
        match operation:
            case RestartInstance(instance=instance):
                await self._api.delete_pod(workload.namespace, instance.name, instance.uid, rehearsed=True)
            case ScaleTo(replicas=replicas):
                marks = _placeholders(generation)
                await self._api.patch_workload(workload, _scaled(replicas, marks), rehearsed=True)
            case _:
                assert_never(operation)
        return "accepted by the API server (dryRun=All)"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        workload = await self._workload(ref)
        pods = [pod for pod in await self._api.pods(workload) if not pod.finished]
        complete = (
            workload.observed_generation >= workload.generation
            and len(pods) == workload.replicas
            and all(pod.ready and not pod.terminating for pod in pods)
        )
        match operation:
            case RestartInstance(instance=instance):
                return complete and instance.uid not in {pod.uid for pod in pods}
            case ScaleTo(replicas=replicas):
                return complete and workload.replicas == replicas
            case _:
                assert_never(operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the objects themselves; takes up to twice the time-out of a call.

        Restart: a pod's uid never comes back, so a pod that is gone or going is restarted; the cluster does not tell by
        whom. One that is still there is NOT_APPLIED once no request can be under way any more.

        Scale: the annotations are written together with the replicas, so ours on the workload prove that it was
        applied. Without them it is NOT_APPLIED when the generation has moved on and an earlier execution's annotations
        still stand: the server refuses our resourceVersion by now. If it has moved on and there are none, or those of a
        later execution, ours may have stood there and been replaced: UNKNOWN. If the generation is unmoved,
        NOT_APPLIED once no request can be under way any more.

        "Under way" ends when every sender has given up and the server had as long again. A sender or server stopped in
        mid-call for longer meets the uid or resourceVersion it carries, so that a step done over cannot take effect
        twice.

        UNKNOWN when the workload itself was deleted or recreated.
        """
        return await wait_out(lambda: self._look(ref, operation, intent), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        match action:
            case RestartAction(instances=instances):
                # One after the other, as the bot would do it.
                return " && ".join(f"kubectl -n {ref.namespace} delete pod {one.name} --wait" for one in instances)
            case ScaleAction(from_replicas=before, to_replicas=after):
                # Not read since the start, it may be either; kubectl scales the one that exists and names the other.
                kinds = (self._kinds[ref.uid],) if ref.uid in self._kinds else KINDS
                names = " ".join(f"{kind.lower()}/{ref.name}" for kind in kinds)
                return f"kubectl -n {ref.namespace} scale {names} --current-replicas={before} --replicas={after}"
            case ManualAction(command=command):
                return command
            case _:
                assert_never(action)

    async def close(self) -> None:
        self._api.close()

    async def _restart(self, workload: Workload, instance: InstanceRef) -> str:
        pods = await self._api.pods(workload)
        if not any(pod.uid == instance.uid and pod.name == instance.name and not pod.terminating for pod in pods):
            raise PreconditionFailed(
                f"{instance.name} ({instance.uid}) is no pod of {workload.namespace}/{workload.name} any more"
            )
        await self._api.delete_pod(workload.namespace, instance.name, instance.uid)
        return f"deleted the pod {instance.name} ({instance.uid})"

    async def _scale(self, ref: TargetRef, workload: Workload, replicas: int, intent: Intent) -> str:
        seen = workload.annotations
        if seen.get(_EXECUTION) == str(intent.execution_id) and _number(seen.get(_FENCE)) > intent.fence:
            raise PreconditionFailed(f"{ref.describe()} bears fence {seen[_FENCE]}, we hold {intent.fence}")
        try:
            await self._api.patch_workload(workload, _scaled(replicas, _marks(intent)))
        except PreconditionFailed as error:
            # Each change of its status raises the resourceVersion too, and in an incident they are many.
            if (await self._workload(ref)).generation != workload.generation:
                raise
            raise TemporaryError(
                f"only the status of {ref.describe()} has changed: {error}", retry_after_s=1
            ) from error
        return f"scaled the {workload.kind} {ref.describe()} from {workload.replicas} to {replicas}"

    async def _look(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding | None:
        try:
            workload = await self._workload(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        match operation:
            case RestartInstance(instance=instance):
                pod = await self._api.pod(ref.namespace, instance.name)
                gone = pod is None or pod.uid != instance.uid or pod.terminating
                return Finding.APPLIED if gone else None
            case ScaleTo():
                return _scale_finding(workload, intent)
            case _:
                assert_never(operation)

    async def _at_generation(self, ref: TargetRef, generation: str) -> Workload:
        workload = await self._workload(ref)
        if str(workload.generation) != generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at generation {workload.generation}, not {generation}"
            )
        return workload

    async def _workload(self, ref: TargetRef) -> Workload:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        kinds = (self._kinds[ref.uid],) if ref.uid in self._kinds else KINDS
        for workload in await self._named(ref.namespace, ref.name, kinds):
            if workload.uid == ref.uid:
                return workload
        raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone")

    async def _named(self, namespace: str, name: str, kinds: Collection[Kind]) -> list[Workload]:
        if namespace not in self._namespaces:
            allowed = ", ".join(sorted(self._namespaces)) or "none"
            raise PermanentError(f"the namespace {namespace} is not one that the bot may touch (allowed: {allowed})")
        read = [await self._api.workload(kind, namespace, name) for kind in kinds]
        found = [workload for workload in read if workload is not None]
        self._kinds.update({workload.uid: workload.kind for workload in found})
        return found


def _is_live(pod: Pod) -> bool:
    return not pod.terminating and not pod.finished


def _marks(intent: Intent) -> dict[str, str]:
    return {
        _EXECUTION: str(intent.execution_id),
        _STEP: str(intent.step),
        _FENCE: str(intent.fence),
        _GENERATION: intent.generation,
    }


def _placeholders(generation: str) -> dict[str, str]:
    """The marks where there is no execution yet."""
    return {_EXECUTION: "<execution>", _STEP: "<step>", _FENCE: "<fence>", _GENERATION: generation}


def _scaled(replicas: int, marks: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"annotations": marks}, "spec": {"replicas": replicas}}


def _scale_finding(workload: Workload, intent: Intent) -> Finding | None:
    seen, ours = workload.annotations, _marks(intent)
    if all(seen.get(mark) == ours[mark] for mark in (_EXECUTION, _STEP, _GENERATION)):
        return Finding.APPLIED
    if str(workload.generation) == intent.generation:
        return None
    return Finding.NOT_APPLIED if 0 < _number(seen.get(_EXECUTION)) < intent.execution_id else Finding.UNKNOWN


def _number(text: str | None) -> int:
    """0 for what is no number: a person may have edited an annotation."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() else 0
