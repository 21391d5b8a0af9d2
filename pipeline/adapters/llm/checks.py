"""What a model wrote, checked before anybody believes it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pydantic import ValidationError

from pipeline.domain.diagnosis import Evidence, Hypothesis
from pipeline.domain.review import known_instances
from pipeline.ports.model import Question

MAX_REPLY_CHARS = 3000
"""A section of a Slack message holds no more."""

_CITED = re.compile(r"\[\s*(E\d+(?:\s*[,;]\s*E\d+)*)\s*\]")


class InvalidReply(Exception):
    """The model's text is no hypothesis about this question; the message says what is wrong with it, in one line."""


def parse_hypothesis(text: str, question: Question, *, check_citations: bool) -> Hypothesis:
    """Reads ``text`` strictly: no key twice, no key too many, nothing coerced, only instances that were measured.

    ``check_citations`` refuses evidence ids that do not exist too; without it ``check_claims`` takes those claims out
    later. Raises InvalidReply.
    """
    try:
        json.loads(text, object_pairs_hook=_once)
        hypothesis = Hypothesis.model_validate_json(text, strict=True)
    except json.JSONDecodeError as error:
        raise InvalidReply(f"not complete JSON: {error.msg} at character {error.pos} of {len(text)}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in error.errors()[:4]]
        raise InvalidReply("; ".join(wrong)) from error
    except (RecursionError, ValueError) as error:
        raise InvalidReply("nested too deeply, or a number too long to read") from error
    instances = set(known_instances(question))
    if invented := sorted(set(hypothesis.suspect_instances) - instances):
        raise InvalidReply(f"suspect_instances names what was not measured: {', '.join(invented)[:200]}")
    known = {item.id for item in question.evidence}
    cited = {name for claim in hypothesis.claims for name in claim.evidence}
    if check_citations and (unknown := sorted(cited - known)):
        raise InvalidReply(f"claims cite evidence that does not exist: {', '.join(unknown)[:200]}")
    return hypothesis


def checked_reply(text: str, evidence: Sequence[Evidence]) -> str:
    """An answer for a thread: citations of what does not exist are taken out, and it is said when none is left."""
    known = {item.id for item in evidence}
    dropped: list[str] = []

    def keep(found: re.Match[str]) -> str:
        names = re.findall(r"E\d+", found[1])
        kept = [name for name in names if name in known]
        dropped.extend(name for name in names if name not in known)
        return "".join(f"[{name}]" for name in kept)

    answer = _CITED.sub(keep, text.strip())[:MAX_REPLY_CHARS]
    if dropped:
        answer += f"\n(It cited evidence that does not exist, taken out: {', '.join(dict.fromkeys(dropped))[:200]}.)"
    if not _CITED.search(answer):
        answer += "\n(This answer cites no evidence.)"
    return answer


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise InvalidReply("a key stands twice in one object")
    return dict(pairs)
