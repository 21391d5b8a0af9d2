"""Traces and the kernel as witnesses: what they say, and what is told of one that hangs or breaks."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.domain.activity import Activity, ActivityKind, ActivityReading
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import SpanSummary, Trace, TraceReading
from pipeline.stages import witnesses
from pipeline.stages.findings import Window
from pipeline.stages.witnesses import Witnesses
from tests.builders import CHECKOUT

NOW = datetime(2026, 11, 20, 14, 2, tzinfo=UTC)
WINDOW = Window(NOW - timedelta(minutes=5), NOW)
SAID = ["trace 4bf92f35 took 2.1 s", "checkout-1: 41 retransmits a second"]


class Witness:
    """Of traces and of the kernel."""

    name = "well"

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        await self._before()
        spans = (SpanSummary("a", "", service, "GET /", since, 2.1, error=False),)
        return TraceReading((Trace("4bf92f35", spans),))

    async def activity(self, service: ServiceName, since: datetime, until: datetime) -> ActivityReading:
        await self._before()
        seen = Activity(ActivityKind.NETWORK_FLOW, service, "checkout-1", until, "41 retransmits a second", 41.0)
        return ActivityReading((seen,))

    async def _before(self) -> None:
        """Answers at once."""

    async def close(self) -> None:
        """Nothing is open."""


class Hanging(Witness):
    name = "hanging"

    async def _before(self) -> None:
        await asyncio.Event().wait()


class Broken(Witness):
    name = "broken"

    async def _before(self) -> None:
        raise ZeroDivisionError("division\n by zero")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Hanging(), "hanging gave nothing: no reading within 0.05 s; asked again at the next reading"),
        (Broken(), "broken gave nothing: internal error: ZeroDivisionError: division by zero"),
    ],
)
async def test_a_witness_that_hangs_or_breaks_is_named_and_the_others_are_heard(
    trouble: Witness, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "SOURCE_DEADLINE_S", 0.05)
    well = Witness()
    heard = await Witnesses((trouble, well), (well, trouble)).hear(CHECKOUT, WINDOW)
    assert [item.statement for item in heard.items] == SAID
    assert heard.blind == (said, said)
    assert [entry.data["tool"] for entry in heard.entries] == [
        f"{trouble.name} traces",
        "well traces",
        "well activity",
        f"{trouble.name} activity",
    ]


async def test_when_the_diagnosis_is_given_up_the_witnesses_are_too() -> None:
    hearing = asyncio.create_task(Witnesses((Hanging(),), ()).hear(CHECKOUT, WINDOW))
    await asyncio.sleep(0)
    hearing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hearing
