"""Answers to questions in a thread without a model: from the incident's own evidence, or a plain "it does not say"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline.domain.diagnosis import Category, Claim, Evidence, Hypothesis, Passage
from pipeline.ports.model import Question

MAX_LISTED = 8
EXCERPT_CHARS = 400

_TOPICS: dict[Category, str] = {
    Category.MEMORY: r"memory|leak|oom|heap",
    Category.SATURATION: r"traffic|load|surge|saturat\w*|capacity|users|replicas",
    Category.BAD_CHANGE: r"change\w*|deploy\w*|release\w*|commit\w*|rollout|config\w*|flag",
    Category.DISK: r"disk|volume|logs?|space",
    Category.CERTIFICATE: r"cert\w*|tls|ssl",
}
_BELOW = r"dependenc\w*|downstream|database|callee\w*|upstream|provider"
_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    _WORD.findall(
        "a an and are as at be been but by can could did do does for from had has have how i if in into is it its me "
        "my of on or our please s tell than that the their them then there they this to us was we were what when which "
        "will with would you your"
    )
)


def answer(question: Question, hypothesis: Hypothesis, asked: str) -> str:
    """Plain text with ids like ``[E1]``. Its words tell the kind of question; else evidence is ranked by overlap."""
    words = asked.lower()
    topic = _topic_asked(words)
    if topic is not None:
        return _is_it(question, hypothesis, topic)
    if re.search(rf"^\W*(is|was|could|might|can|are|isn|what about)\b.*\b({_BELOW})\b", words):
        return _is_it_below(question, hypothesis)
    for pattern, respond in _KINDS:
        if re.search(pattern, words):
            return respond(question, hypothesis)
    return _closest(question, words)


def _cause(question: Question, hypothesis: Hypothesis) -> str:
    if not hypothesis.claims:
        return f"{hypothesis.root_cause} No evidence carries more than that. {_have(question)}"
    return "\n".join([_headline(hypothesis), *_claims(hypothesis.claims)])


def _happened(question: Question, hypothesis: Hypothesis) -> str:
    seen = [item for item in question.evidence if item.kind == "anomaly"]
    return "\n".join([*_statements(seen), _cause(question, hypothesis)])


def _list_evidence(question: Question, _: Hypothesis) -> str:
    if not question.evidence:
        return "Nothing was recorded as evidence for this incident."
    shown = _statements(question.evidence, window=True)
    left = len(question.evidence) - MAX_LISTED
    return "\n".join([*shown, f"({left} more in the thread's evidence.)"] if left > 0 else shown)


def _what_to_do(question: Question, hypothesis: Hypothesis) -> str:
    lines = [_headline(hypothesis)]
    advice = [item for item in question.passages if re.search("remed|mitigat|fix|resol", item.heading.lower())]
    for passage in (advice or list(question.passages))[:1]:
        lines.append(f"The runbook {passage.document} says under {_section(passage)}:\n{_excerpt(passage.text)}")
    if not question.passages:
        lines.append("No runbook was found for it.")
    lines.append(
        "From here I cannot act: what is proposed, if anything, stands on the card and waits for a decision there."
    )
    return "\n".join(lines)


def _who(question: Question, _: Hypothesis) -> str:
    found = [item for item in question.evidence if item.kind == "topology"]
    others = {item.key.service for item in question.anomalies} - {question.service}
    symptoms = [item for item in question.evidence if item.kind == "anomaly" and item.subject in others]
    lines = _statements([*found, *symptoms])
    return "\n".join(lines) if lines else f"The evidence does not say who is affected. {_have(question)}"


def _when(question: Question, _: Hypothesis) -> str:
    if not question.anomalies:
        return f"The evidence does not say when it began. {_have(question)}"
    first = min(question.anomalies, key=lambda item: item.started_at)
    cited = [item for item in question.evidence if item.kind == "anomaly"]
    own = [item for item in cited if item.subject in (first.key.instance, first.key.service)] or cited
    began = f"{first.key.describe()} left its bounds at {first.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{began}{_marks([item.id for item in own[:2]])}."


def _how_sure(_: Question, hypothesis: Hypothesis) -> str:
    share = (
        f"The rules engine is {hypothesis.certainty:.0%} certain of {_named(hypothesis.category)}. What it rests on:"
    )
    return "\n".join([share, *(_claims(hypothesis.claims) or ["nothing that could be cited."])])


_KINDS: tuple[tuple[str, Callable[[Question, Hypothesis], str]], ...] = (
    (r"\b(evidence|proof|prove|how do you know|based on|sources?)\b", _list_evidence),
    (r"\b(how (sure|certain|confident)|are you (sure|certain)|confidence)\b", _how_sure),
    (
        r"\b(what (should|would|can|could|shall)|how (do|can|should) (we|i|you)|fix|remed\w*|mitigat\w*|next)\b",
        _what_to_do,
    ),
    (r"\b(who|affected|impact\w*|blast radius|callers?|customers?)\b", _who),
    (r"\b(when|since|how long|started?|began|begin)\b", _when),
    (r"\b(what happened|what s happening|what is (happening|going|wrong)|what's|summar\w*|status)\b", _happened),
    (r"\b(why|cause\w*|reason|root)\b", _cause),
)
"""In order: what is asked for by name goes before the general "why"."""


def _topic_asked(words: str) -> Category | None:
    """The category somebody asks about: ``is it the memory?``, ``could this be a deploy?``."""
    for category, pattern in _TOPICS.items():
        if re.search(rf"^\W*(is|was|could|might|can|are|isn|what about)\b.*\b({pattern})\b", words):
            return category
    return None


def _is_it(question: Question, hypothesis: Hypothesis, topic: Category) -> str:
    if topic is hypothesis.category:
        return "\n".join([f"Probably yes. {_headline(hypothesis)}", *_claims(hypothesis.claims)])
    about = [item for item in question.evidence if re.search(rf"\b({_TOPICS[topic]})\b", item.statement.lower())]
    if not about:
        return f"The evidence does not answer that: nothing was read about {_named(topic)}. {_headline(hypothesis)}"
    return "\n".join([f"It does not look like {_named(topic)}:", *_statements(about), _headline(hypothesis)])


def _is_it_below(question: Question, hypothesis: Hypothesis) -> str:
    slow = question.facts.slow_callees
    about = [item for item in question.evidence if item.kind == "topology" or item.subject in slow]
    if not about:
        return f"The evidence does not answer that: nothing was read about the services below. {_headline(hypothesis)}"
    verdict = f"Probably: slow below are {', '.join(slow)}." if slow else "No service below is seen to be slow."
    return "\n".join([verdict, *_statements(about)])


def _closest(question: Question, words: str) -> str:
    """Evidence that shares the most words with the question; when none does, that is the answer."""
    wanted = set(_WORD.findall(words)) - _STOP - set(_WORD.findall(question.service.lower()))
    scored = [(len(wanted & set(_WORD.findall(item.statement.lower()))), item) for item in question.evidence]
    best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[:3]
    if not best:
        return f"The evidence of this incident does not answer that. {_have(question)}"
    return "\n".join(["The closest that was measured:", *_statements([item for _, item in best])])


def _have(question: Question) -> str:
    subjects = sorted({item.subject or question.service for item in question.evidence})
    ids = _marks([item.id for item in question.evidence[:MAX_LISTED]])
    return f"There is evidence about {', '.join(subjects)[:200]}{ids}." if subjects else "There is no evidence at all."


def _headline(hypothesis: Hypothesis) -> str:
    return f"{hypothesis.root_cause} ({hypothesis.certainty:.0%} certain by the rules)"


def _named(category: Category) -> str:
    return category.value.replace("_", " ")


def _claims(claims: Sequence[Claim]) -> list[str]:
    return [f"- {claim.text}{_marks(claim.evidence)}" for claim in claims]


def _statements(evidence: Sequence[Evidence], *, window: bool = False) -> list[str]:
    return [
        f"- {item.statement}{_marks([item.id])}"
        + (f" (read by {item.query}, {item.window_from:%H:%M:%S} to {item.window_to:%H:%M:%S} UTC)" if window else "")
        for item in evidence[:MAX_LISTED]
    ]


def _marks(ids: Sequence[str]) -> str:
    return "".join(f" [{item}]" for item in ids)


def _section(passage: Passage) -> str:
    return passage.heading.rpartition("›")[2].strip()


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1].rstrip() + "…"
