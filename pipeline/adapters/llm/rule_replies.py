"""Answers to questions in a thread without a model: from the incident's evidence, from what the tools read when the
question names it, or a plain "it does not say"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline.adapters.llm.rules_reading import Call
from pipeline.domain.diagnosis import Category, Claim, Evidence, Hypothesis, Passage
from pipeline.domain.telemetry import Signal
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


_SIGNALS: dict[Signal, str] = {
    Signal.CPU_RATIO: r"cpu|processor\w*",
    Signal.MEMORY_RATIO: r"memory|heap",
    Signal.DISK_RATIO: r"disk|volume",
    Signal.LATENCY_P99: r"latenc\w+|p99|response times?",
    Signal.ERROR_RATIO: r"error (?:ratio|rate)|errors|5xx",
    Signal.TRAFFIC: r"traffic|request rate|rps",
    Signal.CERT_REMAINING: r"certificate|cert",
    Signal.QUOTA_RATIO: r"quota",
}
_READ = r"^\W*(?:show|list|give|get|read|query|search|how (?:much|many|is|are)|what(?:'s| is| are| was| were)|any)\b"
_MOST_MINUTES = 360


async def answer(question: Question, hypothesis: Hypothesis, asked: str) -> str:
    """Plain text with ids like ``[E1]``. Its words tell the kind of question; else evidence is ranked by overlap."""
    words = asked.lower()
    topic = _topic_asked(words)
    if topic is not None:
        return _is_it(question, hypothesis, topic)
    if re.search(rf"^\W*(is|was|could|might|can|are|isn|what about)\b.*\b({_BELOW})\b", words):
        return _is_it_below(question, hypothesis)
    call = _reading(question, asked)
    if call is not None and (said := await _read(question, call)):
        return said
    for pattern, respond in _KINDS:
        if re.search(pattern, words):
            return respond(question, hypothesis)
    return _closest(question, words)


def _reading(question: Question, asked: str) -> Call | None:
    """The call that answers ``asked``, when it names logs, changes, traces, events, or a signal of some service."""
    words = asked.lower()
    service = _service_named(question, words)
    about = service or question.service
    minutes = _minutes_named(words)
    if re.search(r"\b(logs?|log lines?)\b", words):
        quoted = re.search(r"[\"“'`]([^\"”'`]{2,200})[\"”'`]", asked)
        text = quoted[1] if quoted else ""
        return Call("search_logs", {"service": about, "text": text, "minutes": minutes or 30})
    if re.search(r"\b(changed|changes?|deploy\w*|commits?|releases?|rollouts?)\b", words):
        return Call("recent_changes", {"service": about, "minutes": minutes or 180})
    if re.search(r"\b(traces?|spans?)\b", words):
        return Call("traces", {"service": about, "minutes": minutes or 15, "errors_only": "fail" in words})
    if re.search(r"\b(events?|restart(?:s|ed)|oom\w*|evict\w*)\b", words):
        return Call("kubernetes_events", {"service": about, "minutes": minutes or 60})
    signal = next((one for one, pattern in _SIGNALS.items() if re.search(rf"\b(?:{pattern})\b", words)), None)
    if signal is None or not (service or minutes or re.search(_READ, words)):
        return None
    return Call("query_metrics", {"service": about, "signal": signal.value, "minutes": minutes or 60})


async def _read(question: Question, call: Call) -> str:
    """What the tool gave; empty when it would not answer and the evidence has to do."""
    result = await question.tools.call(call.tool, call.arguments)
    if result.status == "refused":
        return ""
    left_out = [f"({result.said})"] if result.said else []
    if result.evidence:
        return "\n".join(["Read just now:", *_statements(result.evidence), *left_out])
    return f"Nothing was found: {result.said}."


def _service_named(question: Question, words: str) -> str:
    """The service that the question names, other than by chance in another word; empty when none is."""
    known: set[str] = {item.service for item in question.read} | {item.key.service for item in question.anomalies}
    for item in question.read:
        edges = item.snapshot.get("edges")
        for pair in edges if isinstance(edges, list) else ():
            known |= {name for name in pair if isinstance(name, str)} if isinstance(pair, list) else set()
    named = [name for name in known if name and re.search(rf"(?<![\w-]){re.escape(name.lower())}(?![\w-])", words)]
    return max(named, key=lambda name: (name != question.service, len(name), name), default="")


def _minutes_named(words: str) -> int | None:
    """``last 20 minutes``, ``past 2 h``; at most what the tools read."""
    found = re.search(r"\b(\d{1,4})\s*(m|min|mins|minutes?|h|hours?)\b", words)
    if found is None:
        return None
    minutes = int(found[1]) * (60 if found[2].startswith("h") else 1)
    return min(max(minutes, 1), _MOST_MINUTES)


def _cause(question: Question, hypothesis: Hypothesis) -> str:
    if not hypothesis.claims:
        return f"{hypothesis.root_cause} No evidence carries more than that. {_have(question)}"
    return "\n".join([_headline(hypothesis), *_claims(hypothesis.claims)])


def _happened(question: Question, hypothesis: Hypothesis) -> str:
    seen = [item for item in question.read if item.kind == "anomaly"]
    return "\n".join([*_statements(seen), _cause(question, hypothesis)])


def _list_evidence(question: Question, _: Hypothesis) -> str:
    if not question.read:
        return "Nothing was recorded as evidence for this incident."
    shown = _statements(question.read, window=True)
    left = len(question.read) - MAX_LISTED
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
    found = [item for item in question.read if item.kind == "topology"]
    others = {item.key.service for item in question.anomalies} - {question.service}
    symptoms = [item for item in question.read if item.kind == "anomaly" and item.subject in others]
    lines = _statements([*found, *symptoms])
    return "\n".join(lines) if lines else f"The evidence does not say who is affected. {_have(question)}"


def _when(question: Question, _: Hypothesis) -> str:
    if not question.anomalies:
        return f"The evidence does not say when it began. {_have(question)}"
    first = min(question.anomalies, key=lambda item: item.started_at)
    cited = [item for item in question.read if item.kind == "anomaly"]
    own = [item for item in cited if item.subject in (first.key.instance, first.key.service)] or cited
    began = f"{first.key.describe()} left its bounds at {first.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{began}{_marks([item.id for item in own[:2]])}."


def _how_sure(_: Question, hypothesis: Hypothesis) -> str:
    share = f"It is {hypothesis.certainty:.0%} certain, by {_named(hypothesis.category)}. What it rests on:"
    missing = [f"To be surer: {line}." for line in hypothesis.missing[:2]]
    return "\n".join([share, *(_claims(hypothesis.claims) or ["nothing that could be cited."]), *missing])


def _what_else(question: Question, hypothesis: Hypothesis) -> str:
    if not hypothesis.alternatives:
        return f"No other cause was close. {_have(question)}"
    return "\n".join(f"- {one.root_cause} Not taken: {one.why_not}" for one in hypothesis.alternatives)


def _what_is_missing(question: Question, hypothesis: Hypothesis) -> str:
    if not hypothesis.missing:
        return f"Nothing in particular is missing. {_have(question)}"
    return "\n".join(["What would have to be read:", *(f"- {line}" for line in hypothesis.missing)])


_KINDS: tuple[tuple[str, Callable[[Question, Hypothesis], str]], ...] = (
    (r"\b(missing|not (?:known|read)|unknown)\b", _what_is_missing),
    (r"\b(what else|else could|other causes?|alternatives?|competing|why not)\b", _what_else),
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
    about = [item for item in question.read if re.search(rf"\b({_TOPICS[topic]})\b", item.statement.lower())]
    if not about:
        return f"The evidence does not answer that: nothing was read about {_named(topic)}. {_headline(hypothesis)}"
    return "\n".join([f"It does not look like {_named(topic)}:", *_statements(about), _headline(hypothesis)])


def _is_it_below(question: Question, hypothesis: Hypothesis) -> str:
    slow = question.facts.slow_callees
    about = [item for item in question.read if item.kind == "topology" or item.subject in slow]
    if not about:
        return f"The evidence does not answer that: nothing was read about the services below. {_headline(hypothesis)}"
    verdict = f"Probably: slow below are {', '.join(slow)}." if slow else "No service below is seen to be slow."
    return "\n".join([verdict, *_statements(about)])


def _closest(question: Question, words: str) -> str:
    """Evidence that shares the most words with the question; when none does, that is the answer."""
    wanted = set(_WORD.findall(words)) - _STOP - set(_WORD.findall(question.service.lower()))
    scored = [(len(wanted & set(_WORD.findall(item.statement.lower()))), item) for item in question.read]
    best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[:3]
    if not best:
        return f"The evidence of this incident does not answer that. {_have(question)}"
    return "\n".join(["The closest that was measured:", *_statements([item for _, item in best])])


def _have(question: Question) -> str:
    subjects = sorted({item.subject or question.service for item in question.read})
    ids = _marks([item.id for item in question.read[:MAX_LISTED]])
    return f"There is evidence about {', '.join(subjects)[:200]}{ids}." if subjects else "There is no evidence at all."


def _headline(hypothesis: Hypothesis) -> str:
    return f"{hypothesis.root_cause} ({hypothesis.certainty:.0%} certain by the rules)"


def _named(category: Category) -> str:
    return category.value.replace("_", " ")


def _claims(claims: Sequence[Claim]) -> list[str]:
    return [f"- {claim.text}{_marks(claim.ids)}" for claim in claims]


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
