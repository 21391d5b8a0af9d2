"""Reading more while a diagnosis is made: read-only tools with limits, one box for each investigation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel

from pipeline.domain.diagnosis import Evidence
from pipeline.domain.trace import JsonValue, TraceEntry

ToolStatus = Literal["ok", "empty", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as an author sees it. ``arguments`` is strict (extra keys refused); its JSON schema goes to the model."""

    name: str
    description: str
    arguments: type[BaseModel]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: new evidence, or in ``said`` why there is none (one line that tells what to do instead).

    ``refused``: unknown tool, wrong arguments, or a limit is reached. ``cached``: the same call was made before.
    """

    status: ToolStatus
    evidence: tuple[Evidence, ...] = ()
    said: str = ""
    cached: bool = False


class Toolbox(Protocol):
    """The tools of one investigation. Every call is counted, bounded in time and size, cached and traced."""

    @property
    def specs(self) -> Sequence[ToolSpec]: ...

    @property
    def evidence(self) -> Sequence[Evidence]:
        """Everything that calls have read so far, in the order of its ids."""
        ...

    @property
    def entries(self) -> Sequence[TraceEntry]:
        """One entry a call: arguments, status, latency, bytes, ids of the evidence."""
        ...

    @property
    def exhausted(self) -> str:
        """Why no more calls are answered (calls, bytes or time spent); empty while they are."""
        ...

    async def call(self, name: str, arguments: Mapping[str, JsonValue] | str) -> ToolResult:
        """Runs one tool; ``arguments`` as JSON text or parsed. Never raises: what went wrong stands in the result."""
        ...
