"""Bytes into text that a database, a prompt and a terminal can take. Pure."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from pipeline.domain.errors import PermanentError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, marks that turn or hide text, halves of characters: nobody sees them, some break a database."""
_REAL_CHARSETS = re.compile(r"iso8859|cp\d|koi8|mac|gb|big5|shift_jis|euc_|iso2022|latin|tis|hz")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_MAX_STRANGE = 0.05
"""Share of control and replacement characters from which bytes are no text."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and what had to be guessed about it; ``note`` is empty when nothing was."""

    text: str
    note: str = ""


def cleaned(text: str) -> str:
    """``text`` with plain line ends and without characters that nobody sees."""
    return _UNSEEN.sub("", _LINE_ENDS.sub("\n", text))


def decode(content: bytes, declared: str = "") -> Decoded:
    """Text of ``content``: its byte order mark decides, then UTF-8, then the ``declared`` charset, then a guess.

    The guess is UTF-8 with a few broken bytes, or Windows-1252, whichever leaves more letters whole. Raises
    PermanentError for what is no text.
    """
    for mark, charset in _BOMS:
        if content.startswith(mark):
            return _checked(content.decode(charset, "replace"), "")
    if b"\0" in content:
        raise PermanentError("not a text file")
    charset = _known(declared)
    try:
        return _checked(content.decode(), "")
    except UnicodeDecodeError:
        if charset not in ("", "utf-8", "ascii"):
            return _checked(content.decode(charset, "replace"), f"not UTF-8, read as the {charset} it says it is")
    mended = content.decode(errors="replace")
    broken = mended.count("\ufffd")
    if sum(1 for letter in mended if letter > "\x7f") - broken > broken:
        return _checked(mended, f"{broken} broken characters, the rest is UTF-8")
    return _checked(content.decode("cp1252", "replace"), "not UTF-8, read as Windows-1252")


def _known(charset: str) -> str:
    """The codec's own name; empty for what is none that a document is written in."""
    try:
        name = codecs.lookup(charset.strip().strip("'\"")).name
    except (LookupError, ValueError):
        return ""
    return name if name in ("utf-8", "ascii") or _REAL_CHARSETS.match(name) else ""


def _checked(text: str, note: str) -> Decoded:
    strange = len(re.findall("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]", text))
    if strange > max(2, len(text) * _MAX_STRANGE):
        raise PermanentError("not a text file")
    return Decoded(cleaned(text), note)
