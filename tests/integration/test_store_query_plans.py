"""The queries that run all day use their indexes, on tables as large as months of work make them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.adapters.postgres.executions import PostgresExecutions
from pipeline.adapters.postgres.incidents import PostgresIncidents
from pipeline.adapters.postgres.outbox import PostgresOutbox
from pipeline.adapters.postgres.plans import PostgresPlans
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.telemetry import PostgresTelemetry
from pipeline.adapters.postgres.trace import PostgresTrace
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.lifecycle import IncidentState

FILL = """
INSERT INTO samples SELECT 'service-' || s, 'latency_p99', '', now() - make_interval(secs => t * 10), 0.2
    FROM generate_series(1, 10) s, generate_series(1, 4000) t;
INSERT INTO incidents (fingerprint, state, service, environment, family, severity, title)
    SELECT 'f' || n, CASE WHEN n > 4990 THEN 'open' ELSE 'closed' END, 'checkout', 'demo', 'memory',
           'SEV' || (1 + n % 4), 'title' FROM generate_series(1, 5000) n;
INSERT INTO plans (incident_id, revision, action, generation, replicas_before, hash, state, approvals_needed,
                   expected_effect, expires_at)
    SELECT n, 1, '{}', '', 1, 'h', CASE WHEN n > 4995 THEN 'proposed' ELSE 'approved' END, 1, '', now() - interval '1 s'
    FROM generate_series(1, 5000) n;
INSERT INTO executions (plan_id, incident_id, kind, state, target, target_uid)
    SELECT n, n, 'apply', CASE WHEN n > 4997 THEN 'ready' WHEN n > 4995 THEN 'unknown' ELSE 'verified' END, '{}',
           'uid-' || n FROM generate_series(1, 5000) n;
INSERT INTO outbox (incident_id, payload, state)
    SELECT 1 + n % 5000, '{"kind": "thread", "part": "line", "text": "said"}',
           CASE WHEN n > 39990 THEN 'pending' ELSE 'done' END FROM generate_series(1, 40000) n;
INSERT INTO trace (incident_id, kind, summary, data)
    SELECT 1 + n % 200, 'note', 'said', '{}' FROM generate_series(1, 4000) n;
ANALYZE;
"""


class Explaining:
    """Stands where a store expects its connection, and has its one statement explained instead of run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plan: dict[str, Any] = {}

    async def fetch(self, query: str, *values: object) -> list[object]:
        explained = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *values)
        self.plan = json.loads(explained)[0]["Plan"]
        return []

    async def fetchrow(self, query: str, *values: object) -> None:
        await self.fetch(query, *values)

    async def fetchval(self, query: str, *values: object) -> None:
        await self.fetch(query, *values)

    def nodes(self) -> list[dict[str, Any]]:
        def below(node: dict[str, Any]) -> list[dict[str, Any]]:
            return [node, *(one for child in node.get("Plans", ()) for one in below(child))]

        return below(self.plan)

    @property
    def read_whole(self) -> set[str]:
        return {node["Relation Name"] for node in self.nodes() if node["Node Type"] == "Seq Scan"}

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes() if "Index Name" in node}


Ask = Callable[[Any], Awaitable[object]]
NOW = datetime.now(UTC)
QUERIES: dict[str, tuple[set[str], Ask]] = {
    "incidents claim": (
        {"incidents_work"},
        lambda c: PostgresIncidents(c).claim(
            (IncidentState.OPEN, IncidentState.DIAGNOSING), worker="one", lease_s=15.0
        ),
    ),
    "incidents open": ({"incidents_work"}, lambda c: PostgresIncidents(c).open()),
    "outbox claim": ({"outbox_pending"}, lambda c: PostgresOutbox(c).claim(worker="one", lease_s=15.0)),
    "samples window": ({"samples_at"}, lambda c: PostgresTelemetry(c).window(NOW - timedelta(minutes=8))),
    "samples of a service": (
        {"samples_at", "samples_pkey"},
        lambda c: PostgresTelemetry(c).service_window(ServiceName("service-3"), NOW - timedelta(minutes=8)),
    ),
    "executions claim": (
        {"executions_open_target"},
        lambda c: PostgresExecutions(c).claim(worker="one", lease_s=15.0),
    ),
    "executions take over": (
        {"executions_open_target"},
        lambda c: PostgresExecutions(c).take_over(worker="one", lease_s=15.0),
    ),
    "plans waiting": ({"plans_one_open"}, lambda c: PostgresPlans(c).waiting()),
    "plans expired": ({"plans_one_open"}, lambda c: PostgresPlans(c).expired()),
    "trace": ({"trace_pkey"}, lambda c: PostgresTrace(c, lambda entry: entry).read(IncidentId(7))),
}


async def test_hot_queries_use_their_indexes(sql: Connection) -> None:
    """One test for all, as filling the tables takes longer than asking."""
    await sql.execute(FILL)
    await sql.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    wrong = {}
    for name, (wanted, ask) in QUERIES.items():
        explaining = Explaining(sql)
        await ask(explaining)
        if explaining.read_whole or not wanted & explaining.indexes:
            wrong[name] = (explaining.indexes, explaining.read_whole)
    assert not wrong
