"""Logs in the pods of Kubernetes workloads: emptied in place by a fixed script, after a copy was kept beside."""

from __future__ import annotations

import asyncio
import posixpath
import re
import shlex
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from kubernetes.client import Configuration
from pydantic import TypeAdapter, ValidationError

from executors.targets.kubernetes_api import Foreign, KubernetesApi, Right
from executors.targets.kubernetes_objects import Kind, Meta, Pod, Workload
from executors.targets.kubernetes_reads import KubernetesReads
from executors.targets.late import wait_out
from executors.targets.log_truncation import MOST_LISTED, is_log, is_of, verdict
from executors.targets.log_truncation_exec import PodExec
from executors.targets.log_truncation_script import LIST, LOOK, TRUNCATE, Seen, inode_of, refused, seen, told
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    ActionKind,
    LogFile,
    LogPath,
    ManualAction,
    Operation,
    TruncateAction,
    TruncateLog,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target

_KINDS: tuple[Kind, ...] = ("Deployment", "StatefulSet")
_MOST_PODS = 50
"""Pods of a workload that are looked into."""
_AT_ONCE = 4
_EXEC = "pods/exec"
_LISTED = re.compile(r"([0-9]+:[0-9]+) ([0-9]+) 1 (/.*)")
"""Of LIST: what has one name only."""
_PATH: TypeAdapter[str] = TypeAdapter(LogPath)


class _Container(Foreign):
    name: str


class _Containers(Foreign):
    containers: tuple[_Container, ...]


class _PodContainers(Foreign):
    metadata: Meta
    spec: _Containers


class PodLogsTarget(Target):
    """Logs below ``paths`` (absolute folders) in the first container of each pod, in the listed namespaces.

    ``generation`` is the workload's. A plan names each file by pod uid, device and inode: the script compares them on
    the file that it opened, right before it empties it, and that the file is no smaller than planned. Exec names a pod
    by its name alone; one that was recreated under the same name in that instant is told by its inodes.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        namespaces: Collection[str],
        paths: Sequence[str],
        timeout_s: float = 10.0,
    ) -> None:
        self._api = KubernetesApi(configuration, timeout_s=timeout_s, privileges="pod-logs-rbac.yaml")
        self._reads = KubernetesReads(self._api)
        self._exec = PodExec(configuration, timeout_s=timeout_s)
        self._namespaces = frozenset(namespaces)
        self._paths = tuple(_usable(path) for path in paths)
        self._timeout_s = timeout_s

    @property
    def platform(self) -> str:
        return "pod_logs"

    def declares(self) -> Declaration:
        return Declaration(
            offers=(
                Offer("truncate", False, (f"create {_EXEC}",), "pod uid, inode, the file's size as planned, the fence"),
            ),
            observes=("pods, their log files and sizes", "the record of what was emptied"),
            reads=(
                "get deployments.apps",
                "get statefulsets.apps",
                "list replicasets.apps",
                "get pods",
                "list pods",
                f"get {_EXEC}",
            ),
            privileges="pod-logs-rbac.yaml",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        await self._workload(ref)
        rights = (
            Right("get", "deployments.apps", ref.namespace),
            Right("get", "statefulsets.apps", ref.namespace),
            Right("list", "replicasets.apps", ref.namespace),
            Right("get", "pods", ref.namespace),
            Right("list", "pods", ref.namespace),
            Right("get", _EXEC, ref.namespace),
            Right("create", _EXEC, ref.namespace),
        )
        return tuple([await self._api.may(right) for right in rights])

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        found = await self._named(address.namespace, address.name)
        where = f"{address.namespace}/{address.name}"
        if not found:
            raise PermanentError(f"there is no Deployment or StatefulSet {where}")
        if len(found) > 1:
            raise PermanentError(f"{where} is a Deployment and a StatefulSet; one of them needs another name")
        uid = found[0].metadata.uid
        return TargetRef(platform="pod_logs", namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        workload = await self._workload(ref)
        pods = [pod for pod in await self._reads.pods(workload) if pod.live][:_MOST_PODS]
        turns = asyncio.Semaphore(_AT_ONCE)
        listed = await asyncio.gather(*(self._listed(ref, pod, turns) for pod in pods))
        files = sorted((file for one in listed if isinstance(one, list) for file in one), key=_largest_first)
        reasons = [one for one in listed if not isinstance(one, list)]
        refuses: dict[ActionKind, str] = {}
        if len(reasons) == len(pods):
            for reason in reasons:
                if isinstance(reason, TemporaryError):
                    raise reason
            refuses["truncate"] = "; ".join(map(str, reasons[:3])) or "it has no pod"
        return TargetState(
            ref=ref,
            generation=str(workload.metadata.generation),
            replicas=workload.replicas,
            instances=tuple(InstanceState(pod.name, pod.uid, pod.ready) for pod in pods),
            files=tuple(files[:MOST_LISTED]),
            refuses=refuses,
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        file = _file(operation)
        folder = self._folder(file)
        workload = await self._workload(ref)
        if str(workload.metadata.generation) != intent.generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at generation {workload.metadata.generation},"
                f" not {intent.generation}"
            )
        container = await self._container(ref, file)
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        # Half of the time for the copying, and once over until it may not take effect any more.
        times = (str(max(1, int(self._timeout_s / 2))), str(max(1, int(self._timeout_s))))
        arguments = (*_step(folder, file, intent), str(intent.fence), stamp, *times)
        ran = await self._exec.run(
            ref.namespace, file.instance, container, TRUNCATE, arguments, more_s=self._timeout_s / 2
        )
        if ran.status != 0:
            raise refused(ran.status, ran.err, file)
        return told(ran.out, file)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        file = _file(operation)
        await self._workload(ref)
        arguments = (self._folder(file), file.path, inode_of(file), str(file.size_bytes), "<execution>", "<step>")
        sent = self._exec.shown(ref.namespace, file.instance, "TRUNCATE", (*arguments, "<fence>", "<time>"))
        pod = file.uid.partition("/")[0]
        return (f"{sent} only while {ref.describe()} is at generation {generation} and the pod's uid is {pod}",)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        file = _file(operation)
        try:
            nobody = Intent(ExecutionId(0), step=0, fence=0, generation="")
            found = await self._looked(ref, file, _step(self._folder(file), file, nobody))
        except PreconditionFailed:
            return True  # the pod, or the file, is gone with all that it held
        if found.inode != inode_of(file) or found.now.size_bytes < file.size_bytes:
            return True
        # As large as it was: perhaps it was emptied and has filled up again at once.
        return any(entry.phase == "done" for entry in found.entries)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the record beside the log; takes up to twice the time-out of a call.

        A line is in the record before the file is emptied, and another one after it. With the first alone the file
        tells: it is smaller than before, or begins otherwise. Without a line of ours it is NOT_APPLIED once no script
        can be on its way any more; while one is at work nobody can tell yet (TemporaryError). UNKNOWN when the pod or
        the folder is gone, and the record with it, or when between the two lines the file was replaced.
        """
        file = _file(operation)
        return await wait_out(lambda: self._look(ref, file, intent), flight_s=2 * self._timeout_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        """A kubectl line with gzip, which keeps all of each file."""
        match action:
            case TruncateAction(files=files):
                script = 'c="$1.$(date -u +%Y%m%dT%H%M%SZ).gz"; gzip -c "$1" > "$c" && gzip -t "$c" && : > "$1"'
                return " && ".join(
                    shlex.join(
                        ["kubectl", "-n", ref.namespace, "exec", one.instance, "--", "sh", "-c", script, "sh", one.path]
                    )
                    for one in files
                )
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("pod_logs", action)

    async def close(self) -> None:
        self._api.close()

    async def _named(self, namespace: str, name: str) -> list[Workload]:
        if namespace not in self._namespaces:
            allowed = ", ".join(sorted(self._namespaces)) or "none"
            raise PermanentError(f"the namespace {namespace} is not one that the bot may touch (allowed: {allowed})")
        read = [await self._reads.workload(kind, namespace, name) for kind in _KINDS]
        return [workload for workload in read if workload is not None]

    async def _workload(self, ref: TargetRef) -> Workload:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        for workload in await self._named(ref.namespace, ref.name):
            if workload.metadata.uid == ref.uid:
                return workload
        raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone")

    async def _containers(self, namespace: str, pod: str) -> _PodContainers:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        found = await self._api.read(Right("get", "pods", namespace), path, _PodContainers)
        if found is None:
            raise PreconditionFailed(f"the pod {namespace}/{pod} is gone")
        return found

    async def _container(self, ref: TargetRef, file: LogFile) -> str:
        """Of the file's own pod. Raises PreconditionFailed when another one bears its name."""
        found = await self._containers(ref.namespace, file.instance)
        if found.metadata.uid != file.uid.partition("/")[0]:
            raise PreconditionFailed(f"the pod {ref.namespace}/{file.instance} is another one than was planned")
        return found.spec.containers[0].name

    async def _listed(
        self, ref: TargetRef, pod: Pod, turns: asyncio.Semaphore
    ) -> list[LogFile] | PermanentError | TemporaryError:
        """The logs in a pod, or why they cannot be listed, which keeps nobody from those of the other pods."""
        async with turns:
            try:
                container = (await self._containers(ref.namespace, pod.name)).spec.containers[0].name
                ran = await self._exec.run(ref.namespace, pod.name, container, LIST, self._paths)
            except (PermanentError, TemporaryError) as error:
                return error
            except OutcomeUnknown as error:  # a question can be asked again
                return TemporaryError(str(error))
        if ran.status != 0:
            return PermanentError(f"{pod.name}: {ran.err}")
        return [file for line in ran.out.splitlines() if (file := self._in_list(pod, line)) is not None]

    def _in_list(self, pod: Pod, line: str) -> LogFile | None:
        if (found := _LISTED.fullmatch(line)) is None:
            return None
        inode, size, path = found.groups()
        try:
            file = LogFile(path=path, uid=f"{pod.uid}/{inode}", size_bytes=int(size), instance=pod.name)
            self._folder(file)
        except (ValidationError, PermanentError):
            return None
        return file

    def _folder(self, file: LogFile) -> str:
        """The allowed folder that the path is in. Raises PermanentError when there is none."""
        within = [path for path in self._paths if file.path.startswith(f"{path}/")]
        is_one = posixpath.normpath(file.path) == file.path and is_log(posixpath.basename(file.path))
        if not within or not is_one:
            raise PermanentError(
                f"{file.path} is no log that the bot may empty (allowed: below {', '.join(self._paths) or 'nothing'};"
                " SRE_POD_LOG_PATHS sets it)"
            )
        return max(within, key=len)

    async def _look(self, ref: TargetRef, file: LogFile, intent: Intent) -> Finding | None:
        try:
            await self._workload(ref)
            found = await self._looked(ref, file, _step(self._folder(file), file, intent))
        except PreconditionFailed:
            return Finding.UNKNOWN
        now = found.now if found.inode == inode_of(file) else None
        finding = verdict([entry for entry in found.entries if is_of(entry, file, intent)], now)
        if found.busy and finding is not Finding.APPLIED:
            raise TemporaryError(f"somebody is emptying logs beside {file.instance}:{file.path} right now")
        return finding

    async def _looked(self, ref: TargetRef, file: LogFile, arguments: Sequence[str]) -> Seen:
        """Raises PreconditionFailed when pod or file is gone, TemporaryError."""
        container = await self._container(ref, file)
        try:
            ran = await self._exec.run(ref.namespace, file.instance, container, LOOK, arguments)
        except OutcomeUnknown as error:
            raise TemporaryError(str(error)) from error
        if ran.status != 0:
            raise refused(ran.status, ran.err, file)
        return seen(ran.out, file)


def _step(folder: str, file: LogFile, intent: Intent) -> tuple[str, ...]:
    """What every script about one file begins with."""
    return folder, file.path, inode_of(file), str(file.size_bytes), str(intent.execution_id), str(intent.step)


def _largest_first(file: LogFile) -> tuple[int, str, str]:
    return -file.size_bytes, file.instance, file.path


def _file(operation: Operation) -> LogFile:
    match operation:
        case TruncateLog(file=file):
            return file
        case _:
            raise not_offered("pod_logs", operation)


def _usable(path: str) -> str:
    try:
        return _PATH.validate_python(path.rstrip("/"))
    except ValidationError as error:
        raise ConfigurationError(
            f"SRE_POD_LOG_PATHS: {path!r} has to be an absolute folder other than /, of letters, digits and ._@%+=:,-"
        ) from error
