"""Toolboxes for questions: one that has nothing, and one that answers as scripted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from pipeline.domain.diagnosis import Evidence
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.toolbox import Toolbox, ToolResult, ToolSpec


class AnyArguments(BaseModel):
    """Takes whatever it is called with."""

    model_config = ConfigDict(extra="allow")


@dataclass
class ScriptedToolbox(Toolbox):
    """Answers a tool's calls one after the other with what ``answers`` holds for it; refuses what it does not know.

    ``asked`` keeps every call as (name, arguments as parsed). ``calls``: how many it answers before it is exhausted.
    """

    answers: Mapping[str, Sequence[ToolResult]] = field(default_factory=dict)
    calls: int = 100
    tools: Sequence[ToolSpec] = ()
    asked: list[tuple[str, dict[str, JsonValue]]] = field(default_factory=list)
    found: list[Evidence] = field(default_factory=list)
    trail: list[TraceEntry] = field(default_factory=list)

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return self.tools or tuple(ToolSpec(name, f"scripted {name}", AnyArguments) for name in self.answers)

    @property
    def evidence(self) -> Sequence[Evidence]:
        return tuple(self.found)

    @property
    def entries(self) -> Sequence[TraceEntry]:
        return tuple(self.trail)

    @property
    def exhausted(self) -> str:
        return f"all {self.calls} calls are used" if len(self.asked) >= self.calls else ""

    async def call(self, name: str, arguments: Mapping[str, JsonValue] | str) -> ToolResult:
        exhausted = self.exhausted
        parsed: dict[str, JsonValue] = json.loads(arguments) if isinstance(arguments, str) else dict(arguments)
        before = sum(one == name for one, _ in self.asked)
        self.asked.append((name, parsed))
        scripted = self.answers.get(name, ())
        if exhausted:
            result = ToolResult("refused", said=exhausted)
        elif name not in self.answers:
            result = ToolResult("refused", said=f"there is no tool {name!r}")
        elif before >= len(scripted):
            result = ToolResult("empty", said="nothing more")
        else:
            result = scripted[before]
        self.found += [item for item in result.evidence if item not in self.found]
        ids: list[JsonValue] = [item.id for item in result.evidence]
        data: dict[str, JsonValue] = {"tool": name, "arguments": parsed, "status": result.status, "evidence": ids}
        self.trail.append(TraceEntry(TraceKind.TOOL_CALL, f"{name}: {result.status}", data))
        return result


def no_tools() -> ScriptedToolbox:
    """Refuses every call."""
    return ScriptedToolbox()
