"""Text from outside, made harmless in form: inside a prompt's fences it is data, in Slack it makes no link. Pure.

A fence is ``<data …>`` … ``</data>``. No ``<`` or ``>`` of outside text gets through, in whatever code point it is
written, so nothing inside can open or close one. A random boundary for each prompt would add nothing to that, and it
would make every prompt different: no prompt cache would ever hit, and no recorded prompt could be compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

ATTRIBUTE_CHARS = 120
MAX_MARKS = 3
"""Combining marks kept on one letter; Vietnamese and Hebrew need two or three, towers of them only hide text."""

# Seen as nothing, and not in a category that goes anyway: fillers, variation selectors, the grapheme joiner, blanks.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
# What is none of the usual: a look at each character is slow.
_ODD = re.compile(
    "[^\n\x20-\x7e\xa1-\xac\xae-\u02ff\u0400-\u0481\u048a-\u052f\u2010-\u2027\u2030-\u205e\u2190-\u21ff\u2200-\u22ff]"
)
_BRACKETS = str.maketrans({"<": "‹", ">": "›"})
_LINE_ENDS = frozenset("\n\t\r\v\f\x1c\x1d\x1e\x85")

_MAY_LINK = re.compile(r"(?i)[a-z]:\S|:[/\\]{2}|\.[^\W\d]|www\.|[<@]|\]\(")
_ADDRESS = re.compile(r"(?i)(?:[a-z][a-z0-9+.-]{1,20}:[/\\]{2}|[a-z0-9]://)([^\s<>|\"'`)\]}‹›]*)")
_OTHER_SCHEMES = re.compile(
    r"(?i)(?<![a-z])(?:mailto|tel|sms|callto|facetime|javascript|vbscript|data|slack|skype|vscode|intent"
    r"|ms-[a-z]{2,20}):(?=\S)[^\s<>|\"'`)\]}‹›]+"
)
_CONSTRUCT = re.compile(r"<([!@#]?[^<>\n]{1,300})>")
_MARKDOWN = re.compile(r"\[([^\[\]\n]{0,200})\]\(([^()\s]{0,500}[.:/][^()\s]{0,500})\)")
_HOST = re.compile(
    r"(?i)(?<![\w-])((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8})([^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w-]|\.\w)(?=(?::\d+)?(/)?)"
)
_QUERY = re.compile(r"(\[\.\][^\W\d_]{2,24}(?::\d{1,5})?/[^\s?]{0,500})\?\S*")
_WWW = re.compile(r"(?i)(?<!\w)www\.(?=\w)")
_LOUD = re.compile(r"(?i)@(channel|here|everyone)\b")
_TOP_LEVEL = frozenset(
    re.findall(
        r"\w+",
        """
        com net org io dev app co ai info biz xyz top online site shop store link click live me us uk de fr nl eu ru
        cn jp br au ca ch se pl es cc tv ly gg gl im ws page cloud tech pro club vip icu buzz fun space website work
        win bid loan life world zone run host press today agency digital email group systems network team support
        example test
        """,
    )
)
_FILES = frozenset(
    re.findall(
        r"\w+",
        "conf cfg ini env yaml yml json toml xml txt log csv md py js ts go rs rb java c h sh sql html css tar gz zip"
        " jar svc local internal cluster service",
    )
)
"""Last parts of names of files and of hosts inside a cluster, which Slack makes no links of."""


def neutralise(text: str, limit: int, *, lines: bool = False) -> str:
    """Outside text made safe to stand inside a fence, at most ``limit`` characters.

    Control, formatting (bidirectional, zero-width, tags), private and unassigned characters go, and those that are not
    seen; compatibility forms become plain ones; ``<`` and ``>`` become ‹ and ›; white space becomes single blanks, with
    ``lines`` line ends stay. Neutralising twice changes nothing.
    """
    # Before and after: what stands between two characters hides what they make together, full-width ＜ makes a <.
    shown = unicodedata.normalize("NFKC", _visible(text[: 4 * limit + 4]))
    kept = _visible(shown).translate(_BRACKETS)
    rows = (re.sub(r"\s+", " ", row).strip() for row in kept.splitlines())
    clean = ("\n" if lines else " ").join(row for row in rows if row)
    return clean if len(clean) <= limit else clean[: max(limit - 1, 0)] + "…"[:limit]


def attribute(text: str) -> str:
    """Outside text as a value between the double quotes of a fence's attribute."""
    return neutralise(text, ATTRIBUTE_CHARS).replace('"', "'")


def fence(name: str, body: str, attributes: Mapping[str, str] | None = None) -> str:
    """``body``, neutralised before, between ``<name …>`` and ``</name>``; values of ``attributes`` are from outside."""
    told = "".join(f' {key}="{attribute(value)}"' for key, value in (attributes or {}).items())
    return f"<{name}{told}>\n{body}\n</{name}>"


def _visible(text: str) -> str:
    if _ODD.search(text) is None:
        return text
    shown = []
    marks = 0
    for char in _UNSEEN.sub("", text):
        category = unicodedata.category(char)
        if category[0] == "C" and char not in _LINE_ENDS:
            continue
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= MAX_MARKS:
            shown.append(char)
    return "".join(shown)


_WWW = re.compile(r"\bwww\.(?=\w)", re.I)
"""Whatever stands before and after it: Slack links it."""


def without_links(text: str) -> str:
    """Text that a model wrote or that came from outside, without anything that Slack would make a link or a call of.

    An address becomes its host, with ``[.]`` for the dots: Slack links bare hosts too. Its path and query go: they may
    carry what somebody wants told. A bare host keeps its path, which may be an image's or a label's name. Mentions and
    Markdown links become plain words. Escaping is still the renderer's. Doing it twice changes nothing.
    """
    shown = _visible(text)
    if _MAY_LINK.search(shown) is None:
        return shown
    for _ in range(3):
        before = shown
        shown = _CONSTRUCT.sub(_opened, _MARKDOWN.sub(r"\1 \2", shown))
        shown = _OTHER_SCHEMES.sub("(link left out)", _ADDRESS.sub(_host_of, shown))
        shown = _LOUD.sub(r"\1", _WWW.sub("www[.]", _QUERY.sub(r"\1", _HOST.sub(_defanged, shown))))
        shown = _WWW.sub("www[.]", shown)
        if shown == before:
            return shown
    return shown.replace("://", ": / /").replace("<", "‹").replace(">", "›")


def _opened(match: re.Match[str]) -> str:
    inside = match[1]
    link, bar, label = inside.partition("|")
    if inside[0] in "!@#":
        return f"‹{label or inside[1:]}›"
    if ":" in link:
        return f"{label} {link}".strip() if bar else link
    return match[0]


def _host_of(match: re.Match[str]) -> str:
    authority = re.split(r"[/?#\\]", match[1], maxsplit=1)[0].rpartition("@")[2]
    return authority.replace(".", "[.]") if any(map(str.isalpha, authority)) else authority or "(link left out)"


def _defanged(match: re.Match[str]) -> str:
    names, last, path = match[1], match[2].lower(), match[3]
    known = last in _TOP_LEVEL or last.startswith("xn--") or names.lower().startswith("www.")
    if not known and (path is None or last in _FILES):
        return match[0]
    return match[0].replace(".", "[.]")
