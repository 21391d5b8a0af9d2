"""What a commit of ours says of itself, so that it is found again by nothing but the branch. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.errors import PermanentError
from pipeline.domain.execution import Intent

_MAX_TITLE = 200
_REVERTS = re.compile(r"^This reverts commit ([0-9a-f]{40}(?:[0-9a-f]{24})?)\.$", re.MULTILINE)
_EXECUTION, _STEP, _FENCE = "Sre-Bot-Execution", "Sre-Bot-Step", "Sre-Bot-Fence"


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """One commit of a branch."""

    sha: str
    parents: tuple[str, ...]
    at: datetime
    message: str

    @property
    def title(self) -> str:
        return self.message.strip().partition("\n")[0][:_MAX_TITLE]


def revert_message(reverted: LoggedCommit, *, reapply: bool, intent: Intent | None) -> str:
    """As ``git revert`` writes it, with the execution as trailers; without an intent, with what stands in its place."""
    verb = "Reapply" if reapply else "Revert"
    title = reverted.title.removeprefix('Revert "').removesuffix('"') if reapply else reverted.title
    who = (intent.execution_id, intent.step, intent.fence) if intent else ("<execution>", "<step>", "<fence>")
    trailers = "\n".join(f"{key}: {value}" for key, value in zip((_EXECUTION, _STEP, _FENCE), who, strict=True))
    return f'{verb} "{title}"\n\nThis reverts commit {reverted.sha}.\n\n{trailers}\n'


def bears(message: str, intent: Intent) -> bool:
    """Whether it was written by this step of this execution."""
    return _trailer(message, _EXECUTION) == str(intent.execution_id) and _trailer(message, _STEP) == str(intent.step)


def our_revert(commits: Sequence[LoggedCommit], sha: str) -> LoggedCommit | None:
    """The newest commit of ours that takes ``sha`` back; ``commits`` are newest first."""
    return next((one for one in commits if _reverted(one.message) == sha), None)


def stands(commits: Sequence[LoggedCommit], sha: str, *, reapply: bool) -> bool:
    """Whether ``sha`` is taken back by us, or with ``reapply``: whether that was taken back in turn."""
    revert = our_revert(commits, sha)
    if revert is None:
        return False
    return (our_revert(commits, revert.sha) is not None) is reapply


def revertible(commit: LoggedCommit) -> None:
    """Raises PermanentError when there is no single commit before it to go back to."""
    if not commit.parents:
        raise PermanentError(f"{commit.sha} is the first commit: there is nothing before it to go back to")
    if len(commit.parents) > 1:
        raise PermanentError(
            f"{commit.sha} is a merge, and which of its sides to keep is for a person to say (git revert -m)"
        )


def _reverted(message: str) -> str:
    if not _trailer(message, _EXECUTION):
        return ""
    found = _REVERTS.search(message)
    return found.group(1) if found else ""


def _trailer(message: str, key: str) -> str:
    found = re.search(rf"^{key}: ([0-9]+)\s*$", message, re.MULTILINE)
    return found.group(1) if found else ""
