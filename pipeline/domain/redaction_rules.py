"""What a secret looks like: formats that issuers gave their tokens, and places where people write secrets. Pure.

Every rule is linear in the text: it starts at literal text, what it reads is bounded or never given back (possessive),
and it goes on behind what it read.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.domain.redaction_values import STATES, WORDY, Rule, Span, assignments, closed_at, no_secret

_PEM_CHARS = 16_384
"""A private key of 16,384 bits takes 13 kB in PEM."""


class _Format(NamedTuple):
    """Tokens that have one of some ``words`` in them; the secret is all that the pattern finds."""

    kind: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    accept: Callable[[str], bool] | None


def _format(kind: str, words: tuple[str, ...], pattern: str, accept: Callable[[str], bool] | None = None) -> _Format:
    return _Format(kind, words, re.compile(pattern), accept)


def _mixed(token: str) -> bool:
    """With digits, capitals and small letters: no word, no name, no hexadecimal number."""
    return any(map(str.isdigit, token)) and any(map(str.isupper, token)) and any(map(str.islower, token))


def _is_jwt(token: str) -> bool:
    return "." in token or token.startswith(("eyJhbGciOi", "eyJ0eXAiOi", "eyJraWQiOi", "eyJhdXRocyI6"))


_START = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
"""A token begins here: behind no letter, or behind an escaped end of line."""
_FORMATS: tuple[_Format, ...] = (
    _format("jwt", ("eyJ",), r"eyJ[A-Za-z0-9_-]{6,}+(?:\.[A-Za-z0-9_-]++){0,4}", _is_jwt),
    _format(
        "github",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"gh[oprsu]_[A-Za-z0-9]{16,}+|github_pat_[A-Za-z0-9_]{16,}+",
    ),
    _format("gitlab", ("gl",), r"gl(?:pat|dt|rt|cbt|ptt|ft|oas|soat|agent|imt|ffct)-[A-Za-z0-9_-]{16,}+"),
    _format("slack", ("xox", "xapp-"), r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}+|xapp-\d-[A-Za-z0-9-]{10,}+"),
    _format("webhook", ("hooks.slack.com/",), r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/+-]{16,}+"),
    _format(
        "webhook",
        ("webhook",),
        r"(?<=discord\.com/api/)webhooks/\d{10,25}/[\w-]{20,}+|(?<=office\.com/)webhookb2/[\w@/-]{30,}+",
    ),
    _format("aws-key-id", ("AKIA", "ASIA"), r"A[KS]IA[A-Z2-7]{16}(?![A-Z0-9])"),
    _format("google", ("AIza", "ya29.", "GOCSPX-"), r"AIza[\w-]{30,}+|ya29\.[\w.-]{20,}+|GOCSPX-[\w-]{20,}+"),
    _format(
        "stripe", ("_live_", "_test_", "whsec_"), r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}+|whsec_[A-Za-z0-9+/=]{20,}+"
    ),
    _format("anthropic", ("sk-ant-",), r"sk-ant-[\w-]{16,}+"),
    _format("openai", ("sk-",), rf"{_START}sk-[\w-]{{20,}}+", _mixed),
    _format("npm", ("npm_",), r"npm_[A-Za-z0-9]{20,}+"),
    _format("pypi", ("pypi-",), r"pypi-[\w-]{50,}+"),
    _format("twilio", ("SK",), rf"{_START}SK[0-9a-f]{{32}}(?![A-Za-z0-9])"),
    _format("sendgrid", ("SG.",), r"SG\.[\w-]{16,64}+\.[\w-]{16,}+"),
    _format("mailgun", ("key-",), rf"{_START}key-[0-9a-f]{{32}}(?![0-9a-f-])"),
    _format("hugging-face", ("hf_",), rf"{_START}hf_[A-Za-z0-9]{{30,}}+"),
    _format("vault", ("hvs.", "hvb.", "hvr."), rf"{_START}hv[bsr]\.[\w-]{{20,}}+"),
    _format("digitalocean", ("_v1_",), r"do[opr]_v1_[0-9a-f]{40,}+"),
    _format("shopify", ("shp",), r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    _format("grafana", ("glsa_", "glc_"), r"glsa_[A-Za-z0-9]{20,}+(?:_[0-9a-f]{8})?|glc_[A-Za-z0-9+/=]{20,}+"),
    _format("new-relic", ("NRAK-", "NRII-"), r"NRAK-[A-Z0-9]{20,}+|NRII-[\w-]{20,}+"),
    _format("databricks", ("dapi",), rf"{_START}dapi[0-9a-f]{{32}}(?![0-9a-z])"),
    _format("azure", ("Q~",), r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{30,40}(?![\w~-])"),
    _format("telegram", (":AA",), r"(?<!\d)\d{8,10}:AA[\w-]{32,}+"),
    _format("age", ("AGE-SECRET-KEY-",), r"AGE-SECRET-KEY-1[0-9A-Z]{40,}+"),
    _format("atlassian", ("ATATT3",), r"ATATT3[\w=-]{40,}+"),
    _format("square", ("sq0",), r"sq0[a-z]{3}-[\w-]{22,}+"),
    _format("mailchimp", ("-us",), r"(?<![0-9a-f])[0-9a-f]{32}-us\d{1,2}(?!\w)"),
    _format("artifactory", ("AKCp",), rf"{_START}AKCp[A-Za-z0-9]{{10,}}+"),
    _format("private-key", ("LS0tLS1CRUdJTiB",), r"LS0tLS1CRUdJTiB[FOPQRS][A-Za-z0-9+/]{16,}+={0,2}"),
)
_FORMAT_OF = tuple((word, form) for form in _FORMATS for word in form.words)


def formats(text: str, low: str) -> Iterator[Span]:
    """Tokens in a form that their issuer gave them."""
    del low
    done: _Format | None = None
    for word, form in _FORMAT_OF:
        if word not in text or form is done:
            continue
        done = form
        for match in form.pattern.finditer(text):
            if form.accept is None or form.accept(match[0]):
                yield Span(*match.span(), form.kind)


_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: \d{1,3}")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_GAP = r"(?:\\{1,7}[rn]|\s|[\"'+,|>])*+"
_BODY = re.compile(
    rf"(?:{_GAP}(?:Proc-Type|DEK-Info|Version|Comment): [^\s\\]++)*+"
    rf"(?:{_GAP}[A-Za-z0-9+/=]{{16,}}+)*+(?:{_GAP}[A-Za-z0-9+/=]{{1,15}}+(?=[\"'\\\s]|$))?+"
)
_KEY_LINE = re.compile(r"(?<![A-Za-z0-9+/=_.-])[A-Za-z0-9+/]{64}(?![A-Za-z0-9+/=_-])")
_AWS_SECRET = re.compile(r"(?<![A-Za-z0-9+/=_.-])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=_-])")


def _keys(text: str, low: str) -> Iterator[Span]:
    """Private keys in PEM, also on one line, escaped or cut off; single lines of one; AWS secrets beside their id."""
    if "-----begin " in low or "private-lines:" in low:
        at = 0
        while (begin := _BEGIN.search(text, at)) is not None:
            end = _END.search(text, begin.end(), begin.end() + _PEM_CHARS)
            body = _BODY.match(text, begin.end())
            at = end.end() if end is not None else body.end() if body is not None else begin.end()
            yield Span(begin.start(), at, "private-key")
    if len(text) >= 64:
        for match in _KEY_LINE.finditer(text):
            if _mixed(match[0]):
                yield Span(*match.span(), "private-key")
    if "AKIA" in text or "ASIA" in text:
        for match in _AWS_SECRET.finditer(text):
            if _mixed(match[0]):
                yield Span(*match.span(), "aws-secret")


_DIGITS = re.compile(r"\d{4}[ -]?\d{4}")
_CARD = re.compile(
    r"(?:(?<![\w.:/-])|(?<=\\[nrt]))"
    r"(?:\d{13,16}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5})(?![\w-]|[.:]\d)"
)
_CARD_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
)
_ID_BEFORE = re.compile(
    r"(?:\b|[_.-]|trace|span|request|order|user|item|session|object|event|resource)"
    r"(?:id|seq|sequence|offset|time|nanos?|ts|version|bytes|count|total|number|no)"
    r"[\"'\\]{0,4}\s{0,2}[=:#]?\s?[\"'\\]{0,4}$"
)


def _cards(text: str, low: str) -> Iterator[Span]:
    """Numbers of payment cards: an issuer's range and length, the Luhn check digit, and no word before it says id."""
    if _DIGITS.search(text) is None:
        return
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        named_otherwise = _ID_BEFORE.search(low[max(0, match.start() - 24) : match.start()])
        if named_otherwise is None and _CARD_ISSUERS.fullmatch(digits) and _luhn(digits):
            yield Span(*match.span(), "card")


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


_HEADER = re.compile(
    r"(?:proxy-)?authorization[\"'\\\]]{0,8}\s{0,4}(?:=>|[:=,])\s{0,4}[\[\"'\\ ]{0,12}"
    r"(?:(bearer|basic|token|apikey|api-key|negotiate|ntlm|key|digest|splunk|sso-key|genie-?key)[ =:]{1,4}+)?"
    r"([^\s\"'\\,;\]}‹]{2,}+)"
)
_SCHEME = re.compile(r"\b(bearer|basic)(?:[ \t]{1,4}+|%20|\+)\\{0,3}[\"']?([^\s\"'\\,;)\]}<>‹›]{6,}+)")
_COOKIE = re.compile(r"(?:set-)?cookie2?[\"'\\\]]{0,8}[ \t]{0,4}[:=][ \t]{0,4}[\[\"'\\ ]{0,12}([^\r\n\"'\\\]]++)")
_PAIR = re.compile(r"([^=;\s,]{1,80})=([^;,\s]+)")
_COOKIE_ATTRIBUTES = frozenset({"path", "domain", "expires", "max-age", "samesite", "priority", "version"})
_SIGNATURE = re.compile(r"(?<![a-z0-9_])(?:x-(?:amz|goog)-)?sig(?:nature)?(?:=|%3d)([^&\s\"'\\,;]{8,}+)")
_BASIC_PAIR = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")


def headers(text: str, low: str) -> Iterator[Span]:
    """Authorization and Cookie headers in any notation, ``Bearer …`` anywhere, signatures of signed addresses."""
    if "authorization" in low:
        for match in _HEADER.finditer(low):
            value = text[match.start(2) : match.end(2)]
            if value.lower() in STATES or no_secret(value) or (match[1] is None and WORDY.fullmatch(value)):
                continue
            if match[1] is None and low.startswith(("aws4-", "digest", "signature"), match.start(2)):
                continue
            yield Span(*match.span(2), "basic" if match[1] == "basic" else "bearer")
    if "bearer" in low or "basic" in low:
        for match in _SCHEME.finditer(low):
            value = text[match.start(2) : match.end(2)]
            if match[1] == "basic":
                if _is_pair(value):
                    yield Span(*match.span(2), "basic")
            elif not (WORDY.fullmatch(value.rstrip("=")) or no_secret(value) or "=" in value.rstrip("=")):
                end = match.end(2) - (len(value) - len(value.rstrip(".:")))
                yield Span(match.start(2), end, "bearer")
    if "cookie" in low:
        for match in _COOKIE.finditer(low):
            yield from _cookies(text, match)
    if "sig" in low:
        for match in _SIGNATURE.finditer(low):
            value = text[match.start(1) : match.end(1)]
            if not WORDY.fullmatch(value) and not no_secret(value):
                yield Span(*match.span(1), "signature")


def _cookies(text: str, match: re.Match[str]) -> Iterator[Span]:
    pairs = 0
    for pair in _PAIR.finditer(text, *match.span(1)):
        pairs += 1
        if pair[1].lower() not in _COOKIE_ATTRIBUTES and not no_secret(pair[2]):
            yield Span(*pair.span(2), "cookie")
    first = text[match.start(1) : match.end(1)].split(None, 1)
    if not pairs and first and len(first[0]) >= 8 and not WORDY.fullmatch(first[0]) and not no_secret(first[0]):
        yield Span(match.start(1), match.start(1) + len(first[0]), "cookie")


def _is_pair(value: str) -> bool:
    """Whether ``value`` is base64 of ``name:password``, be it cut off."""
    if not _BASIC_PAIR.fullmatch(value):
        return False
    body = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        pair = b64decode(body[: len(body) // 4 * 4]).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return ":" in pair and pair.isprintable()


_AUTHORITY = re.compile(r"://([^\s/?#\"'`<>\\]++)")
_PATH_WITH_AT = re.compile(r"/[^\s\"'`<>\\?&=]{0,300}?@")
_WEB = frozenset({"http", "ttps"})
_REST_OF_ADDRESS = re.compile(r"[^\s\"'`<>\\]{1,300}")
_GO_DSN = re.compile(r"(?<![\w.-])[\w.-]{1,64}:([^\s@/\"']{1,200})@(?:tcp|unix)\(")
_USER_FLAG = re.compile(r"(?<!\S)(?:-u|--user|--proxy-user)(?:[ \t]{1,4}|=)[\"']?[^\s:\"'/]{1,100}:([^\s\"']++)")
_DOCKER_AUTH = re.compile(r"\\{0,7}[\"']auth\\{0,7}[\"'][ \t]{0,8}:[ \t]{0,8}\\{0,7}[\"']([A-Za-z0-9+/=_-]{8,}+)")
_SQL = re.compile(r"(?:identified(?: with \w{1,40})? by|password)[ \t]{1,4}+(?:by )?(')")


def addresses(text: str, low: str) -> Iterator[Span]:
    """Passwords in addresses (``scheme://user:…@host``), connection strings, curl's ``-u``, Docker's auth, SQL."""
    if "://" in text and "@" in text:
        for match in _AUTHORITY.finditer(text):
            yield from _userinfo(text, match)
    if "@tcp(" in text or "@unix(" in text:
        for match in _GO_DSN.finditer(text):
            yield Span(*match.span(1), "password")
    if "curl" in low or "http" in low:
        for match in _USER_FLAG.finditer(text):
            if not match[1].isdigit() and not no_secret(match[1]):
                yield Span(*match.span(1), "password")
    if "auth" in low:
        for match in _DOCKER_AUTH.finditer(text):
            if _is_pair(match[1]):
                yield Span(*match.span(1), "basic")
    if "identified" in low or "password '" in low:
        for match in _SQL.finditer(low):
            end = closed_at(text, match.end(), "'")
            if not no_secret(text[match.end() : end]) and end > match.end():
                yield Span(match.end(), end, "password")


def _userinfo(text: str, match: re.Match[str]) -> Iterator[Span]:
    start, end = match.span(1)
    info, at, _ = match[1].rpartition("@")
    rest_of_path = _PATH_WITH_AT.match(text, end)
    if at and rest_of_path is not None and text[max(0, match.start() - 5) : match.start()].lower()[-4:] not in _WEB:
        info = f"{match[1]}{rest_of_path[0]}".rpartition("@")[0]
    if not at:
        name, colon, rest = match[1].partition(":")
        if not colon or rest.isdigit() or name.startswith("["):
            return
        # A password with / ? or # in it, not encoded as it should be.
        whole = _REST_OF_ADDRESS.match(text, end)
        info, at, _ = (match[1] + (whole[0] if whole else "")).rpartition("@")
        if not at:
            return
    user, colon, password = info.partition(":")
    if colon:
        if password and not no_secret(password):
            yield Span(start + len(user) + 1, start + len(info), "password")
    elif len(user) >= 16 and any(map(str.isdigit, user)) and not no_secret(user):
        yield Span(start, start + len(user), "token")


MAY_HOLD_SECRETS = re.compile(r"[=:@%']|--|[A-Za-z0-9_+/.-]{14}|\d{4}|[Bb][EeAa][AaSs][RrIi][EeCc]")
"""What every secret has beside or in it; names, figures and short words have none of it."""
RULES: tuple[Rule, ...] = (_keys, formats, headers, addresses, assignments, _cards)
