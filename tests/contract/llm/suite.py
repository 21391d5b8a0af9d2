"""What every wire format has to do: servers that speak the real ones are given a script in our own words.

A server judges what it is asked as the real API does, and answers 400 where that would.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from pipeline.adapters.llm.chat import ChatModel
from pipeline.domain.diagnosis import Evidence, Passage, Sign
from pipeline.domain.facts import Facts
from pipeline.domain.ids import EvidenceId, ServiceName
from pipeline.domain.trace import JsonValue, TraceEntry
from pipeline.ports.model import Question
from pipeline.ports.toolbox import ToolResult, ToolSpec
from tests.builders import CHECKOUT, after, make_anomaly

KEY = "sk-local-test-key"
SECRET = "hunter2"

MEMORY_HIGH = "memory use of checkout-1 is 93 %, above its bound of 85 % since 14:02:00 UTC"
MEMORY_GROWS = "memory use of checkout-1 grew by 2.1 % of its limit a minute"
TRAFFIC_USUAL = "traffic of checkout is 12 /s (baseline 12 /s, 1.0× of it)"
POOL_FULL = "connections of payments: 200 of 200 in use"

HYPOTHESIS: dict[str, Any] = {
    "conclusion": "cause",
    "category": "memory",
    "root_cause": "checkout-1 leaks.",
    "suspect_instances": ["checkout-1"],
    "claims": [
        {"text": "It grows.", "evidence": [{"id": "E2", "quote": "grew by 2.1 %"}]},
        {"text": "Traffic is as usual.", "evidence": [{"id": "E3", "quote": "1.0× of it"}]},
    ],
    "path": [
        {"what": "memory leaks", "service": "checkout", "evidence": ["E2"]},
        {"what": "memory is above its bound", "service": "checkout", "evidence": ["E1"]},
    ],
    "alternatives": [{"category": "saturation", "root_cause": "more load", "why_not": "traffic is as usual"}],
    "missing": ["a heap dump"],
    "certainty": 0.9,
}
GOOD = json.dumps(HYPOTHESIS)


@dataclass(frozen=True, slots=True)
class Say:
    """An answer of the model. ``calls`` are (name, arguments as JSON text)."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    stop: Literal["end", "length", "refusal"] = "end"
    cached: int = 300


@dataclass(frozen=True, slots=True)
class Fail:
    """An error of the API."""

    status: int
    kind: str = "error"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Oddly:
    """Something else with a 200."""

    body: str
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream that ends before its end; the answer begins to come."""

    text: str = "It looks like "


@dataclass(frozen=True, slots=True)
class Drip:
    """A byte now and then, for ever."""


@dataclass(frozen=True, slots=True)
class FailInStream:
    """An error event after the stream began with a 200."""

    kind: str = "overloaded_error"


Step = Say | Fail | Oddly | Cut | Drip | FailInStream


class ModelServer(ABC):
    """Answers request after request as the script says; its last step repeats. Sent: 1,500 tokens, written: 150."""

    path: str

    def __init__(self) -> None:
        self.script: list[Step] = [Say(GOOD)]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.refusals: list[str] = []
        """What was wrong with requests that got a 400."""
        self.url = ""
        self.delay_s = 0.0
        """Before each answer."""

    def step(self, asked: dict[str, Any]) -> Step:
        """The next step of the script; ``asked`` is the request."""
        return self.script[0] if len(self.script) == 1 else self.script.pop(0)

    @abstractmethod
    def model(self, *, max_retries: int = 0) -> ChatModel:
        """The adapter under test, pointed here."""

    @abstractmethod
    def wrong(self, request: dict[str, Any]) -> str:
        """Why the real API would answer 400; empty when it would not."""

    @abstractmethod
    def body(self, say: Say) -> dict[str, Any]:
        """A whole answer."""

    @abstractmethod
    def events(self, say: Say) -> list[tuple[str, dict[str, Any] | str]]:
        """The same as a stream: (event name, data)."""

    @abstractmethod
    def error(self, kind: str, said: str) -> dict[str, Any]:
        """The body of an error."""

    @abstractmethod
    def error_event(self, kind: str) -> tuple[str, dict[str, Any]]:
        """An error inside a stream."""

    @abstractmethod
    def first_text(self, request: dict[str, Any]) -> str:
        """What the user said first."""

    @abstractmethod
    def results(self, request: dict[str, Any]) -> list[str]:
        """The results of tools in it, oldest first."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        app = web.Application()
        app.router.add_post(self.path, self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.headers.append(request.headers)
        if wrong := self.wrong(asked):
            self.refusals.append(wrong)
            return web.json_response(self.error("invalid_request_error", wrong), status=400)
        self.requests.append(asked)
        step = self.step(asked)
        await asyncio.sleep(self.delay_s)
        streamed = bool(asked.get("stream"))
        match step:
            case Fail(status, kind, headers):
                said = f"said the server\nto {KEY}"
                return web.json_response(self.error(kind, said), status=status, headers=dict(headers))
            case Oddly(body, content_type):
                return web.Response(text=body, content_type=content_type)
            case Drip():
                return await self._drip(request, "text/event-stream" if streamed else "application/json")
            case Say() if not streamed:
                return web.json_response(self.body(step))
            case Say():
                return await self._stream(request, self.events(step))
            case Cut(text):
                events = self.events(Say(text))
                return await self._stream(request, events[: len(events) // 2])
            case FailInStream(kind):
                return await self._stream(request, [*self.events(Say("It "))[:2], self.error_event(kind)])

    async def _stream(
        self, request: web.Request, events: Sequence[tuple[str, dict[str, Any] | str]]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for name, data in events:
            line = data if isinstance(data, str) else json.dumps(data)
            named = f"event: {name}\n" if name else ""
            await response.write(f"{named}data: {line}\n\n".encode())
        await response.write_eof()
        return response

    async def _drip(self, request: web.Request, content_type: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": content_type})
        await response.prepare(request)
        while True:
            await response.write(b" " if "json" in content_type else b": still there\n\n")
            await asyncio.sleep(0.02)


class ReadLogs(BaseModel):
    """Arguments as the real tools have them: one needed, one with a default, one that may be absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str
    minutes: int = 10
    pattern: str | None = None


@dataclass(slots=True)
class FakeTools:
    """A toolbox with one tool, which finds a new fact about a service at every call."""

    limit: int = 100
    evidence: list[Evidence] = field(default_factory=list)
    entries: list[TraceEntry] = field(default_factory=list)
    called: list[tuple[str, str]] = field(default_factory=list)
    running: int = 0
    at_once: int = 0
    first_id: int = 11
    statement: str = POOL_FULL

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return (ToolSpec("read_logs", "Reads logs of a service.", ReadLogs),)

    @property
    def exhausted(self) -> str:
        return "" if len(self.called) < self.limit else f"{self.limit} calls were made"

    async def call(self, name: str, arguments: Mapping[str, JsonValue] | str) -> ToolResult:
        assert isinstance(arguments, str)
        self.called.append((name, arguments))
        self.running += 1
        self.at_once = max(self.at_once, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if name != "read_logs":
            return ToolResult("refused", said=f"there is no tool {name}; there is read_logs")
        try:
            wanted = ReadLogs.model_validate_json(arguments)
        except ValueError:
            return ToolResult("refused", said="these arguments do not fit: service is needed")
        if wanted.service == "nowhere":
            return ToolResult("empty", said="no such service")
        fact = make_fact(self.first_id + len(self.evidence), self.statement, service="payments", sign=Sign.ABNORMAL)
        self.evidence.append(fact)
        return ToolResult("ok", (fact,))


def make_fact(
    number: int, statement: str, *, service: str = "checkout", sign: Sign = Sign.STATED, subject: str = ""
) -> Evidence:
    return Evidence(
        EvidenceId(f"E{number}"),
        "metric",
        statement,
        f"read {service}",
        after(-600),
        after(70),
        subject or service,
        ServiceName(service),
        sign,
        began=after(0) if sign is not Sign.STATED else None,
    )


def make_question(tools: FakeTools | None = None, *statements: str) -> Question:
    """A leak in ``checkout-1``; what ``statements`` say comes as E4, E5, …."""
    evidence = [
        make_fact(1, MEMORY_HIGH, sign=Sign.ABNORMAL, subject="checkout-1"),
        make_fact(2, MEMORY_GROWS, sign=Sign.ABNORMAL, subject="checkout-1"),
        make_fact(3, TRAFFIC_USUAL, sign=Sign.NORMAL),
        *(make_fact(number, statement) for number, statement in enumerate(statements, start=4)),
    ]
    return Question(
        CHECKOUT,
        (make_anomaly(),),
        evidence,
        (Passage("memory-leak.md", "Memory leak › Remediation", "1. Restart the leaking replicas.", 0.62, "vector"),),
        Facts(traffic_ratio=1.0, memory_ratio_by_instance={"checkout-1": 0.93, "checkout-2": 0.46}, replicas=2),
        tools or FakeTools(),
    )


def redact(text: str) -> str:
    return text.replace(SECRET, "‹secret›")
