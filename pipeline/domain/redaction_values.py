"""Values under names that promise a secret: ``password=…``, ``"api_key": "…"``, ``token: …``, ``--secret …``. Pure.

Most of this tells a secret from what only stands at such a place: a reference, a state, a count, prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """``text[start:end]`` is a secret of ``kind``."""

    start: int
    end: int
    kind: str


Rule = Callable[[str, str], Iterator[Span]]
"""Takes a text and the same text in lower case, character for character."""

PLACEHOLDER = re.compile(r"‹secret:[a-z-]{2,20}:[0-9a-f]{6}›")

KEY_CHARS = 64
"""So much of the end of a key is looked at."""
HARMLESS_CHARS = 300
"""What is longer under a secret's key is taken for a secret, whatever it looks like: it is read once only."""

_COLOUR = r"(?:\x1b?\[[\d;]{1,12}m){0,3}"
_COLOUR_END = re.compile(r"\[[\d;]{1,12}m$")
_WORD = (
    r"(?:pass(?:word|wd|phrase|wort|code)?+|pwd|secret|token|credentials?+|otp|cvv|cvc"
    r"|(?:api|app|application|access|account|auth|encryption|integration|license|master|private|secret|service|shared"
    r"|signing|ssh|storage)[_.-]?key|jsessionid|phpsessid|sessionid|connect\.sid|_auth)"
    r"(?:[_-]?(?:hash|digest|value|string|base64|base|data|old|new|plain|confirmation)|[_-]?\d{1,2}){0,2}+"
)
_HINTS = ("pass", "pwd", "secret", "token", "credential", "otp", "cvv", "cvc", "key", "sess", "sid", "_auth")
_ASSIGNED = re.compile(
    rf"({_WORD})(\\{{0,7}}[\"'`])?+{_COLOUR}[ \t]{{0,40}}+(=>|:=|=(?!=)|:(?!:)|%3d){_COLOUR}([ \t]{{0,40}}+)"
)
_FLAG = re.compile(rf"(?<![\w-])--(?:[a-z0-9]{{1,20}}-){{0,4}}{_WORD}[ \t]{{1,4}}+(?![-\s])")
_BARE = re.compile(
    r"(?:[^\s\"'`,;&|)\]}‹›<>\\\x1b]|‹secret:[a-z-]{2,20}:[0-9a-f]{6}›|[‹<](?=[^\s›>]{0,200}[›>])"
    r"|[,;&|](?![\s\"'\\]|[\w.-]{1,60}+[=:]|$)|[)\]}‹›<>](?![\s\"',;)\]}\\]|$)|\\(?![\"'nrt]))++",
    re.MULTILINE,
)
_MORE_WORDS = re.compile(r"(?:[ \t]{1,8}(?!#)[^\s=:,;{}()\[\]\"']++(?![=:]))++(?=[ \t]*$)", re.MULTILINE)
_ANGLED = re.compile(r"[<‹][^\n<>‹›]{0,200}+[>›](?=[\s\"',;)\]}\\]|$)")
_OPENER = re.compile(rf"{_COLOUR}(?:\[[ \t]{{0,8}}+)?(?:[bfru]{{1,2}}(?=[\\\"']))?(\\{{0,7}}[\"'`])", re.IGNORECASE)
_BLOCK = re.compile(r"[|>][+-]?\d?[ \t]*+\n([ \t]++)[^\n]*+(?:\n\1[^\n]*+)*+")
_NAMED_VALUE = re.compile(
    r"\bname\\{0,3}[\"']?[ \t]{0,8}[:=][ \t]{0,8}\\{0,3}[\"']?([\w.-]{1,100})\\{0,3}[\"']?"
    r"[ \t]{0,8},?\s{0,40}\\{0,3}[\"']?value\\{0,3}[\"']?[ \t]{0,8}[:=][ \t]{0,8}"
)
_KEY_END = re.compile(rf"{_WORD}$")

STATES = frozenset(
    re.findall(
        r"\w+",
        """
        true false yes no on off none null nil undefined unset empty set missing required optional invalid valid
        expired expires rejected accepted denied failed failure ok okay error unknown unauthorized unauthenticated
        revoked refreshed rotated malformed mismatch mismatched wrong incorrect absent present provided found not is
        was are has have must should cannot can may will does did the this that an and or for of in from to with by at
        if it its your see ask use using used stored kept read reading when while after before bearer basic digest
        negotiate token password secret key auth authentication authorization header scheme realm file flag option
        argument parameter variable env environment vault manager default defaults enabled disabled redacted hidden
        masked removed filtered changeme string str int integer number bool boolean bytes object array any text type
        char varchar received loaded unable unexpected could would too still already only never reset changed updated
        created deleted ready pending healthy unhealthy timeout exceeded limit quota eof
        """,
    )
)
_PARSER_SAYS = re.compile(r"(?:unexpected|illegal|unknown|expected|next|parse|syntax|csrf|invalid|bad)[ _-]$")
_REFERENCE = re.compile(
    r"\$\{[^}\n]*+\}?|\$\([^)\n]*+\)?|\{\{.*|\$[A-Z_][A-Z0-9_]*|\$\d{1,2}|\?[a-z]*|%s|%\(\w+\)s|@[Pp]assword"
    r"|:(?:password|passwd|secret|token)|\*+|[xX]{3,}|•+|\.{3,}|…|_+|-+|\[[A-Z_ ]+\]"
    r"|/(?:run|var|etc|opt|home|tmp|app|usr|mnt|secrets|vault)(?:/[\w.-]{0,80}){1,12}|(?:~|\.{1,2})/[\w./-]*"
    r"|[A-Za-z]:\\[\w.\\ -]*|(?:vault|file|env|arn|ref\+?\w*|awssm|gcpsm|op):[/\w.#:+-]+"
)
_CODE = re.compile(
    r"(?:os|process|env|self|this|args|var|config|request|settings|local|data|ctx)\.[A-Za-z_.]+[\[(]?.{0,100}"
    r"|[A-Za-z_.]{4,60}\([\w., \"']{0,100}\)?"
)
_STAND_IN = re.compile(
    r"[<‹](?:redacted|hidden|masked|secret|password|token|none|nil|unset|set|empty|unknown|removed|filtered|value|key"
    r"|api[_-]?key|[a-z]+(?:[ _'-]+[a-z._'-]+)+)[>›]?",
    re.IGNORECASE,
)
_FIGURE = re.compile(
    r"\d{1,5}|\d{1,8}(?:\.\d{1,6})?(?:ns|us|µs|ms|s|m|h|d|%|/s|k|[kmg]i?b|b)|v?\d{1,6}(?:\.\d{1,6}){1,3}"
)
WORDY = re.compile(r"[A-Za-z]?[a-z]{1,30}(?:[-'’/.][a-z]{1,30}){0,6}[.!?:]?")
_SECRET_NAME = re.compile(
    r"[a-z0-9][a-z0-9.-]{0,62}/[a-z0-9][a-z0-9.-]{0,252}"
    r"|[a-z0-9][a-z0-9.-]{0,200}-(?:tls|certs?|credentials?|creds|secrets?|token|config|keys?|auth|password)(?:-[a-z0-9]{5})?"
)
_SECRET_NAME_KEYS = frozenset(
    {"secret", "tlssecret", "pullsecret", "imagepullsecret", "certsecret", "certificatesecret"}
)
_NO_SECRET_KEYS = re.compile(
    r"(?:(?:page|next|continu\w*|sync|cursor|max|min|num|per|total|stop|start|end|sep|unk|pad|mask|first|last)[_.-]?token"
    r"|(?:by|com|encom|tres|over|sur|multi|single|low|high|band|proxy|first|second|one|two|fastcgi|uwsgi)[_-]?pass"
    r"|(?:public|primary|foreign|partition|routing|sort|cache)[_.-]?key)$"
)
_BEFORE_NAME = ("/", ":", "=", "‹")
"""A colon after a word that follows one of these ends a name or an address (an image, an ARN), not a key."""


def assignments(text: str, low: str) -> Iterator[Span]:
    """``password=…``, ``"api_key": "…"``, ``token: …``, ``--secret …``, an environment's name and value."""
    if not any(hint in low for hint in _HINTS):
        return
    yield from _each(_ASSIGNED, low, lambda match: _assigned(text, low, match))
    if "--" in low:
        yield from _each(_FLAG, low, lambda match: _flagged(text, match))
    if "value" in low:
        yield from _each(_NAMED_VALUE, low, lambda match: _named(text, match))


def _each(pattern: re.Pattern[str], low: str, read: Callable[[re.Match[str]], Span | None]) -> Iterator[Span]:
    """What ``read`` makes of each match; what stands inside a value that was found is not read again."""
    found_to = 0
    for match in pattern.finditer(low):
        if match.start() >= found_to and (span := read(match)) is not None:
            found_to = span.end
            yield span


def is_secret_key(key: str) -> bool:
    """Whether a key, field or variable holds a secret: ``DB_PASSWORD``, ``x-api-key``, ``accessToken``."""
    low = key[-KEY_CHARS:].lower()
    return bool(_KEY_END.search(low)) and not _NO_SECRET_KEYS.search(low)


def kind_of(key: str) -> str:
    """The kind of secret that stands under a key."""
    low = key.lower()
    for word, kind in (
        ("pass", "password"),
        ("pwd", "password"),
        ("token", "token"),
        ("key", "key"),
        ("sess", "cookie"),
    ):
        if word in low:
            return kind
    return "secret"


def harmless(key: str, value: str) -> bool:
    """Whether the value gives nothing away: a reference, a stand-in, a state, a count, the name of a Secret."""
    low = key[-KEY_CHARS:].lower()
    if len(value) > HARMLESS_CHARS:
        return False
    if not value.strip() or no_secret(value) or value.lower() in STATES:
        return True
    word = kind_of(low)
    if word != "password" or low in ("pass", "passes"):
        figure = _FIGURE.fullmatch(value.lower())
        if figure is not None:
            return True
    if low in ("pwd", "oldpwd") and value[:1] in ("/", "~"):
        return True
    plain = re.sub(r"[_.-]", "", low)
    return plain in _SECRET_NAME_KEYS and _SECRET_NAME.fullmatch(value) is not None


def no_secret(value: str) -> bool:
    """Whether a value stands for another: a reference, a stand-in, a placeholder of ours."""
    return bool(_REFERENCE.fullmatch(value) or _STAND_IN.fullmatch(value) or PLACEHOLDER.fullmatch(value))


def _flagged(text: str, match: re.Match[str]) -> Span | None:
    start, end, quoted = _value(text, match.end())
    value = text[start:end]
    if not quoted and value.lower() in STATES:
        return None
    flag = match[0].strip(" \t-")
    return None if harmless(flag, value) else Span(start, end, kind_of(flag))


def _named(text: str, match: re.Match[str]) -> Span | None:
    if not is_secret_key(match[1]):
        return None
    start, end, _ = _value(text, match.end())
    return None if harmless(match[1], text[start:end]) else Span(start, end, kind_of(match[1]))


def _assigned(text: str, low: str, match: re.Match[str]) -> Span | None:
    word, key_quoted, separator, blank = match[1], match[2] is not None, match[3], match[4]
    first = match.start()
    while first and match.start() - first < KEY_CHARS and (low[first - 1].isalnum() or low[first - 1] in "_.-$"):
        first -= 1
    key = low[first : match.end(1)]
    if not is_secret_key(key):
        return None
    if separator == ":" and not key_quoted and low[first - 1 : first] in _BEFORE_NAME:
        return None
    kind, own_line = kind_of(key), _begins_line(low, first)
    if own_line and (block := _BLOCK.match(text, match.end())) is not None:
        return Span(block.start(1), block.end(), kind)
    start, end, quoted = _value(text, match.end())
    value = text[start:end]
    if harmless(key, value) or (not quoted and len(value) < HARMLESS_CHARS and _no_value(value)):
        return None
    loose = separator == ":" and bool(blank) and not key_quoted
    if loose and quoted and word == "token" and len(value) < 8 and _PARSER_SAYS.search(low[max(0, first - 12) : first]):
        return None
    if loose and not (quoted or own_line) and WORDY.fullmatch(value) and (kind != "password" or _goes_on(text, end)):
        return None
    if kind == "password" and not quoted and own_line and blank:
        end = _rest_of_line(text, end)
    return Span(start, end, kind)


def _no_value(value: str) -> bool:
    """Whether the next key, or code, was taken for a value."""
    return value.endswith(":") or _CODE.fullmatch(value) is not None


def _begins_line(low: str, first: int) -> bool:
    """Whether a key stands at the beginning of its line, as in YAML: behind blanks, a dash or a bracket at most."""
    line = low.rfind("\n", max(0, first - 40), first) + 1 or max(0, first - 40)
    return (line == 0 or low[line - 1] == "\n") and not low[line:first].strip(" \t-{,[\"'")


def _goes_on(text: str, end: int) -> bool:
    """Whether a sentence goes on behind a value, and no other value follows."""
    rest = text[end : end + 60].partition("\n")[0]
    return bool(rest.strip()) and rest[0] not in ",;)}]|" and re.match(r"[ \t]+[\w.-]{1,40}[:=]", rest) is None


def _rest_of_line(text: str, end: int) -> int:
    """The end of a value of several words: the line's, unless more keys, a comment or a sign of structure follow."""
    more = _MORE_WORDS.match(text, end)
    return more.end() if more is not None and more.end() - end <= 200 else end


def _value(text: str, at: int) -> tuple[int, int, bool]:
    """Start and end of the value that begins at ``at``, and whether it stands in quotes."""
    opener = _OPENER.match(text, at)
    if opener is not None:
        start, end = _behind_placeholders(text, opener.end()), closed_at(text, opener.end(), opener[1])
        return start, max(start, end), True
    start = at
    if text.startswith("[", at) and not text.startswith("[0", at):
        start = at + 1
    start = _behind_placeholders(text, start)
    angled = _ANGLED.match(text, start)
    if angled is not None and _STAND_IN.fullmatch(angled[0]):
        return start, angled.end(), False
    bare = _BARE.match(text, start)
    if bare is None:
        return start, start, False
    coloured = _COLOUR_END.search(text, max(start, bare.end() - 16), bare.end())
    end = coloured.start() if coloured is not None else bare.end()
    # A full stop behind a value ends the sentence.
    end -= text[end - 1] == "." and end - start > 1
    return start, end if start == at or any(map(str.isalnum, text[start:end])) else start, False


def _behind_placeholders(text: str, start: int) -> int:
    """Behind the placeholders that stand at ``start``: what follows them is looked at, they are not."""
    while (placeholder := PLACEHOLDER.match(text, start)) is not None:
        start = placeholder.end()
    return start


def closed_at(text: str, start: int, opener: str) -> int:
    """Where the string that ``opener`` began ends: at its own kind of quote, or with the line when it was cut."""
    quote, depth = opener[-1], len(opener) - 1
    line_end = text.find("\n", start)
    line_end = len(text) if line_end < 0 else line_end
    at = start
    while (at := text.find(quote, at, line_end)) >= 0:
        slashes = at
        while slashes > start and text[slashes - 1] == "\\":
            slashes -= 1
        count = at - slashes
        if count <= depth and (depth or count == 0):
            return slashes
        if not depth and count % 2 == 0:
            return at
        at += 1
    return line_end
