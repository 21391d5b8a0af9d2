"""Actions and operations in words, for cards, the thread and the trail."""

from __future__ import annotations

from typing import assert_never

from pipeline.domain.action import (
    Action,
    BoundsAction,
    CancelRollout,
    CancelRolloutAction,
    ConcurrencyAction,
    CordonAction,
    LogFile,
    ManualAction,
    Operation,
    RenewAction,
    RenewCertificate,
    RestartAction,
    RestartInstance,
    RevertAction,
    RevertCommit,
    RollBackAction,
    RollBackTo,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
    SetBounds,
    SetConcurrency,
    SetCordon,
    SyncAction,
    SyncTo,
    TruncateAction,
    TruncateLog,
)
from pipeline.domain.changes import SHORT_REVISION


def describe_action(action: Action) -> str:
    """``Restart checkout-1, checkout-2, one replica first`` or ``Scale from 2 to 4 replicas``."""
    match action:
        case RestartAction():
            names = ", ".join(instance.name for instance in action.instances)
            return f"Restart {names}" + (", one replica first" if len(action.instances) > 1 else "")
        case RolloutRestartAction():
            return "Rolling restart of every replica"
        case CancelRolloutAction():
            return "Stop the rolling restart and go back"
        case ScaleAction():
            return f"Scale from {action.from_replicas} to {action.to_replicas} replicas"
        case BoundsAction():
            return f"Let the autoscaler choose {action.to_bounds} replicas instead of {action.from_bounds}"
        case ConcurrencyAction():
            return f"Set the concurrency from {action.from_concurrency} to {action.to_concurrency}"
        case RollBackAction():
            return f"Roll back from revision {short(action.from_revision)} to {short(action.to_revision)}"
        case RevertAction():
            title = f" “{action.title}”" if action.title else ""
            again = "Put back" if action.reapply else "Revert"
            return f"{again} the commit {short(action.commit)}{title}"
        case SyncAction():
            return f"Sync from {short(action.from_revision)} to {short(action.to_revision)}"
        case RenewAction():
            return f"Renew the certificate that ends {action.not_after:%Y-%m-%d %H:%M} UTC"
        case TruncateAction():
            total = sum(file.size_bytes for file in action.files)
            return f"Truncate {_files(action.files)} ({in_mib(total)}), with a compressed copy"
        case CordonAction():
            return "Let nothing new be placed on this node" if action.cordoned else "Let this node be used again"
        case ManualAction():
            return "By hand"
        case _:
            assert_never(action)


def describe_operation(operation: Operation) -> str:
    """``restart checkout-1`` or ``scale to 4``."""
    match operation:
        case RestartInstance():
            return f"restart {operation.instance.name}"
        case RolloutRestart():
            return "rolling restart"
        case CancelRollout():
            return "stop the rolling restart"
        case ScaleTo():
            return f"scale to {operation.replicas}"
        case SetBounds():
            return f"autoscaler from {operation.bounds}"
        case SetConcurrency():
            return f"concurrency {operation.concurrency}"
        case RollBackTo():
            return f"roll back to {short(operation.revision)}"
        case RevertCommit():
            return f"{'put back' if operation.reapply else 'revert'} {short(operation.commit)}"
        case SyncTo():
            return f"sync to {short(operation.revision)}"
        case RenewCertificate():
            return "renew the certificate"
        case TruncateLog():
            return f"truncate {_files((operation.file,))}"
        case SetCordon():
            return "cordon" if operation.cordoned else "uncordon"
        case _:
            assert_never(operation)


def change_in_words(action: Action) -> str:
    """What stood before and what shall stand: ``2 → 4 replicas``; empty where that is not a pair of values."""
    match action:
        case ScaleAction():
            return f"{action.from_replicas} → {action.to_replicas} replicas"
        case BoundsAction():
            return f"autoscaler {action.from_bounds} → {action.to_bounds}"
        case ConcurrencyAction():
            return f"concurrency {action.from_concurrency} → {action.to_concurrency}"
        case RollBackAction():
            return f"revision {short(action.from_revision)} → {short(action.to_revision)}"
        case SyncAction():
            return f"synced {short(action.from_revision)} → {short(action.to_revision)}"
        case CordonAction():
            return "schedulable → cordoned" if action.cordoned else "cordoned → schedulable"
        case RevertAction():
            return f"{short(action.commit)} {'reverted → back' if action.reapply else '→ reverted'}"
        case (
            RestartAction()
            | RolloutRestartAction()
            | CancelRolloutAction()
            | RenewAction()
            | TruncateAction()
            | ManualAction()
        ):
            return ""
        case _:
            assert_never(action)


def short(revision: str) -> str:
    """Enough of a hash to name it; other names are whole."""
    hexadecimal = len(revision) >= 40 and all(one in "0123456789abcdef" for one in revision)
    return revision[:SHORT_REVISION] if hexadecimal else revision


def in_mib(size_bytes: int) -> str:
    """``61.9 MiB``."""
    return f"{size_bytes / 1_048_576:.1f} MiB"


def _files(files: tuple[LogFile, ...]) -> str:
    shown = ", ".join(f"{file.instance}:{file.path}" if file.instance else file.path for file in files[:3])
    return shown + (f" and {len(files) - 3} more" if len(files) > 3 else "")
