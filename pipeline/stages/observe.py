"""Telemetry into the store: what was read, what could not be, and who calls whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from pipeline.domain.telemetry import Reading
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.store import Store


async def observe(sources: Sequence[MetricsSource], store: Store, now: datetime) -> int:
    """Reads every source once and records it in one transaction. Returns the number of samples."""
    readings: list[Reading] = await asyncio.gather(*(source.read(now) for source in sources))
    async with store.begin() as uow:
        for source, reading in zip(sources, readings, strict=True):
            if reading.samples:
                await uow.telemetry.save_samples(reading.samples)
            if reading.edges:
                await uow.telemetry.save_edges(reading.edges, now)
            await uow.telemetry.save_health(source.name, reading.failures, now)
    return sum(len(reading.samples) for reading in readings)
