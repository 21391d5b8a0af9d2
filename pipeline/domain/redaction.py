"""Secrets out of a text before it reaches a model, Slack, the trace or a log. Pure; linear in the text.

Each secret becomes ``‹secret:kind:digest›``. The digest is 24 bits of BLAKE2b keyed with a salt that exists in this
process only: the same secret gives the same digest wherever it stands, so that a reader still sees that two services
use one password, another secret another one (two of a hundred meet by chance once in 3,000), and a short password
cannot be found by trying a dictionary. After a restart, and in another replica, the digests are others. Who can write
log lines and read the result can still test a guess, one log line a guess; nothing that shows equality avoids that.

Found are tokens in the formats of their issuers and values in the places where secrets are written (headers, keys,
addresses, flags, PEM); see ``redaction_rules`` and ``redaction_values``. There is no rule for "looks random": the
entropy plugins of detect-secrets flag pod names and trace ids, and without them it knows neither bearer tokens nor
``password=`` nor cookies; what is left of it are issuers' formats, which are a few lines here. A secret in no known
format and at no such place is not found.

What is no secret stays: names of Kubernetes Secrets, references (``${DB_PASSWORD}``, ``/run/secrets/db``), states
(``token: expired``), counts, ids, hashes, digests. E-mail addresses stay too: telemetry names owners by them.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from pipeline.domain.redaction_rules import MAY_HOLD_SECRETS, RULES
from pipeline.domain.redaction_values import PLACEHOLDER, Span, harmless, is_secret_key, kind_of
from pipeline.domain.trace import JsonValue

MAX_DEPTH = 64
"""Objects and lists nested deeper are left out: no telemetry is, and a hostile document could be without end."""
TOO_DEEP = "‹left out: nested too deeply›"
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without its secrets. ``found`` counts them by kind: bearer, password, jwt, private-key, …"""

    text: str
    found: Mapping[str, int]


class Redactor:
    """Takes secrets out of texts and JSON. ``salt`` (1 to 64 bytes) is random unless digests shall be comparable."""

    def __init__(self, salt: bytes | None = None) -> None:
        if salt is not None and not 1 <= len(salt) <= 64:
            raise ValueError(f"the salt of a Redactor has 1 to 64 bytes, not {len(salt)}")
        self._salt = secrets.token_bytes(32) if salt is None else salt

    def text(self, text: str) -> Redacted:
        """``text`` with every secret replaced; redacting twice changes nothing."""
        if MAY_HOLD_SECRETS.search(text) is None:
            return Redacted(text, {})
        found: Counter[str] = Counter()
        # What stands beside a placeholder may only now be seen to belong to a value: redact until nothing is found.
        for _ in range(_ROUNDS):
            spans = list(_merged(text, _spans(text)))
            if not spans:
                break
            found.update(span.kind for span in spans)
            text = self._without(text, spans)
        return Redacted(text, found)

    def _without(self, text: str, spans: Iterable[Span]) -> str:
        parts: list[str] = []
        end = 0
        for span in spans:
            parts += [text[end : span.start], self._placeholder(text[span.start : span.end], span.kind)]
            end = span.end
        return "".join([*parts, text[end:]])

    def json(self, value: JsonValue) -> JsonValue:
        """A copy without secrets. Keys stay; what stands under a secret's key goes, whatever it looks like."""
        return self._json(value, "", 0)

    def _json(self, value: JsonValue, key: str, depth: int) -> JsonValue:
        if depth > MAX_DEPTH:
            return TOO_DEEP
        if isinstance(value, dict):
            named = _named_secret(value)
            return {
                self.text(name).text: self._json(item, named if named and name.lower() == "value" else name, depth + 1)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._json(item, key, depth + 1) for item in value]
        if isinstance(value, str):
            return self._under(key, value)
        if is_secret_key(key) and isinstance(value, int | float) and not isinstance(value, bool):
            return value if harmless(key, str(value)) else self._placeholder(str(value), kind_of(key))
        return value

    def _under(self, key: str, value: str) -> str:
        low = key.lower()
        if low.endswith(("authorization", "cookie", "cookie2")):
            head = f"{low}: "
            return self.text(head + value).text.removeprefix(head)
        redacted = self.text(value).text
        if not is_secret_key(key) or harmless(key, value) or PLACEHOLDER.fullmatch(redacted):
            return redacted
        return self._placeholder(value, kind_of(key))

    def _placeholder(self, secret: str, kind: str) -> str:
        digest = blake2b(secret.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=3)
        return f"‹secret:{kind}:{digest.hexdigest()}›"


def _named_secret(value: Mapping[str, JsonValue]) -> str:
    """The name in ``{"name": "DB_PASSWORD", "value": "…"}``, as Kubernetes lists environments; empty for others."""
    for field in ("name", "Name", "key", "Key"):
        name = value.get(field)
        if isinstance(name, str) and is_secret_key(name):
            return name
    return ""


def _spans(text: str) -> list[Span]:
    low = text.lower()
    if len(low) != len(text):  # İ alone becomes two characters
        low = text.replace("İ", "i").lower()
    return [span for rule in RULES for span in rule(text, low) if span.end > span.start]


def _merged(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Spans that overlap as one; its kind is that of the first and longest, of equals that of the first rule."""
    ordered = sorted(enumerate(spans), key=lambda item: (item[1].start, -item[1].end, item[0]))
    whole: Span | None = None
    for _, span in ordered:
        if whole is None or span.start >= whole.end:
            if whole is not None and not PLACEHOLDER.fullmatch(text, whole.start, whole.end):
                yield whole
            whole = span
        elif span.end > whole.end:
            whole = Span(whole.start, span.end, whole.kind)
    if whole is not None and not PLACEHOLDER.fullmatch(text, whole.start, whole.end):
        yield whole
