"""Which alerts a document answers, from its title, its file's name, its headings and the rules it quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from knowledge_base.markdown import Section, fenced_lines

MAX_ALERTS = 50
CATALOGUE = 20
"""A document that quotes more rules than this lists alerts, it does not answer them: only its title counts."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{4,79}")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_RULE = re.compile(r"""^\s*(?:-\s+)?["']?alert(?:name)?["']?\s*[:=]+~?\s*["']?([^"'{}#,]{3,100}?)["']?\s*(?:#.*|,)?$""")
_MATCHER = re.compile(r"""\balertname\s*=\s*"([\w .:-]{3,100})\"""")
_UNDER = re.compile(r"\balerts?\b", re.IGNORECASE)
_QUOTED = re.compile(r"`([A-Za-z_][\w:.-]{2,99})`")
_PRODUCT_ENDS = re.compile(r"[a-z](?:SQL|QL|MQ|DB|DNS|SSL|SSH|OS|CD)$")
_METRIC = re.compile(r"_(?:total|bytes|seconds|count|bucket|sum|ratio|info|percent)$")
_WORDS = re.compile(r"[A-Za-z0-9]+")
_PRODUCTS = re.compile(
    "git(hub|lab)|(java|type)script|mysql|(open|elastic)search|open(ssl|shift|telemetry)|cloud(front|watch|flare)|"
    "rabbitmq|dynamodb|victoriametrics|clickhouse|pagerduty|memcached|newrelic|powershell|graphql|configmap|"
    "(stateful|daemon|replica)set",
    re.IGNORECASE,
)
"""Names of things that are written like alerts."""


def alerts_of(path: str, title: str, sections: Sequence[Section], stated: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of alerts, what is ``stated`` first, then the surest sign first; each once.

    A name written together with capitals counts in the title, the file's name and headings; elsewhere it must be
    quoted under a heading such as "Alerts", or be the ``alert`` of a rule in a fenced block.
    """
    stem = path.rpartition("/")[2].rpartition(".")[0]
    named = [*stated, *_in_title(title), *_in_title(stem)]
    found = [name for section in sections for name in _in_section(section)]
    if len(set(found)) > CATALOGUE:
        found = []
    return tuple(dict.fromkeys([*named, *found]))[:MAX_ALERTS]


def _in_title(title: str) -> Iterator[str]:
    words = _WORDS.findall(title)
    for word in words:
        if _is_alert(word, humps=2 if len(words) == 1 else 3):
            yield word


def _in_section(section: Section) -> Iterator[str]:
    if section.level:
        yield from _in_title(section.path[-1].removeprefix("Alert").strip(" :`"))
    listed = any(_UNDER.search(heading) for heading in section.path[-2:])
    for line, fenced in fenced_lines(section.text):
        if fenced:
            rule = _RULE.match(line)
            if rule:
                yield rule[1].strip()
        elif listed:
            yield from (name for name in _QUOTED.findall(line) if _is_quoted_alert(name))
            yield from (word for word in _NAME.findall(line) if _is_alert(word, humps=3))
        yield from _MATCHER.findall(line)
        if not fenced and not listed and _UNDER.match(line.lstrip("-*+ >")):
            yield from (name for name in _QUOTED.findall(line) if _is_alert(name, humps=2))


def _is_alert(word: str, *, humps: int) -> bool:
    """``KubePodCrashLooping``, ``TargetDown``, ``etcdNoLeader``: words with capitals, written together."""
    parts = _HUMP.findall(word)
    return (
        _NAME.fullmatch(word) is not None
        and len(parts) >= humps
        and any(part[:1].isupper() for part in parts[1:])
        and any(part[1:].islower() for part in parts)
        and _PRODUCTS.fullmatch(word) is None
        and _PRODUCT_ENDS.search(word) is None
    )


def _is_quoted_alert(name: str) -> bool:
    """Under "Alerts" also ``high_memory`` and ``disk-full``, but no single word and no metric."""
    return _is_alert(name, humps=2) or (("_" in name or "-" in name) and _METRIC.search(name) is None)
