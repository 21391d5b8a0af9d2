"""Taking a change back file by file, by nothing but the names of what is in the trees. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.domain.errors import PermanentError

_MAX_NAMED = 5


class Entry(NamedTuple):
    """A file of a tree: ``mode`` and ``kind`` in git's words, ``sha`` of its content."""

    mode: str
    kind: str
    sha: str


Tree = Mapping[str, Entry]
"""By path, without the folders."""


def taken_back(before: Tree, after: Tree, head: Tree) -> dict[str, Entry | None]:
    """What makes of ``head`` one without the change from ``before`` to ``after``; None deletes a file.

    Files are taken whole: one that was changed again since conflicts, even where its lines would not. Raises
    PermanentError then, and when nothing is left to take back.
    """
    touched = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    left = [path for path in touched if head.get(path) != before.get(path)]
    if not left:
        raise PermanentError("nothing of the commit is left to take back: it has been reverted already")
    conflicts = [path for path in left if head.get(path) != after.get(path)]
    change = {path: before.get(path) for path in left}
    conflicts += _in_the_way(change, head)
    if conflicts:
        named = ", ".join(conflicts[:_MAX_NAMED]) + (" and others" if len(conflicts) > _MAX_NAMED else "")
        raise PermanentError(f"it conflicts: changed again since are {named}; a person has to revert it")
    return change


def _in_the_way(change: Mapping[str, Entry | None], head: Tree) -> list[str]:
    """Files that cannot come back because a folder has their name by now, or a file that of their folder."""
    stay = {path for path in head if path not in change}
    folders = {str(parent) for path in stay for parent in PurePosixPath(path).parents}
    back = [path for path, entry in change.items() if entry is not None]
    return [path for path in back if path in folders or stay & {str(one) for one in PurePosixPath(path).parents}]
