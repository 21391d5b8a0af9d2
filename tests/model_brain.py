"""A model that can be counted on: it reads a prompt as a good one would and answers in the form that was asked for.

It knows nothing but the text of the request that its server received: no fixture, no domain object. What it cites it
has read in the prompt's evidence elements (``judged``, ``since``, ``service`` stand there), what it quotes is copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.contract.llm.anthropic_server import AnthropicServer
from tests.contract.llm.openai_server import CompletionsServer, ResponsesServer
from tests.contract.llm.suite import ModelServer, Say, Step

LATE_S = 60.0
"""Measurements are read over windows: an effect may be dated so much before its cause."""
SHORTLY_S = 900.0
"""A change that is older than this when trouble begins is not blamed."""
QUOTE_CHARS = 60
CERTAINTY = 0.92

_ELEMENT = re.compile(r'<data id="(E\d+)"([^>]*)>\n(.*?)\n</data>', re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_SERIES = re.compile(r"(?:deriv\()?(\w+)\{")
_REVIEWED = re.compile(r'<data kind="hypothesis to review">\n(.*?)\n</data>', re.DOTALL)
_QUESTION = re.compile(r"<question>\n(.*?)\n</question>", re.DOTALL)
_WANTS_PLAN = re.compile(r"\b(?:instead|rather)\b", re.IGNORECASE)
_TITLES = {
    "memory_ratio": "memory",
    "disk_ratio": "disk",
    "cert_remaining": "certificate",
    "error_ratio": "errors",
    "latency_p99": "latency",
    "traffic": "traffic",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request without its wire format. ``results`` are those of all tools so far, ``last`` what was said last."""

    system: str
    first: str
    last: str
    results: tuple[str, ...]
    tools: tuple[str, ...]
    may_call: bool

    @property
    def repairs(self) -> bool:
        """Whether the answer before was no use."""
        return self.last.startswith("That is not a valid")


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of evidence as the prompt shows it."""

    id: str
    kind: str
    service: str
    about: str
    judged: str
    since: datetime | None
    read_by: str
    text: str

    @property
    def signal(self) -> str:
        found = _SERIES.match(self.read_by)
        return found[1] if found else ""

    @property
    def trend(self) -> bool:
        """How a series got where it is, not where it stands."""
        return self.read_by.startswith("deriv(")

    @property
    def bears(self) -> bool:
        return self.judged in ("abnormal", "happened")

    def before(self, other: Item) -> bool:
        """Whether it can have caused the other, by the time alone."""
        if self.since is None or other.since is None or self.id == other.id:
            return False
        return (other.since - self.since).total_seconds() >= -LATE_S


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence says. ``chain``: the cause first, the symptom last; empty when none can be shown."""

    category: str
    chain: tuple[Item, ...]


def answer(asked: Asked) -> Say:
    """What the model says to ``asked``: tools first, then the hypothesis, the verdict or the plain answer."""
    if "second opinion" in asked.system:
        return Say(json.dumps(verdict(asked)))
    if (question := _QUESTION.search(asked.first)) is not None:
        return _told(asked, question[1])
    if asked.tools and asked.may_call and not asked.results and not asked.repairs:
        return Say("Let me look at its past.", calls=_first_calls(asked))
    return Say(json.dumps(hypothesis(asked)))


class Thinking(ModelServer):
    """A server of any wire format with the brain behind it. Mixed in before the format.

    ``twists`` are worked off one a request: each is given what the brain would say and says something else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.twists: list[Callable[[Say], Step]] = []

    def step(self, asked: dict[str, Any]) -> Step:
        said = answer(neutral(asked))
        return self.twists.pop(0)(said) if self.twists else said


class ThinkingAnthropic(Thinking, AnthropicServer):
    """Claude's API."""


class ThinkingResponses(Thinking, ResponsesServer):
    """OpenAI's own API."""


class ThinkingCompletions(Thinking, CompletionsServer):
    """What servers speak that are compatible with OpenAI's, and any ``OPENAI_BASE_URL`` of one's own."""


def neutral(request: Mapping[str, Any]) -> Asked:
    """A request of any of the three wire formats in one form."""
    choice = request.get("tool_choice")
    tools = tuple(tool["name"] if "name" in tool else tool["function"]["name"] for tool in request.get("tools", ()))
    if "instructions" in request:
        system, said = str(request["instructions"]), _of_responses(request["input"])
    elif isinstance(request.get("system"), list):
        system, said = str(request["system"][0]["text"]), _of_messages(request["messages"])
    else:
        system, said = str(request["messages"][0]["content"]), _of_completions(request["messages"])
    texts = [text for from_tool, text in said if not from_tool]
    results = tuple(text for from_tool, text in said if from_tool)
    return Asked(system, texts[0], texts[-1], results, tools, choice not in ("none", {"type": "none"}))


def evidence(*texts: str) -> list[Item]:
    """The pieces in prompts or results of tools, in their order."""
    found: dict[str, Item] = {}
    for name, attributes, text in (match for one in texts for match in _ELEMENT.findall(one)):
        told = dict(_ATTRIBUTE.findall(attributes))
        since = told.get("since")
        found[name] = Item(
            id=name,
            kind=told.get("kind", ""),
            service=told.get("service", ""),
            about=told.get("about", ""),
            judged=told.get("judged", ""),
            since=None if since is None else datetime.fromisoformat(since),
            read_by=told.get("read_by", ""),
            text=text,
        )
    return list(found.values())


def hypothesis(asked: Asked) -> dict[str, Any]:
    """In the exact form; insufficient evidence where no chain can be shown."""
    items = evidence(asked.first, *asked.results)
    service = _line(asked.first, "Service")
    instances = _line(asked.first, "Instances").split(", ")
    found = diagnose(service, items)
    suspects = [one.about for one in found.chain if one.signal == "memory_ratio" and one.about in instances]
    cause = f"{found.category} at {service}: {found.chain[0].text}" if found.chain else "No chain can be shown."
    return {
        "conclusion": "cause" if found.chain else "insufficient_evidence",
        "category": found.category if found.chain else "unknown",
        "root_cause": cause[:600],
        "suspect_instances": sorted(set(suspects)) if found.category == "memory" else [],
        "claims": [_claim(one) for one in _worth_telling(found, service, items)],
        "path": [
            {"what": one.text.split(",")[0][:300], "service": one.service, "evidence": [one.id]} for one in found.chain
        ],
        "alternatives": [_alternative(found.category)],
        "missing": [] if found.chain else [f"what changed of {service}"],
        "certainty": CERTAINTY if found.chain else 0.3,
    }


def verdict(asked: Asked) -> dict[str, Any]:
    """Agrees when the evidence says the same to it, and doubts the claims whose quotes are made up."""
    items = {one.id: one for one in evidence(asked.first)}
    said = json.loads(match[1]) if (match := _REVIEWED.search(asked.first)) else {}
    own = diagnose(_line(asked.first, "Service"), list(items.values()))
    category = own.category if own.chain else "unknown"
    doubted = [
        claim["number"]
        for claim in said.get("claims", ())
        if any(cited["id"] not in items or cited["quote"] not in items[cited["id"]].text for cited in claim["evidence"])
    ]
    agrees = category == said.get("category")
    return {
        "agrees": agrees,
        "category": category,
        "score": 0.9 if agrees else 0.3,
        "objections": [] if agrees else [f"I read {category} in {own.chain[0].id if own.chain else 'it'}."],
        "unsupported_claims": doubted,
    }


def diagnose(service: str, items: Sequence[Item]) -> Finding:
    """The category, and the shortest chain that shows it."""
    own = [one for one in items if one.service == service]
    anomalies = sorted((one for one in items if one.kind == "anomaly"), key=_when)
    mine = [one for one in anomalies if one.service == service]
    abnormal = [one for one in own if one.judged == "abnormal"]
    signals = {one.signal for one in mine}
    surge = [one for one in abnormal if one.signal == "traffic" and one.since is not None]
    for signal, category in (("cert_remaining", "certificate"), ("disk_ratio", "disk"), ("memory_ratio", "memory")):
        if signal in signals and not (category == "memory" and surge):
            causes = sorted(
                (one for one in abnormal if one.signal == signal), key=lambda one: (not one.trend, _when(one))
            )
            return Finding(category, _chain(causes, [one for one in mine if one.signal == signal] or mine))
    symptoms = [one for one in mine if one.signal in ("error_ratio", "latency_p99")]
    changes = [one for one in own if one.kind == "change" and symptoms and _shortly_before(one, symptoms[0])]
    if changes and not surge:
        return Finding("bad_change", _chain(changes, symptoms))
    used_up = [one for one in abnormal if one.signal in ("cpu_ratio", "quota_ratio")]
    if chain := _chain([*surge, *used_up], symptoms):
        return Finding("saturation", chain)
    elsewhere = [one for one in items if one.service not in ("", service) and one.bears]
    return Finding("unknown", _chain(elsewhere, symptoms))


def _first_calls(asked: Asked) -> tuple[tuple[str, str], ...]:
    """The past of what is off, and what was changed."""
    service = _line(asked.first, "Service")
    mine = [one for one in evidence(asked.first) if one.kind == "anomaly" and one.service == service]
    signal = mine[0].signal if mine else "latency_p99"
    metrics = {"service": service, "signal": signal, "minutes": 60, "instance": ""}
    return (
        ("query_metrics", json.dumps(metrics)),
        ("recent_changes", json.dumps({"service": service, "minutes": 60})),
    )


def _told(asked: Asked, question: str) -> Say:
    """An answer in plain text: what was asked about is read first, and a plan made when the person wants one."""
    service, items = _line(asked.first, "Service"), evidence(asked.first, *asked.results)
    if asked.may_call and not asked.results:
        if "propose_plan" in asked.tools and _WANTS_PLAN.search(question):
            words = set(re.findall(r"[\w.-]+", question))
            names = sorted({one.about for one in items if one.about in words})
            return Say(
                calls=(("propose_plan", json.dumps({"action": "restart", "instances": names, "replicas": None})),)
            )
        signal = next((one for one, title in _TITLES.items() if title in question.lower()), "traffic")
        arguments = {"service": service, "signal": signal, "minutes": 120, "instance": ""}
        return Say("One moment.", calls=(("query_metrics", json.dumps(arguments)),))
    read = evidence(*asked.results) or items[:1]
    said = " ".join(f"{one.text.partition(' (')[0]} [{one.id}]." for one in read[:3])
    plain = [line for text in asked.results for line in text.splitlines() if not line.startswith("<")]
    return Say(said if evidence(*asked.results) or not plain else f"{plain[0]} See [{items[0].id}].")


def _chain(causes: Sequence[Item], effects: Sequence[Item]) -> tuple[Item, ...]:
    return next(((cause, effect) for cause in causes for effect in effects if cause.before(effect)), ())


def _shortly_before(change: Item, symptom: Item) -> bool:
    if change.since is None or symptom.since is None or not change.before(symptom):
        return False
    return (symptom.since - change.since).total_seconds() <= SHORTLY_S


def _worth_telling(found: Finding, service: str, items: Sequence[Item]) -> list[Item]:
    """The chain, what traffic and neighbours do, what runs; newest reading last. At most eight."""
    around = [
        one
        for one in items
        if (one.signal == "traffic" and one.service == service) or one.kind in ("topology", "target", "ranking")
    ]
    return list({one.id: one for one in (*found.chain, *around)}.values())[:8]


def _claim(one: Item) -> dict[str, Any]:
    quote = one.text[:QUOTE_CHARS]
    quote = quote if len(one.text) <= QUOTE_CHARS else quote.rpartition(" ")[0]
    return {"text": f"{quote}.", "evidence": [{"id": one.id, "quote": quote}]}


def _alternative(category: str) -> dict[str, str]:
    other = "bad_change" if category != "bad_change" else "saturation"
    return {"category": other, "root_cause": f"It may be {other}.", "why_not": "Less of what was read speaks for it."}


def _line(prompt: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", prompt, re.MULTILINE)
    return found[1] if found else ""


def _when(one: Item) -> float:
    return one.since.timestamp() if one.since is not None else float("inf")


def _of_messages(messages: Sequence[Mapping[str, Any]]) -> list[tuple[bool, str]]:
    blocks = [block for message in messages if message["role"] == "user" for block in message["content"]]
    return [
        (block["type"] == "tool_result", str(block["content"] if block["type"] == "tool_result" else block["text"]))
        for block in blocks
    ]


def _of_responses(items: Sequence[Mapping[str, Any]]) -> list[tuple[bool, str]]:
    said: list[tuple[bool, str]] = []
    for item in items:
        if item.get("type") == "function_call_output":
            said.append((True, str(item["output"])))
        elif item.get("role") == "user":
            said.append((False, str(item["content"])))
    return said


def _of_completions(messages: Sequence[Mapping[str, Any]]) -> list[tuple[bool, str]]:
    return [(one["role"] == "tool", str(one["content"])) for one in messages if one["role"] in ("tool", "user")]
