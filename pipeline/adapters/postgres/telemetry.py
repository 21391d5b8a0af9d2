"""Samples, baselines, edges and source health."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pipeline.adapters.postgres.pool import Connection
from pipeline.domain.baseline import BaselineRow
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogPattern
from pipeline.domain.telemetry import CallEdge, Sample, SeriesKey, Signal, SourceFailure
from pipeline.domain.topology import DependencyGraph
from pipeline.ports.samples import SourceHealth


class PostgresTelemetry:
    """``TelemetryStore`` on one connection. Writes go in as arrays: one statement for any number of rows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def save_samples(self, samples: Sequence[Sample]) -> None:
        # One statement may write a row once only, and a source may show one series under two of its own labels.
        samples = list({(sample.key, sample.at): sample for sample in samples}.values())
        await self._connection.execute(
            """INSERT INTO samples (service, signal, instance, at, value)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::float8[])
               ON CONFLICT (service, signal, instance, at) DO UPDATE SET value = excluded.value""",
            *_columns([sample.key for sample in samples]),
            [sample.at for sample in samples],
            [sample.value for sample in samples],
        )

    async def window(self, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        rows = await self._connection.fetch(
            "SELECT service, signal, instance, at, value FROM samples WHERE at >= $1 ORDER BY at", since
        )
        # In a thread: of thousands of series it takes longer than the loop may stand still.
        return await asyncio.to_thread(_by_series, rows)

    async def services_window(self, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        rows = await self._connection.fetch(
            "SELECT service, signal, instance, at, value FROM samples WHERE at >= $1 AND instance = '' ORDER BY at",
            since,
        )
        return await asyncio.to_thread(_by_series, rows)

    async def service_window(self, service: ServiceName, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        rows = await self._connection.fetch(
            """SELECT service, signal, instance, at, value FROM samples
               WHERE service = $1 AND at >= $2 ORDER BY at""",
            service,
            since,
        )
        return _by_series(rows)

    async def save_edges(self, edges: Sequence[CallEdge], at: datetime) -> None:
        edges = list({(edge.caller, edge.callee): edge for edge in edges}.values())
        await self._connection.execute(
            """INSERT INTO edges (caller, callee, calls_per_s, last_seen_at)
               SELECT caller, callee, rate, $4
               FROM unnest($1::text[], $2::text[], $3::float8[]) AS seen (caller, callee, rate)
               ON CONFLICT (caller, callee) DO UPDATE
               SET calls_per_s = excluded.calls_per_s, last_seen_at = excluded.last_seen_at""",
            [edge.caller for edge in edges],
            [edge.callee for edge in edges],
            [edge.calls_per_s for edge in edges],
            at,
        )

    async def graph(self, *, max_age_s: float) -> DependencyGraph:
        rows = await self._connection.fetch(
            """SELECT caller, callee, calls_per_s FROM edges
               WHERE last_seen_at > clock_timestamp() - make_interval(secs => $1)""",
            max_age_s,
        )
        return DependencyGraph.of(
            CallEdge(ServiceName(row["caller"]), ServiceName(row["callee"]), row["calls_per_s"]) for row in rows
        )

    async def save_health(
        self, source: str, failures: Sequence[SourceFailure], at: datetime, rejected: Mapping[str, int]
    ) -> None:
        await self._connection.execute(
            """INSERT INTO source_health (source, failures, read_at, rejected) VALUES ($1, $2, $3, $4)
               ON CONFLICT (source) DO UPDATE
               SET failures = excluded.failures, read_at = excluded.read_at, rejected = excluded.rejected""",
            source,
            [f"{failure.source}: {failure.reason}" for failure in failures],
            at,
            dict(rejected),
        )

    async def health(self) -> Sequence[SourceHealth]:
        rows = await self._connection.fetch(
            "SELECT source, failures, read_at, rejected FROM source_health ORDER BY source"
        )
        return [SourceHealth(row["source"], tuple(row["failures"]), row["read_at"], row["rejected"]) for row in rows]

    async def save_changes(self, changes: Sequence[ChangeEvent]) -> None:
        # A source tells of a change at every reading of its window: the first word stands.
        await self._connection.execute(
            """INSERT INTO changes (service, kind, revision, at, title, author)
               SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
               ON CONFLICT (service, kind, revision) DO NOTHING""",
            [change.service for change in changes],
            [change.kind.value for change in changes],
            [change.revision for change in changes],
            [change.at for change in changes],
            [change.title for change in changes],
            [change.author for change in changes],
        )

    async def changes(self, since: datetime) -> Sequence[ChangeEvent]:
        rows = await self._connection.fetch(
            "SELECT service, at, kind, revision, title, author FROM changes WHERE at >= $1 ORDER BY at", since
        )
        return [
            ChangeEvent(
                ServiceName(row["service"]),
                row["at"],
                ChangeKind(row["kind"]),
                row["revision"],
                row["title"],
                row["author"],
            )
            for row in rows
        ]

    async def save_log_patterns(self, patterns: Sequence[LogPattern]) -> None:
        await self._connection.executemany(
            """INSERT INTO log_patterns (service, template, kind, started_at, seen_at, count, expected, sample)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT (service, template, started_at) DO UPDATE
               SET seen_at = excluded.seen_at, count = excluded.count, sample = excluded.sample""",
            [
                (
                    pattern.service,
                    pattern.template,
                    pattern.kind,
                    pattern.started_at,
                    pattern.seen_at,
                    pattern.count,
                    pattern.expected,
                    pattern.sample,
                )
                for pattern in patterns
            ],
        )

    async def log_patterns(self, service: ServiceName, since: datetime) -> Sequence[LogPattern]:
        rows = await self._connection.fetch(
            """SELECT service, template, kind, started_at, seen_at, count, expected, sample FROM log_patterns
               WHERE service = $1 AND seen_at >= $2 ORDER BY count DESC, template LIMIT 50""",
            service,
            since,
        )
        return [LogPattern(**{**row, "service": ServiceName(row["service"])}) for row in rows]

    async def load_baselines(self) -> Sequence[BaselineRow]:
        rows = await self._connection.fetch("SELECT service, signal, instance, state, generated_samples FROM baselines")
        return [BaselineRow(_key(row), row["state"], row["generated_samples"]) for row in rows]

    async def save_baselines(self, rows: Sequence[BaselineRow]) -> None:
        await self._connection.execute(
            """INSERT INTO baselines (service, signal, instance, state, generated_samples, updated_at)
               SELECT *, clock_timestamp() FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[])
               ON CONFLICT (service, signal, instance) DO UPDATE SET
                   state = excluded.state, generated_samples = excluded.generated_samples,
                   updated_at = excluded.updated_at""",
            *_columns([row.key for row in rows]),
            [row.state for row in rows],
            [row.generated_samples for row in rows],
        )

    async def prune(self, *, keep_s: float) -> int:
        status = await self._connection.execute(
            "DELETE FROM samples WHERE at < clock_timestamp() - make_interval(secs => $1)", keep_s
        )
        for table in ("ticks", "seen_requests", "changes"):
            await self._connection.execute(
                f"DELETE FROM {table} WHERE at < clock_timestamp() - make_interval(secs => $1)",  # noqa: S608 - constants
                keep_s,
            )
        await self._connection.execute(
            "DELETE FROM outbox WHERE state = 'done' AND done_at < clock_timestamp() - make_interval(secs => $1)",
            keep_s,
        )
        # A replica's name seldom comes back, a service's does: what a service is like is kept for good.
        await self._connection.execute(
            "DELETE FROM baselines WHERE instance <> '' AND updated_at < clock_timestamp() - interval '7 days'"
        )
        await self._connection.execute(
            "DELETE FROM log_patterns WHERE seen_at < clock_timestamp() - make_interval(secs => $1)", keep_s
        )
        return int(status.split()[-1])


def _columns(keys: Sequence[SeriesKey]) -> tuple[list[str], list[str], list[str]]:
    return [key.service for key in keys], [key.signal.value for key in keys], [key.instance for key in keys]


def _key(row: Mapping[str, str]) -> SeriesKey:
    return SeriesKey(ServiceName(row["service"]), Signal(row["signal"]), row["instance"])


def _by_series(rows: Iterable[Mapping[str, object]]) -> dict[SeriesKey, list[Sample]]:
    series: dict[SeriesKey, list[Sample]] = {}
    for row in rows:
        key = SeriesKey(ServiceName(str(row["service"])), Signal(str(row["signal"])), str(row["instance"]))
        at, value = row["at"], row["value"]
        assert isinstance(at, datetime)
        assert isinstance(value, float)
        series.setdefault(key, []).append(Sample(key, at, value))
    return series
