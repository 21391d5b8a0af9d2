"""Samples, baselines, edges and source health in a real PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.baseline import BaselineBank, BaselineRow
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Sample, SeriesKey, Signal, SourceFailure
from pipeline.ports.samples import SourceHealth
from tests.builders import CHECKOUT, LATENCY, MEMORY, T0, WEB, after, make_samples

PAYMENTS = ServiceName("payments")
TRAFFIC = SeriesKey(WEB, Signal.TRAFFIC)


async def test_a_window_holds_every_series_oldest_first(store: PostgresStore) -> None:
    memory = make_samples(MEMORY, [0.5, 0.6, 0.7], start=T0)
    latency = make_samples(LATENCY, [0.2, 0.3], start=T0)
    traffic = make_samples(TRAFFIC, [10.0], start=T0)
    async with store.begin() as uow:
        await uow.telemetry.save_samples([*reversed(memory), *traffic])
        await uow.telemetry.save_samples(latency)
        await uow.telemetry.save_samples([])
        assert await uow.telemetry.window(T0) == {MEMORY: memory, LATENCY: latency, TRAFFIC: traffic}
        assert await uow.telemetry.window(after(10)) == {MEMORY: memory[1:], LATENCY: latency[1:]}
        assert await uow.telemetry.service_window(CHECKOUT, after(20)) == {MEMORY: memory[2:]}
        assert await uow.telemetry.service_window(PAYMENTS, T0) == {}
        assert await uow.telemetry.services_window(T0) == {LATENCY: latency, TRAFFIC: traffic}


async def test_a_sample_read_twice_is_kept_once(store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.telemetry.save_samples([Sample(MEMORY, T0, 0.5)])
        await uow.telemetry.save_samples([Sample(MEMORY, T0, 0.6)])
        assert await uow.telemetry.window(T0) == {MEMORY: [Sample(MEMORY, T0, 0.6)]}


async def test_a_reading_may_say_the_same_twice(store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.telemetry.save_samples([Sample(MEMORY, T0, 0.5), Sample(LATENCY, T0, 0.2), Sample(MEMORY, T0, 0.6)])
        assert await uow.telemetry.window(T0) == {
            MEMORY: [Sample(MEMORY, T0, 0.6)],
            LATENCY: [Sample(LATENCY, T0, 0.2)],
        }
        await uow.telemetry.save_edges([CallEdge(WEB, CHECKOUT, 1.0), CallEdge(WEB, CHECKOUT, 2.0)], datetime.now(UTC))
        assert (await uow.telemetry.graph(max_age_s=60)).edges == {(WEB, CHECKOUT)}


async def test_edges_are_forgotten_when_nobody_calls_any_more(store: PostgresStore, sql: Connection) -> None:
    now = datetime.now(UTC)
    async with store.begin() as uow:
        await uow.telemetry.save_edges([CallEdge(WEB, CHECKOUT, 3.0), CallEdge(CHECKOUT, PAYMENTS, 2.0)], now)
        await uow.telemetry.save_edges([CallEdge(WEB, CHECKOUT, 4.0)], now - timedelta(hours=2))
        await uow.telemetry.save_edges([], now)
        graph = await uow.telemetry.graph(max_age_s=3600)
    assert graph.edges == {(CHECKOUT, PAYMENTS)}
    async with store.begin() as uow:
        await uow.telemetry.save_edges([CallEdge(WEB, CHECKOUT, 5.0)], now)
        graph = await uow.telemetry.graph(max_age_s=3600)
    assert graph.callers(PAYMENTS) == {WEB, CHECKOUT}
    assert await sql.fetchval("SELECT calls_per_s FROM edges WHERE caller = 'web'") == 5.0


async def test_a_sources_last_reading_is_kept(store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.telemetry.save_health("scrape", [SourceFailure("web-1", "refused")], T0, {"too old": 2})
        await uow.telemetry.save_health("prometheus", [], T0, {})
        assert await uow.telemetry.health() == [
            SourceHealth("prometheus", (), T0),
            SourceHealth("scrape", ("web-1: refused",), T0, {"too old": 2}),
        ]
        await uow.telemetry.save_health("scrape", [], after(10), {})
        assert (await uow.telemetry.health())[1] == SourceHealth("scrape", (), after(10))


async def test_baselines_survive_a_restart(store: PostgresStore) -> None:
    bank = BaselineBank()
    for number in range(100):
        bank.learn([MEMORY, LATENCY], [0.4 + number / 1000, 0.2], after(number), generated=number < 50)
    async with store.begin() as uow:
        await uow.telemetry.save_baselines([])
        await uow.telemetry.save_baselines(bank.rows([MEMORY, LATENCY]))
    bank.learn([MEMORY], [0.5], after(200))
    async with store.begin() as uow:
        await uow.telemetry.save_baselines(bank.rows([MEMORY]))
        loaded = BaselineBank(await uow.telemetry.load_baselines())
    assert set(loaded) == {MEMORY, LATENCY}
    for key in (MEMORY, LATENCY):
        assert loaded.expect(key, T0) == bank.expect(key, T0)
        assert loaded.expect(key, T0).generated


async def test_a_baseline_comes_back_to_the_last_bit(store: PostgresStore) -> None:
    row = BaselineRow(MEMORY, bytes(range(256)) * 9, 7)
    async with store.begin() as uow:
        await uow.telemetry.save_baselines([row])
        assert await uow.telemetry.load_baselines() == [row]


async def test_pruning_takes_what_is_past_its_time_by_the_databases_clock(
    store: PostgresStore, sql: Connection
) -> None:
    now = await sql.fetchval("SELECT clock_timestamp()")
    samples = make_samples(MEMORY, [0.1, 0.2, 0.3], start=now - timedelta(seconds=7300), step_s=3600)
    async with store.begin() as uow:
        await uow.telemetry.save_samples(samples)
        await uow.control.win_tick("detect", 1)
        await uow.control.first_time("envelope-1")
    await sql.execute("UPDATE ticks SET at = at - interval '2 hours'")
    async with store.begin() as uow:
        await uow.control.win_tick("detect", 2)
        assert await uow.telemetry.prune(keep_s=4000) == 1
        assert await uow.telemetry.window(T0 - timedelta(days=9999)) == {MEMORY: samples[1:]}
        assert not await uow.control.win_tick("detect", 2)
        assert not await uow.control.first_time("envelope-1")
        assert await uow.telemetry.prune(keep_s=1e9) == 0


async def test_values_come_back_to_the_last_bit(store: PostgresStore) -> None:
    samples = make_samples(MEMORY, [float("inf"), -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2], start=T0)
    async with store.begin() as uow:
        await uow.telemetry.save_samples(samples)
        assert await uow.telemetry.window(T0) == {MEMORY: samples}


async def test_baselines_of_replicas_long_gone_are_deleted_and_those_of_services_kept(
    store: PostgresStore, sql: Connection
) -> None:
    other = replace(MEMORY, instance="checkout-2")
    async with store.begin() as uow:
        await uow.telemetry.save_baselines([BaselineRow(key, b"", 0) for key in (MEMORY, LATENCY, other)])
    await sql.execute("UPDATE baselines SET updated_at = updated_at - interval '8 days' WHERE instance <> 'checkout-2'")
    async with store.begin() as uow:
        await uow.telemetry.prune(keep_s=86_400)
        assert {row.key for row in await uow.telemetry.load_baselines()} == {LATENCY, other}
