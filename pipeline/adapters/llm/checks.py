"""What a model wrote, checked before anybody believes it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.domain.diagnosis import Category, Conclusion, Hypothesis, check_claims
from pipeline.domain.review import known_instances
from pipeline.domain.untrusted import neutralise
from pipeline.ports.model import Question

MAX_REPLY_CHARS = 3000
"""A section of a Slack message holds no more."""

_ID = re.compile(r"\bE[0-9]+\b")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_IDS_ONLY = re.compile(r"(?:\s|,|;|&|and|or|E[0-9]+)*")
_WRAPPED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)
Form = TypeVar("Form", bound=BaseModel)


class InvalidReply(Exception):
    """The model's text is not what was asked for; the message says what is wrong with it, in one line."""


class DoubtfulReply(InvalidReply):
    """The text has the right form but rests on what does not exist; the checks that follow would take that out."""


def parse_strictly(text: str, form: type[Form]) -> Form:
    """Reads JSON as ``form``: no key twice, no key too many, nothing coerced. Raises InvalidReply.

    A code fence around the whole is taken off, as models write one that have no mode for JSON.
    """
    wrapped = _WRAPPED.fullmatch(text)
    bare = wrapped[1] if wrapped else text
    try:
        json.loads(bare, object_pairs_hook=_once)
        return form.model_validate_json(bare, strict=True)
    except json.JSONDecodeError as error:
        raise InvalidReply(f"not complete JSON: {error.msg} at character {error.pos} of {len(bare)}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in error.errors()[:4]]
        raise InvalidReply("; ".join(wrong)) from error
    except (RecursionError, ValueError) as error:
        raise InvalidReply("nested too deeply, or a number too long to read") from error


def parse_hypothesis(text: str, question: Question) -> Hypothesis:
    """Reads ``text`` strictly; only instances that were measured may be suspected. Raises InvalidReply."""
    hypothesis = parse_strictly(text, Hypothesis)
    if invented := sorted(set(hypothesis.suspect_instances) - set(known_instances(question))):
        raise InvalidReply(f"suspect_instances names what was not measured: {', '.join(invented)[:200]}")
    return hypothesis


def doubts(hypothesis: Hypothesis, question: Question, shown: Mapping[str, str]) -> tuple[str, ...]:
    """What a second try could mend: citations and services that do not exist, a cause without its path.

    Nothing here has to be right for safety: ``check_claims`` and ``check_path`` judge the answer once more, and take
    away what does not hold.
    """
    found = list(check_claims(hypothesis.claims, shown)[1])
    services = {question.service, *(item.service for item in question.read)}
    services |= {item.key.service for item in question.anomalies}
    for number, step in enumerate(hypothesis.path, start=1):
        if step.service not in services:
            found.append(f"path step {number} is at {step.service[:60]}, a service that no evidence is about")
        if unknown := sorted(set(step.evidence) - set(shown)):
            found.append(f"path step {number} cites {', '.join(unknown)[:60]}, which was not given")
    if hypothesis.conclusion is Conclusion.CAUSE:
        if not hypothesis.claims:
            found.append("a cause needs claims that cite evidence")
        if len(hypothesis.path) < 2:
            found.append("a cause needs a path of at least two steps")
    elif hypothesis.category is not Category.UNKNOWN:
        found.append(f"the category is unknown where the conclusion is {hypothesis.conclusion.value}")
    return tuple(found)


def checked_reply(text: str, known: Collection[str]) -> str:
    """An answer for a thread: citations of what does not exist are taken out, and it is said when none is left."""
    dropped: list[str] = []

    def keep(found: re.Match[str]) -> str:
        names = _ID.findall(found[1])
        dropped.extend(name for name in names if name not in known)
        if names and _IDS_ONLY.fullmatch(found[1]):
            return "".join(f"[{name}]" for name in names if name in known)
        return f"[{_ID.sub(lambda name: name[0] if name[0] in known else '…', found[1])}]"

    answer, before = neutralise(text, MAX_REPLY_CHARS, lines=True), ""
    # What is taken out may leave another one behind: [E9[E99]9].
    while answer != before:
        answer, before = _BRACKETS.sub(keep, answer), answer
    cites = any(_ID.search(found[1]) for found in _BRACKETS.finditer(answer))
    if dropped:
        answer += f"\n(It cited evidence that does not exist, taken out: {', '.join(dict.fromkeys(dropped))[:200]}.)"
    return answer if cites else f"{answer}\n(This answer cites no evidence.)"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise InvalidReply("a key stands twice in one object")
    return dict(pairs)
