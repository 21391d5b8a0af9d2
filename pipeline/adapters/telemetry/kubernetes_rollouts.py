"""Rollouts of Deployments, told from their ReplicaSets. Pure.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#checking-rollout-history-of-a-deployment
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from pipeline.adapters.telemetry.http import one_line
from pipeline.adapters.telemetry.kubernetes_names import ServiceNames
from pipeline.adapters.telemetry.kubernetes_reads import Deployment, ReplicaSet
from pipeline.domain.changes import ChangeEvent, ChangeKind

_REVISION = "deployment.kubernetes.io/revision"
_EARLIER_REVISIONS = "deployment.kubernetes.io/revision-history"
_CAUSE = "kubernetes.io/change-cause"


def rollouts(
    replica_sets: Iterable[ReplicaSet],
    deployments: Iterable[Deployment],
    names: ServiceNames,
    rolled_back_at: dict[str, datetime],
) -> Iterator[ChangeEvent]:
    """One change a ReplicaSet that can be dated: by its creation, or, where an old one came back (a rollback), by the
    Deployment's progress, and that only while it is the newest. The progress goes on for a while: ``rolled_back_at``
    keeps what was seen first, by uid and revision.
    """
    by_uid = {deployment.metadata.uid: deployment for deployment in deployments}
    sets_of: dict[str, dict[int, ReplicaSet]] = {}
    for one in replica_sets:
        owner, revision = one.metadata.owner, one.metadata.annotations.get(_REVISION, "")
        if owner is not None and owner.uid in by_uid and revision.isdecimal():
            sets_of.setdefault(owner.uid, {})[int(revision)] = one
    for uid, by_revision in sets_of.items():
        yield from _of_deployment(by_uid[uid], by_revision, names, rolled_back_at)


def _of_deployment(
    deployment: Deployment,
    by_revision: Mapping[int, ReplicaSet],
    names: ServiceNames,
    rolled_back_at: dict[str, datetime],
) -> Iterator[ChangeEvent]:
    revisions = sorted(by_revision)
    for before, revision in zip([None, *revisions], revisions, strict=False):
        one = by_revision[revision]
        came_back = bool(one.metadata.annotations.get(_EARLIER_REVISIONS))
        if not came_back:
            at = one.metadata.creationTimestamp
        else:
            at = rolled_back_at.get(seen := f"{one.metadata.uid}/{revision}")
            if at is None and revision == revisions[-1] and (at := _progressed_at(deployment)) is not None:
                rolled_back_at[seen] = at
        if at is None:
            continue
        cause = one.metadata.annotations.get(_CAUSE, "")
        images = _images(one, None if before is None else by_revision[before])
        back = "rolled back" if came_back else ""
        yield ChangeEvent(
            service=names.of(one.metadata),
            at=at.astimezone(UTC),
            kind=ChangeKind.DEPLOYMENT,
            revision=f"revision {revision}",
            title=one_line("; ".join(part for part in (back, cause, images) if part)),
        )


def _images(one: ReplicaSet, before: ReplicaSet | None) -> str:
    now, then = _images_of(one), _images_of(before) if before is not None else {}
    changed = [
        f"{image} (was {then[name]})" if name in then else image
        for name, image in now.items()
        if then.get(name) != image
    ]
    return ", ".join(changed) or f"same image {', '.join(now.values())}, other settings"


def _images_of(one: ReplicaSet) -> dict[str, str]:
    return {container.name: container.image for container in one.spec.template.spec.containers}


def _progressed_at(deployment: Deployment) -> datetime | None:
    conditions = deployment.status.conditions or ()
    return next((condition.lastUpdateTime for condition in conditions if condition.type == "Progressing"), None)
