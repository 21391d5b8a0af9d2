"""One question to a telemetry source, bounded as a whole: whatever becomes of it, there is a reading."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from pipeline.domain.activity import ActivityReading
from pipeline.domain.changes import ChangeReading
from pipeline.domain.logs import LogReading
from pipeline.domain.spans import TraceReading
from pipeline.domain.telemetry import Reading, SourceFailure

log = logging.getLogger(__name__)

SAID_CHARACTERS = 200
AnyReading = TypeVar("AnyReading", Reading, LogReading, ChangeReading, TraceReading, ActivityReading)


async def ask(source: str, asking: Awaitable[AnyReading], kind: type[AnyReading], deadline_s: float) -> AnyReading:
    """What the source says, or a reading of ``kind`` with the failure alone: one source that hangs or breaks must not
    take those with it that are read at its side.

    Adapters bound each request, but a reading is many of them, and an adapter may be wrong.
    """
    bound = asyncio.timeout(deadline_s)
    try:
        async with bound:
            return await asking
    except Exception as error:
        if bound.expired():
            reason = f"no reading within {deadline_s:g} s; asked again at the next reading"
        else:
            log.exception("%s: internal error", source)
            reason = f"internal error: {' '.join(f'{type(error).__name__}: {error}'.split())[:SAID_CHARACTERS]}"
        return kind(failures=(SourceFailure(source, reason),))
