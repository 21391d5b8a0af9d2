"""From an alert's name to its own runbook: an exact look-up, whatever the case and the separators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from knowledge_base.lexical import spaced
from knowledge_base.stored import StoredDocument

LONGEST_NAME_WORDS = 8
"""Words of running text that are tried together as a name: ``kube pod crash looping``."""
LEAST_WORDS = 3
"""Words of a name that is found anywhere in a text; shorter ones name products (CoreDNS) and everyday things too."""
HEAD_WORDS = 3
"""First words of a text, among which a shorter name counts if it is written as one: ``[FIRING:1] TargetDown …``."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_.\-][A-Za-z0-9]+)*")
_HUMP = re.compile(r"[a-z0-9][A-Z]|[A-Z]{2}[a-z]")
_WORD = re.compile(r"[A-Za-z0-9]+")


class AlertIndex:
    """Names of alerts to documents: what a document says it is for, its title and its file's name where they are names.

    The order is that of authority: a file or title called like the alert, then the alerts that a document lists.
    """

    def __init__(self, documents: Sequence[StoredDocument]) -> None:
        self._own: dict[str, list[int]] = {}
        self._listed: dict[str, list[int]] = {}
        for document in documents:
            stem = PurePosixPath(document.path).stem
            for name in dict.fromkeys(_key(name) for name in (stem, document.title) if _is_name(name)):
                self._own.setdefault(name, []).append(document.id)
            for name in dict.fromkeys(_key(alert) for alert in document.alerts):
                self._listed.setdefault(name, []).append(document.id)
        names = (
            name
            for document in documents
            for name in (PurePosixPath(document.path).stem, document.title, *document.alerts)
        )
        self._long = frozenset(_key(name) for name in names if _length(name) >= LEAST_WORDS)

    def documents(self, alerts: Sequence[str], text: str) -> tuple[int, ...]:
        """Ids of the documents for these alerts, and for those that ``text`` names; empty when there are none.

        ``alerts`` may name anything a document is called. In ``text`` what is written as one name counts, and words
        that together spell a long one.
        """
        found: dict[int, None] = {}
        for name in map(_key, alerts):
            found |= dict.fromkeys(self._documents(name))
        for name in self._mentioned(text):
            found |= dict.fromkeys(self._documents(name))
        return tuple(found)

    def _documents(self, name: str) -> Sequence[int]:
        return self._own.get(name) or self._listed.get(name) or ()

    def _mentioned(self, text: str) -> list[str]:
        written = _IDENTIFIER.findall(text)
        names = [
            _key(word)
            for place, word in enumerate(written)
            if _is_name(word) and (place < HEAD_WORDS or _length(word) >= LEAST_WORDS)
        ]
        words = [word.lower() for word in _WORD.findall(text)]
        for start in range(len(words)):
            joined = ""
            for word in words[start : start + LONGEST_NAME_WORDS]:
                joined += word
                if joined in self._long:
                    names.append(joined)
        return [name for name in dict.fromkeys(names) if name in self._own or name in self._listed]


def _key(name: str) -> str:
    return "".join(_WORD.findall(name)).lower()


def _is_name(text: str) -> bool:
    """``KubePodNotReady``, ``kube_pod_not_ready``, ``kube-pod-not-ready``: one word made of several."""
    return _IDENTIFIER.fullmatch(text) is not None and (_HUMP.search(text) is not None or len(_WORD.findall(text)) > 1)


def _length(name: str) -> int:
    return len(_WORD.findall(spaced(name)))
