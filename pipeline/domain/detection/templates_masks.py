"""Masking: what varies in a log line becomes ``<*>``, one token at a time and then over several tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from pipeline.domain.redaction_values import PLACEHOLDER

MASK = "<*>"
READ_CHARS = 2400
"""Of a line, looked through for secrets; what is shown of it is far shorter."""

_CHUNK = re.compile(r"[\w.+\-~%$]*\d[\w.+\-~%$]*")
_NAMED_UNIT = re.compile(r"[A-Za-z]{2,}\d")
_JOINED = re.compile(r"<\*>(?:[^\w\s<>\[\](){}=\"']*<\*>)+")
_HOST_PORT = re.compile(r"(?:[\w-]+\.)+[\w-]+:(?=<\*>)")
_HEX_GROUPS = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}::?){2,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_HOST_IN_BRACKETS = re.compile(r"\((?:(?:[\w-]+\.)+[A-Za-z]{2,})?\)")
_BRACED = re.compile(r"\{[^{}\s]*[\d./@][^{}\s]*\}")
_PATH = re.compile(r"(?:\b[a-z][a-z0-9+]*:/)?(?:/[^\s/,;:()\[\]{}\"'=|]+){2,}/?|(?<![\w/>.])/[^\s/,;:()\[\]{}\"'=|]+/?")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\[^\s\"',;]+|\\[\w.$ -]+\\[^\s\"',;]*")
_VALUE = re.compile(
    r"([\w.$-]+=)(?:[^\s=,;(){}\[\]\"']*(?:<\*>|[./@])[^\s=,;(){}\[\]\"']*(?:[({\[][^\s=,;]*[)}\]])?|null|None|nil)"
)
_SECRET_KEY = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|pwd|secret|token|api[-_]?key|access[-_]?key|authorization|credentials?|cookie)"
    r"\w*[\"']?\s*[=:]\s*)((?:Bearer|Basic)\s+)?(\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)"
)
_SCHEME_SECRET = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")
_URL_SECRET = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+@")
_LONG = re.compile(r"[A-Za-z0-9_+/=-]{20,}")

_QUOTED = re.compile(r"\"(?!(?:GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS)\b)[^\"]*\"")
_OBJECT = re.compile(r"=\w+\{<\*>[^{}]*\}")
_DATE = re.compile(
    r"(?:\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"
    r"(?:<\*> )?\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*,? <\*>(?: (?:[A-Z]{3,4} )?<\*>)*"
)
_SIZE = re.compile(r"<\*> ?(?:bytes?|[KMGTP]i?B|[kKMGT]?B)\b(?: \(<\*> ?[KMGTP]?i?B\))?")
_SPAN = re.compile(r"<?<\*> ?(?:[munµ]?s|m?secs?|(?:milli|micro|nano)?seconds?|mins?|minutes?|hours?|hrs?|days?)\b")
_RUN = re.compile(r"<\*>(?:[, ]+<\*>)+")


def mask_token(token: str) -> str:
    """The token with numbers, addresses, ids, paths and values of keys as ``<*>``; words stay."""
    text = token
    if "=" in text or ":" in text:
        text = _SECRET_KEY.sub(rf"\1{MASK}", text)
    if ".." in text:
        head, dots, tail = text.rpartition("..")
        return f"{head}{dots}{mask_token(tail)}" if tail else text
    if "{" in text:
        text = _BRACED.sub(f"{{{MASK}}}", text)
    if "/" in text:
        text = _PATH.sub(MASK, _URL_SECRET.sub("", text))
    if "\\" in text:
        text = _WINDOWS_PATH.sub(MASK, text)
    if text.count(":") > 1:
        text = _HEX_GROUPS.sub(MASK, text)
    if text.startswith("(") and text.endswith(")"):
        text = _HOST_IN_BRACKETS.sub(f"({MASK})", text)
    if any(map(str.isdigit, text)):
        text = _CHUNK.sub(_masked_chunk, text)
    if len(text) >= 20:
        text = _LONG.sub(_masked_if_random, text)
    if MASK in text:
        text = _JOINED.sub(MASK, _HOST_PORT.sub("", text))
    if "=" in text:
        text = _VALUE.sub(rf"\1{MASK}", text)
    return text


def mask_phrases(text: str) -> str:
    """What spans several tokens of a masked line: quoted strings, dates, sizes, durations, lists, credentials."""
    text = _SCHEME_SECRET.sub(rf"\1 {MASK}", _SECRET_KEY.sub(rf"\1{MASK}", text))
    if '"' in text:
        text = _QUOTED.sub(MASK, text)
    if MASK in text:
        text = _OBJECT.sub(f"={MASK}", text)
        text = _RUN.sub(MASK, _SPAN.sub(MASK, _SIZE.sub(MASK, _DATE.sub(MASK, text))))
    return text


def redacted(line: str, limit: int, redact: Callable[[str], str] = str) -> str:
    """The line, cut at ``limit`` characters, without what ``redact`` takes out and what else looks like a credential.

    In this order: half a secret is not known for one, and a masked value tells no two secrets apart.
    """
    text = _SECRET_KEY.sub(_value_masked, redact(line[:READ_CHARS]))
    text = _URL_SECRET.sub(_login_masked, _SCHEME_SECRET.sub(rf"\1 {MASK}", text))
    return _LONG.sub(_masked_if_random, text)[:limit]


def _value_masked(match: re.Match[str]) -> str:
    key, _, value = match.groups()
    return match.group() if PLACEHOLDER.fullmatch(value.strip("\"'")) else f"{key}{MASK}"


def _login_masked(match: re.Match[str]) -> str:
    _, _, secret = match.group().removesuffix("@").partition(":")
    return match.group() if PLACEHOLDER.fullmatch(secret) else f"{MASK}@"


def _masked_chunk(match: re.Match[str]) -> str:
    chunk = match.group()
    if _NAMED_UNIT.fullmatch(chunk):
        return chunk
    return f"{MASK}{chunk[len(chunk.rstrip('.')) :]}" if chunk.endswith(".") else MASK


def _masked_if_random(match: re.Match[str]) -> str:
    """A long run of characters is no word when its case or its digits jump about, or when it has hardly a vowel."""
    text = match.group()
    if len(set(text)) < 10:
        return text
    kinds = ["0" if char.isdigit() else "A" if char.isupper() else "a" if char.islower() else "-" for char in text]
    jumps = sum(left != right for left, right in pairwise(kinds))
    letters = [char for char in text.lower() if char.isalpha()]
    vowels = sum(char in "aeiouy" for char in letters)
    mixed = "0" in kinds and len(set(kinds) - {"-"}) > 1 and jumps * 5 > len(text)
    return MASK if mixed or jumps * 5 > 2 * len(text) or vowels * 6 < len(letters) else text
