"""What can be done to a target: actions, as they are proposed, and operations, as they are sent.

Both are closed lists. What a platform takes of them its adapter declares (``pipeline.domain.capability``).
"""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$")]
"""A platform's object name: no wildcard, no selector, nothing outside ASCII."""
Uid = Annotated[str, Field(min_length=1, max_length=256)]
RevisionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.:/@+]{0,199}$")]
"""A platform's own name for something that it can roll out: a revision, a version, a slot, a fingerprint."""
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$|^[0-9a-f]{64}$")]
"""The whole name of a commit: never a branch, a tag or an abbreviation."""

MAX_RESTARTS = 50
"""Replicas that one action may restart."""
MAX_REPLICAS = 1000
"""Replicas that a target may be scaled from or to."""
MAX_CONCURRENCY = 100_000
MAX_FILES = 20
"""Log files that one action may truncate."""
MAX_WHY = 300
"""Characters of the reason why a person has to act."""

Replicas = Annotated[int, Field(ge=1, le=MAX_REPLICAS)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InstanceRef(_Frozen):
    """One replica, by name and by the platform's own id."""

    name: Name
    uid: Uid


class Bounds(_Frozen):
    """Between how many replicas an autoscaler may choose."""

    minimum: Annotated[int, Field(ge=0, le=MAX_REPLICAS)]
    maximum: Replicas

    @model_validator(mode="after")
    def _in_order(self) -> Bounds:
        if self.minimum > self.maximum:
            raise ValueError(f"the minimum {self.minimum} is above the maximum {self.maximum}")
        return self

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum}"


class Concurrency(_Frozen):
    """Of a function, how many calls at once: kept for it alone, and kept warm. None: none is set."""

    reserved: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY)] | None = None
    provisioned: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] | None = None

    def __str__(self) -> str:
        said = [
            f"{number} {word}"
            for number, word in ((self.reserved, "reserved"), (self.provisioned, "provisioned"))
            if number is not None
        ]
        return ", ".join(said) or "none reserved"


def _absolute(path: str) -> str:
    if ".." in path.split("/") or "//" in path:
        raise ValueError("a path is written as it is, without .. and //")
    return path


LogPath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./@%+=:,-]{1,1000}$", max_length=1001), AfterValidator(_absolute)]


class LogFile(_Frozen):
    """One file. ``uid`` is that of the file itself (device and inode), so that one of the same name is another."""

    path: LogPath
    uid: Uid
    size_bytes: Annotated[int, Field(ge=0)]
    instance: str = ""
    """The replica in whose file system it lies; empty on this machine."""


def _each_once(instances: tuple[InstanceRef, ...]) -> tuple[InstanceRef, ...]:
    if len({instance.uid for instance in instances}) < len(instances):
        raise ValueError("the same replica is named twice")
    return instances


def _each_file_once(files: tuple[LogFile, ...]) -> tuple[LogFile, ...]:
    if len({(file.instance, file.path) for file in files}) < len(files):
        raise ValueError("the same file is named twice")
    return files


class RestartAction(_Frozen):
    """Restart these replicas, each once: the first alone and watched, the others in batches."""

    kind: Literal["restart"] = "restart"
    instances: Annotated[
        tuple[InstanceRef, ...],
        Field(min_length=1, max_length=MAX_RESTARTS, strict=False),
        AfterValidator(_each_once),
    ]


class RolloutRestartAction(_Frozen):
    """Replace every replica, at the platform's own pace and by its own rules of how many may be away."""

    kind: Literal["rollout_restart"] = "rollout_restart"
    cancellable: bool = False
    """Whether the platform can stop it half-way and go back."""


class CancelRolloutAction(_Frozen):
    """Stop what ``RolloutRestartAction`` began, and go back as far as the platform can."""

    kind: Literal["cancel_rollout"] = "cancel_rollout"


class ScaleAction(_Frozen):
    """Set the number of replicas: absolute, so that doing it twice is doing it once."""

    kind: Literal["scale"] = "scale"
    from_replicas: Replicas
    to_replicas: Replicas


class BoundsAction(_Frozen):
    """Set between how many replicas the autoscaler chooses, where one rules over the number."""

    kind: Literal["bounds"] = "bounds"
    from_bounds: Bounds
    to_bounds: Bounds


class ConcurrencyAction(_Frozen):
    """Set how many calls of a function may run at once."""

    kind: Literal["concurrency"] = "concurrency"
    from_concurrency: Concurrency
    to_concurrency: Concurrency


class RollBackAction(_Frozen):
    """Run a revision that ran before: a rollout's number, a function's version, a slot, a sync of before."""

    kind: Literal["roll_back"] = "roll_back"
    from_revision: RevisionName
    to_revision: RevisionName


class RevertAction(_Frozen):
    """Take back one commit with a commit of its own; ``reapply`` takes that one back in turn."""

    kind: Literal["revert"] = "revert"
    commit: Commit
    title: Annotated[str, Field(max_length=200)] = ""
    reapply: bool = False


class SyncAction(_Frozen):
    """Bring what runs to what a repository says at one revision."""

    kind: Literal["sync"] = "sync"
    from_revision: RevisionName
    to_revision: RevisionName


class RenewAction(_Frozen):
    """Get a new certificate in place of the one that ends at ``not_after``."""

    kind: Literal["renew"] = "renew"
    not_after: Annotated[AwareDatetime, Field(strict=False)]
    keeps_previous: bool = False
    """Whether the one of before is kept and can be put back."""


class TruncateAction(_Frozen):
    """Empty these log files; what they held is kept beside, compressed."""

    kind: Literal["truncate"] = "truncate"
    files: Annotated[
        tuple[LogFile, ...], Field(min_length=1, max_length=MAX_FILES, strict=False), AfterValidator(_each_file_once)
    ]


class CordonAction(_Frozen):
    """Let nothing new be placed on a node, or let it again."""

    kind: Literal["cordon"] = "cordon"
    cordoned: bool


class ManualAction(_Frozen):
    """Nothing that an executor here can do; a person runs the command."""

    kind: Literal["manual"] = "manual"
    command: Annotated[str, Field(min_length=1, max_length=1000)]
    why_manual: Annotated[str, Field(min_length=1, max_length=MAX_WHY)]


TargetAction = (
    RestartAction
    | RolloutRestartAction
    | CancelRolloutAction
    | ScaleAction
    | BoundsAction
    | ConcurrencyAction
    | RollBackAction
    | RevertAction
    | SyncAction
    | RenewAction
    | TruncateAction
    | CordonAction
)
"""What an executor can do to a target."""

Action = Annotated[TargetAction | ManualAction, Field(discriminator="kind")]

ActionKind = Literal[
    "restart",
    "rollout_restart",
    "cancel_rollout",
    "scale",
    "bounds",
    "concurrency",
    "roll_back",
    "revert",
    "sync",
    "renew",
    "truncate",
    "cordon",
]


class RestartInstance(_Frozen):
    """Physical operation: replace this very replica; refused by the target when its uid is gone."""

    op: Literal["restart_instance"] = "restart_instance"
    instance: InstanceRef


class RolloutRestart(_Frozen):
    """Physical operation: replace every replica; marked with the execution, so that twice is once."""

    op: Literal["rollout_restart"] = "rollout_restart"


class CancelRollout(_Frozen):
    """Physical operation: stop the replacing that is under way."""

    op: Literal["cancel_rollout"] = "cancel_rollout"


class ScaleTo(_Frozen):
    """Physical operation: want this many replicas."""

    op: Literal["scale_to"] = "scale_to"
    replicas: Replicas


class SetBounds(_Frozen):
    """Physical operation: let the autoscaler choose between these."""

    op: Literal["set_bounds"] = "set_bounds"
    bounds: Bounds


class SetConcurrency(_Frozen):
    """Physical operation: want exactly this; None takes a setting away."""

    op: Literal["set_concurrency"] = "set_concurrency"
    concurrency: Concurrency


class RollBackTo(_Frozen):
    """Physical operation: run this revision."""

    op: Literal["roll_back_to"] = "roll_back_to"
    revision: RevisionName


class RevertCommit(_Frozen):
    """Physical operation: a commit that takes ``commit`` back, or, with ``reapply``, one that takes that back."""

    op: Literal["revert_commit"] = "revert_commit"
    commit: Commit
    reapply: bool = False


class SyncTo(_Frozen):
    """Physical operation: sync to this revision of the repository."""

    op: Literal["sync_to"] = "sync_to"
    revision: RevisionName


class RenewCertificate(_Frozen):
    """Physical operation: have a new certificate issued; the old one stays until the new one is there."""

    op: Literal["renew_certificate"] = "renew_certificate"


class TruncateLog(_Frozen):
    """Physical operation: keep a compressed copy of this very file, then empty it; its inode stays."""

    op: Literal["truncate_log"] = "truncate_log"
    file: LogFile


class SetCordon(_Frozen):
    """Physical operation: mark a node as unschedulable or not."""

    op: Literal["set_cordon"] = "set_cordon"
    cordoned: bool


Operation = Annotated[
    RestartInstance
    | RolloutRestart
    | CancelRollout
    | ScaleTo
    | SetBounds
    | SetConcurrency
    | RollBackTo
    | RevertCommit
    | SyncTo
    | RenewCertificate
    | TruncateLog
    | SetCordon,
    Field(discriminator="op"),
]


def operations(action: Action) -> tuple[Operation, ...]:
    """The physical steps of an action, in order; none for a manual one."""
    match action:
        case RestartAction():
            return tuple(RestartInstance(instance=instance) for instance in action.instances)
        case RolloutRestartAction():
            return (RolloutRestart(),)
        case CancelRolloutAction():
            return (CancelRollout(),)
        case ScaleAction():
            return (ScaleTo(replicas=action.to_replicas),)
        case BoundsAction():
            return (SetBounds(bounds=action.to_bounds),)
        case ConcurrencyAction():
            return (SetConcurrency(concurrency=action.to_concurrency),)
        case RollBackAction():
            return (RollBackTo(revision=action.to_revision),)
        case RevertAction():
            return (RevertCommit(commit=action.commit, reapply=action.reapply),)
        case SyncAction():
            return (SyncTo(revision=action.to_revision),)
        case RenewAction():
            return (RenewCertificate(),)
        case TruncateAction():
            return tuple(TruncateLog(file=file) for file in action.files)
        case CordonAction():
            return (SetCordon(cordoned=action.cordoned),)
        case ManualAction():
            return ()
        case _:
            assert_never(action)


def touches_replicas(action: TargetAction) -> bool:
    """Whether replicas may go away or come because of it, so that there have to be some to begin with."""
    match action:
        case RestartAction() | RolloutRestartAction() | CancelRolloutAction() | ScaleAction() | BoundsAction():
            return True
        case ConcurrencyAction() | RollBackAction() | RevertAction() | SyncAction():
            return False
        case RenewAction() | TruncateAction() | CordonAction():
            return False
        case _:
            assert_never(action)


def is_reversible(action: Action) -> bool:
    """Whether a second action can put back what stood before (a restarted process cannot be un-restarted)."""
    match action:
        case (
            ScaleAction()
            | BoundsAction()
            | ConcurrencyAction()
            | RollBackAction()
            | RevertAction()
            | SyncAction()
            | CordonAction()
        ):
            return True
        case RolloutRestartAction():
            return action.cancellable
        case RenewAction():
            return action.keeps_previous
        case RestartAction() | CancelRolloutAction() | TruncateAction() | ManualAction():
            return False
        case _:
            assert_never(action)
