"""One reading of everything, with sources that are down, late or wrong, into a real database."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from bot.catalogue import CatalogueFile
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.changes import ChangeEvent, ChangeKind, ChangeReading
from pipeline.domain.detection.logs import LogDetector
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal, SourceFailure
from pipeline.stages import observe
from pipeline.stages.observe import LOG_LAG_S, LOG_LINES, TOPOLOGY_EVERY_S, Observer, Sources
from tests.builders import CHECKOUT, LATENCY, MEMORY, WEB

NOW = datetime.now(UTC).replace(microsecond=0)


class Scripted:
    """A provider for every port; says what it was given, one reading after the other, the last one for ever."""

    name = "scripted"

    def __init__(self, *readings: object) -> None:
        self._readings = list(readings)
        self.asked: list[tuple[object, ...]] = []

    def _next(self, *asked: object) -> object:
        self.asked.append(asked)
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]

    async def read(self, now: datetime) -> Reading:
        said = self._next(now)
        assert isinstance(said, Reading)
        return said

    async def edges(self, since: datetime, until: datetime) -> Reading:
        said = self._next(since, until)
        assert isinstance(said, Reading)
        return said

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        said = self._next(since, until)
        assert isinstance(said, ChangeReading)
        return said

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        said = self._next(since, until, limit)
        assert isinstance(said, LogReading)
        return said

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        raise NotImplementedError

    async def close(self) -> None:
        return


def observer_of(
    sources: Sources, store: PostgresStore, bank: BaselineBank | None = None, limit: int = 1000
) -> Observer:
    async def baselines() -> BaselineBank:
        return bank if bank is not None else BaselineBank()

    return Observer(sources, store, LogDetector(), baselines, CatalogueFile(None), max_series=limit)


def lines(message: str, count: int, until: datetime) -> Sequence[LogLine]:
    return [LogLine(until - timedelta(seconds=1 + number), CHECKOUT, message) for number in range(count)]


async def test_values_that_were_turned_away_are_counted_from_the_start(store: PostgresStore) -> None:
    source = Scripted(
        Reading((Sample(MEMORY, NOW, 0.5),), rejected={"not finite": 2}), Reading(rejected={"too old": 1})
    )
    observer = observer_of(Sources(metrics=(source,)), store)
    assert len(await observer.run(NOW)) == 1
    await observer.run(NOW + timedelta(seconds=15))
    async with store.begin() as uow:
        _, health = await uow.telemetry.health()
    assert dict(health.rejected) == {"not finite": 2, "too old": 1}


async def test_a_percentage_a_unit_that_changed_and_a_negative_rate_neither_alarm_nor_teach(
    store: PostgresStore,
) -> None:
    bank = BaselineBank()
    for _ in range(30):
        bank.learn([LATENCY], [0.2], NOW)
    traffic = SeriesKey(CHECKOUT, Signal.TRAFFIC)
    wrong = (Sample(MEMORY, NOW, 85.0), Sample(LATENCY, NOW, 210.0), Sample(traffic, NOW, -3.0))
    slow = Sample(LATENCY, NOW + timedelta(seconds=15), 30.0)
    source = Scripted(Reading(wrong), Reading((slow,)))
    observer = observer_of(Sources(metrics=(source,)), store, bank)
    assert len(await observer.run(NOW)) == 0
    assert len(await observer.run(slow.at)) == 1, "a queue may make it 150 times as slow"
    async with store.begin() as uow:
        _, health = await uow.telemetry.health()
    assert dict(health.rejected) == {
        "negative": 1,
        "no ratio (a percentage?)": 1,
        "another unit (milliseconds?)": 1,
    }


async def test_ten_times_the_series_overnight_are_counted_and_kept_out(store: PostgresStore) -> None:
    def pods(count: int, at: datetime) -> Reading:
        keys = [SeriesKey(CHECKOUT, Signal.MEMORY_RATIO, f"checkout-{number}") for number in range(count)]
        return Reading(tuple(Sample(key, at, 0.5) for key in keys))

    later = NOW + timedelta(seconds=15)
    observer = observer_of(Sources(metrics=(Scripted(pods(10, NOW), pods(100, later)),)), store, limit=20)
    assert len(await observer.run(NOW)) == 10
    assert len(await observer.run(later)) == 20
    async with store.begin() as uow:
        _, health = await uow.telemetry.health()
    assert dict(health.rejected) == {"series beyond SRE_MAX_SERIES": 80}


async def test_replicas_that_are_gone_make_room_for_new_ones(store: PostgresStore) -> None:
    def pods(first: int, at: datetime) -> Reading:
        keys = [SeriesKey(CHECKOUT, Signal.MEMORY_RATIO, f"checkout-{first + number}") for number in range(20)]
        return Reading(tuple(Sample(key, at, 0.5) for key in keys))

    soon, later = NOW + timedelta(minutes=30), NOW + timedelta(minutes=70)
    source = Scripted(pods(0, NOW), pods(20, soon), pods(40, later))
    observer = observer_of(Sources(metrics=(source,)), store, limit=20)
    assert [len(await observer.run(at)) for at in (NOW, soon, later)] == [20, 0, 20]


async def test_a_change_told_again_and_again_is_stored_once(store: PostgresStore) -> None:
    change = ChangeEvent(CHECKOUT, NOW, ChangeKind.DEPLOYMENT, "3f2a91c", "raise the pool", "alice")
    observer = observer_of(Sources(changes=(Scripted(ChangeReading((change,))),)), store)
    await observer.run(NOW)
    await observer.run(NOW + timedelta(seconds=15))
    async with store.begin() as uow:
        assert list(await uow.telemetry.changes(NOW - timedelta(hours=1))) == [change]
        assert list(await uow.telemetry.changes(NOW + timedelta(seconds=1))) == []


async def test_edges_are_asked_for_once_a_minute(store: PostgresStore) -> None:
    source = Scripted(Reading(edges=(CallEdge(WEB, CHECKOUT, 3.0),)))
    observer = observer_of(Sources(topology=(source,)), store)
    for after_s in (0, 15, 30, TOPOLOGY_EVERY_S):
        await observer.run(NOW + timedelta(seconds=after_s))
    assert len(source.asked) == 2
    async with store.begin() as uow:
        assert (await uow.telemetry.graph(max_age_s=3600)).callers(CHECKOUT) == {WEB}


async def test_each_line_is_read_once_and_a_flood_is_told(store: PostgresStore) -> None:
    source = Scripted(LogReading(truncated=True), LogReading())
    observer = observer_of(Sources(logs=(source,)), store)
    await observer.run(NOW)
    async with store.begin() as uow:
        _, health = await uow.telemetry.health()
    assert health.failures == (
        f"flood: more than {LOG_LINES} lines since the last reading; only the newest were looked at",
    )
    await observer.run(NOW + timedelta(seconds=15))
    lag = timedelta(seconds=LOG_LAG_S)
    assert source.asked[1] == (NOW - lag, NOW + timedelta(seconds=15) - lag, LOG_LINES)


async def test_lines_of_a_reading_that_failed_are_read_later(store: PostgresStore) -> None:
    source = Scripted(LogReading(failures=(SourceFailure("loki", "HTTP 503"),)), LogReading())
    observer = observer_of(Sources(logs=(source,)), store)
    for after_s in (0, 15, 30):
        await observer.run(NOW + timedelta(seconds=after_s))
    (first, _, _), (again, until, _), (third, _, _) = source.asked
    assert again == first + timedelta(seconds=15), "no more than it may catch up"
    assert third == until


async def test_a_pattern_that_was_never_seen_before_is_kept_for_the_incident(store: PostgresStore) -> None:
    calm = [LogReading(tuple(lines("GET /pay 200 in 12 ms", 20, NOW + timedelta(minutes=m)))) for m in range(60)]
    error = "ERROR card provider did not answer within 23 ms, payment refused"
    trouble = LogReading(tuple(lines(error, 40, NOW + timedelta(minutes=60))))
    source = Scripted(*calm, trouble)
    observer = observer_of(Sources(logs=(source,)), store)
    for minute in range(61):
        await observer.run(NOW + timedelta(minutes=minute))
    async with store.begin() as uow:
        patterns = await uow.telemetry.log_patterns(CHECKOUT, NOW)
        assert await uow.telemetry.log_patterns(WEB, NOW) == []
    assert [(one.kind, one.count >= 20) for one in patterns] == [("new", True)]
    assert patterns[0].sample == error


async def test_a_source_that_is_down_costs_its_own_part_alone(store: PostgresStore) -> None:
    down = Scripted(Reading(failures=(SourceFailure("prometheus", "Connection refused"),)))
    down.name = "prometheus"
    well = Scripted(Reading((Sample(MEMORY, NOW, 0.5),)))
    observer = observer_of(Sources(metrics=(down, well)), store)
    assert len(await observer.run(NOW)) == 1
    async with store.begin() as uow:
        told = {one.source: one.failures for one in await uow.telemetry.health()}
    assert told == {"catalogue": (), "prometheus": ("prometheus: Connection refused",), "scripted": ()}


class Hanging(Scripted):
    """Never answers; ``given_up`` counts the questions that were taken back."""

    name = "hanging"
    given_up = 0

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1

    async def read(self, now: datetime) -> Reading:
        await self._hang()
        return await super().read(now)

    async def edges(self, since: datetime, until: datetime) -> Reading:
        await self._hang()
        return await super().edges(since, until)

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        await self._hang()
        return await super().changes(since, until)

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        await self._hang()
        return await super().tail(since, until, limit=limit)


class Broken(Hanging):
    """Fails as no adapter should."""

    name = "broken"

    async def _hang(self) -> None:
        raise KeyError("no such\nrow")


@pytest.mark.parametrize("port", ["metrics", "topology", "changes", "logs"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Hanging, "hanging: no reading within 0.05 s; asked again at the next reading"),
        (Broken, "broken: internal error: KeyError: 'no such\\nrow'"),
    ],
)
async def test_a_source_that_hangs_or_breaks_costs_its_own_part_alone(
    store: PostgresStore, port: str, kind: type[Hanging], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "SOURCE_DEADLINE_S", 0.05)
    trouble = kind()
    change = ChangeEvent(CHECKOUT, NOW, ChangeKind.DEPLOYMENT, "3f2a91c", "raise the pool", "alice")

    def beside(at: str, well: Scripted) -> tuple[Scripted, ...]:
        return (trouble, well) if at == port else (well,)

    sources = Sources(
        metrics=beside("metrics", Scripted(Reading((Sample(MEMORY, NOW, 0.5),)))),
        topology=beside("topology", Scripted(Reading(edges=(CallEdge(WEB, CHECKOUT, 3.0),)))),
        changes=beside("changes", Scripted(ChangeReading((change,)))),
        logs=beside("logs", Scripted(LogReading())),
    )
    observer = observer_of(sources, store)
    assert len(await observer.run(NOW)) == 1
    assert len(await observer.run(NOW + timedelta(seconds=TOPOLOGY_EVERY_S))) == 1, "and the loop goes on"
    assert trouble.given_up == (2 if kind is Hanging else 0)
    async with store.begin() as uow:
        told = {one.source: one.failures for one in await uow.telemetry.health()}
        assert (await uow.telemetry.graph(max_age_s=3600)).callers(CHECKOUT) == {WEB}
        assert list(await uow.telemetry.changes(NOW - timedelta(hours=1))) == [change]
    assert told == {"catalogue": (), "scripted": (), trouble.name: (said,)}


async def test_what_is_wrong_with_a_provider_in_one_place_is_not_hidden_by_another(store: PostgresStore) -> None:
    refused = SourceFailure("kubernetes deployments", "HTTP 403")
    cluster = Scripted(ChangeReading(failures=(refused,)))
    cluster.name = "kubernetes"
    pods = Scripted(LogReading())
    pods.name = "kubernetes"
    await observer_of(Sources(changes=(cluster,), logs=(pods,)), store).run(NOW)
    async with store.begin() as uow:
        told = {one.source: one.failures for one in await uow.telemetry.health()}
    assert told == {"catalogue": (), "kubernetes": ("kubernetes deployments: HTTP 403",)}
