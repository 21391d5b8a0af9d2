"""The read-only tools of one investigation: every call checked, bounded, counted, cached and traced."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never, cast

from pydantic import ValidationError

from pipeline.domain.diagnosis import Evidence
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.toolbox import Toolbox, ToolResult, ToolSpec, ToolStatus
from pipeline.stages.findings import Ledger
from pipeline.stages.reads import Found, Reads
from pipeline.stages.tool_arguments import (
    SPECS,
    Asked,
    KernelActivity,
    KnowledgeSearch,
    KubernetesEvents,
    LogPatterns,
    QueryMetrics,
    RecentChanges,
    Running,
    SearchLogs,
    Topology,
    Traces,
)

log = logging.getLogger(__name__)
SAID_CHARS = 500
ARGUMENT_CHARS = 4000
"""No call in order is longer; what is longer is not even parsed."""


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """Of one investigation: ``calls`` of any kind, ``result_bytes`` of text over all; ``call_s`` bounds a single call,
    and whoever asks bounds the whole."""

    calls: int = 30
    result_bytes: int = 60_000
    call_s: float = 10.0


class IncidentTools(Toolbox):
    """Answers from the store and the providers. Calls may run side by side: ids and entries follow their order."""

    def __init__(self, reads: Reads, ledger: Ledger, limits: ToolLimits) -> None:
        self._reads = reads
        self._ledger = ledger
        self._limits = limits
        self._evidence: list[Evidence] = []
        self._entries: list[TraceEntry] = []
        self._calls = 0
        self._bytes = 0
        self._last: asyncio.Event | None = None
        self._running: dict[str, asyncio.Event] = {}
        self._known: dict[str, ToolResult] = {}

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return SPECS

    @property
    def evidence(self) -> Sequence[Evidence]:
        return tuple(self._evidence)

    @property
    def entries(self) -> Sequence[TraceEntry]:
        return tuple(self._entries)

    @property
    def exhausted(self) -> str:
        limits = self._limits
        if self._calls >= limits.calls:
            return f"all {limits.calls} calls are used"
        if self._bytes >= limits.result_bytes:
            return f"{limits.result_bytes} bytes of results are read, and no more are"
        return ""

    async def call(self, name: str, arguments: Mapping[str, JsonValue] | str) -> ToolResult:
        started, spent = time.monotonic(), self.exhausted
        self._calls += 1
        before, mine = self._last, asyncio.Event()
        self._last = mine
        shown: dict[str, JsonValue] = {}
        try:
            asked, problem = _parse(name, arguments)
            if asked is not None:
                shown = asked.model_dump(mode="json")
            found: Found | ToolResult
            if spent or asked is None:
                said = f"{spent}: conclude from what was read" if spent else problem
                found = ToolResult("refused", said=said)
            else:
                found = await self._once(asked, _canonical(name, shown), mine)
            latency_s = time.monotonic() - started
            if before is not None:
                await before.wait()
            result = self._written(found) if isinstance(found, Found) else found
            if result.status in ("ok", "empty"):
                self._known[_canonical(name, shown)] = result
            self._trace(name, shown, result, latency_s)
            return result
        finally:
            mine.set()

    async def _once(self, asked: Asked, key: str, mine: asyncio.Event) -> Found | ToolResult:
        """The answer, or the one that the same call got, or is getting just now."""
        running = self._running.get(key)
        if running is None:
            self._running[key] = mine
        else:
            await running.wait()
            if (known := self._known.get(key)) is not None:
                return replace(known, cached=True)
        bound = asyncio.timeout(self._limits.call_s)
        try:
            async with bound:
                service = "" if isinstance(asked, KnowledgeSearch) else asked.service
                if service and (problem := await self._reads.unknown(service)):
                    return ToolResult("refused", said=problem)
                return await _run(asked, self._reads)
        except (TemporaryError, PermanentError) as error:
            return Found((), str(error), failed=True)
        except Exception as error:
            if bound.expired():
                return Found((), f"no answer within {self._limits.call_s:g} s: ask for less", failed=True)
            log.exception("a tool broke")
            return Found((), f"internal error: {type(error).__name__}", failed=True)

    def _written(self, found: Found) -> ToolResult:
        """Gives ids, up to the bytes that are left."""
        items: list[Evidence] = []
        said = found.said[:SAID_CHARS]
        for number, fact in enumerate(found.facts):
            size = len(fact.statement.encode())
            if self._bytes + size > self._limits.result_bytes:
                said = f"{len(found.facts) - number} more are left out: the results are as long as they may be"
                self._bytes = self._limits.result_bytes
                break
            self._bytes += size
            item, new = self._ledger.add(fact)
            items.append(item)
            if new:
                self._evidence.append(item)
        status: ToolStatus = "ok" if items else "failed" if found.failed else "empty"
        return ToolResult(status, tuple(items), said)

    def _trace(self, name: str, asked: Mapping[str, JsonValue], result: ToolResult, latency_s: float) -> None:
        about = ", ".join(f"{key}={value}" for key, value in asked.items() if value not in ("", False))
        size = sum(len(item.statement.encode()) for item in result.evidence)
        ids: list[JsonValue] = [item.id for item in result.evidence]
        ms = round(latency_s * 1000, 1)
        status = f"{result.status}{', cached' if result.cached else ''}"
        summary = f"{name[:40]}({about[:200]}): {status}, {len(ids)} facts, {ms:.0f} ms"
        data: dict[str, JsonValue] = {
            "tool": name[:40],
            "arguments": dict(asked),
            "status": result.status,
            "cached": result.cached,
            "said": result.said,
            "latency_ms": ms,
            "bytes": size,
            "evidence": ids,
        }
        self._entries.append(TraceEntry(TraceKind.TOOL_CALL, summary, data))


def _parse(name: str, arguments: Mapping[str, JsonValue] | str) -> tuple[Asked | None, str]:
    """The arguments, or what is wrong with the call and what would be right."""
    spec = next((spec for spec in SPECS if spec.name == name), None)
    if spec is None:
        return None, f"there is no tool {name[:40]!r}; there are {', '.join(one.name for one in SPECS)}"
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        if len(text) > ARGUMENT_CHARS:
            return None, f"the arguments are longer than {ARGUMENT_CHARS} characters"
        json.loads(text or "{}", object_pairs_hook=_once_each)
        return cast(Asked, spec.arguments.model_validate_json(text or "{}")), ""
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()[:3])
        return None, "; ".join(wrong)[:SAID_CHARS]
    except (ValueError, TypeError, RecursionError) as error:
        return None, f"the arguments are no JSON object in order: {error}"[:SAID_CHARS]


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _canonical(name: str, asked: Mapping[str, JsonValue]) -> str:
    return f"{name} {json.dumps(asked, sort_keys=True)}"


async def _run(asked: Asked, reads: Reads) -> Found:
    match asked:
        case KnowledgeSearch():
            return await reads.knowledge(asked.query)
        case RecentChanges():
            return await reads.changes(ServiceName(asked.service) if asked.service else None, asked.minutes)
        case QueryMetrics():
            return await reads.metrics(ServiceName(asked.service), asked.signal, asked.instance, asked.minutes)
        case SearchLogs():
            return await reads.logs(ServiceName(asked.service), asked.text, asked.minutes)
        case LogPatterns():
            return await reads.patterns(ServiceName(asked.service), asked.minutes)
        case Traces():
            return await reads.traces(ServiceName(asked.service), asked.errors_only, asked.minutes)
        case KubernetesEvents():
            return await reads.events(ServiceName(asked.service), asked.minutes)
        case KernelActivity():
            return await reads.activity(ServiceName(asked.service), asked.minutes)
        case Topology():
            return await reads.topology(ServiceName(asked.service))
        case Running():
            return await reads.target(ServiceName(asked.service))
        case _:
            assert_never(asked)
