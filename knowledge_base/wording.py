"""What may not be lost when words are dropped from a text: identifiers, numbers with their units, negations. Pure."""

from __future__ import annotations

import re
from collections import Counter

_TOKEN = re.compile(r"\w(?:[\w.\-/:@+=~'’]*\w)?|%")
_UNITS = frozenset(
    re.findall(
        r"\S+",
        "% ms s us ns min minute minutes h hour hours second seconds day days week weeks kb mb gb tb kib mib gib tib b "
        "byte bytes rps qps m mi gi ki cores replicas pods times percent",
    )
)
_NEGATIONS = frozenset(
    re.findall(r"\w+", "not no never without none nor neither cannot nobody nothing nowhere unless except")
)
_INNER = frozenset("._-/:@+=~")


def essentials(text: str) -> list[str]:
    """In order: identifiers, numbers (with the unit that follows), negations (with the word they stand before)."""
    words = [found[0].replace("’", "'") for found in _TOKEN.finditer(text)]
    found = []
    for place, word in enumerate(words):
        following = words[place + 1].lower() if place + 1 < len(words) else ""
        if word.lower() in _NEGATIONS or word.lower().endswith("n't"):
            found.append(f"{word.lower()} {following}".rstrip())
        elif word[0].isdigit() and following in _UNITS:
            found.append(f"{word} {following}")
        elif _names(word) and not (word.lower() in _UNITS and place and words[place - 1][0].isdigit()):
            found.append(word)
    return found


def changed(source: str, shorter: str) -> tuple[str, ...]:
    """The essentials of ``source`` that ``shorter`` does not have in the same number and order; empty when it does."""
    before, after = essentials(source), essentials(shorter)
    if before == after:
        return ()
    differing = (Counter(before) - Counter(after)) + (Counter(after) - Counter(before))
    return tuple(differing) or ("their order",)


def _names(word: str) -> bool:
    """A number, an abbreviation, or what somebody named: ``checkout-api``, ``KubePodOOM``, ``payments/db:5432``."""
    return any(sign.isdigit() or sign in _INNER for sign in word) or any(sign.isupper() for sign in word[1:])
