"""When a place in a log template has shown enough different words to be a variable."""

from __future__ import annotations

import re
from collections.abc import Collection

from pipeline.domain.detection.templates_masks import MASK

_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off", "up", "down", "ok", "enabled", "disabled", "null"})
_PEOPLE = frozenset({"user", "username", "account", "login", "host", "hostname"})
_PREPOSITIONS = frozenset({"for", "from", "by", "to", "on", "at", "of", "node", "client", "server", "domain", "named"})
_NAME = re.compile(r"[\w-]*\w[.@$/_]\w.*")
_NUMBERED = re.compile(r"[A-Za-z][\w-]*\d[\w-]*")
_STATE = re.compile(r"[A-Z][A-Z_-]+")

_VALUE = re.compile(r"[\w.$-]+=<\*>\W*")
_PUNCTUATION = "[](){}<>,;:.'\""

NEVER = 1 << 30


def enough_words(words: Collection[str], tokens: tuple[str, ...], place: int, *, masked: bool) -> bool:
    """Whether the different ``words`` seen at ``place`` of otherwise equal ``tokens`` show that it varies.

    ``masked``: numbers or addresses were seen there too, so that it varies for sure, and names there are values.
    """
    needed = max(_needed(word, tokens, place, masked) for word in words)
    masked_values = {word.partition("=")[0] for word in words if _VALUE.fullmatch(word)}
    if masked_values and all(word.partition("=")[0] in masked_values for word in words):
        needed = min(needed, 2) if needed < NEVER else needed
    return len(words) >= needed


def _needed(word: str, tokens: tuple[str, ...], place: int, masked: bool) -> int:
    bare = word.strip(_PUNCTUATION).lower()
    constants = sum(token != MASK for token in tokens) - 1
    key, equals, value = word.strip(_PUNCTUATION).partition("=")
    if constants < 2 or bare in _SWITCHES or (equals and bare[len(key) + 1 :] in _SWITCHES):
        return NEVER
    before = tokens[place - 1].strip(_PUNCTUATION).lower() if place else ""
    if before in _PEOPLE and word[-1:].isalnum():
        return 1 if masked else 2
    shape = value if equals else key
    if _STATE.fullmatch(shape):
        needed = 8
    elif MASK in word or _NAME.fullmatch(shape):
        needed = 1 if masked else 3
    elif _NUMBERED.fullmatch(shape) or equals or before in _PREPOSITIONS:
        needed = 2 if masked else 4
    else:
        needed = 6 if place else 12
    return needed if constants >= 4 or needed == 1 or MASK in word else 2 * needed
