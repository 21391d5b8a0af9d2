"""Incidents and their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.adapters.postgres import cases
from pipeline.adapters.postgres.pool import Connection, storable
from pipeline.adapters.postgres.records import (
    CHANGE,
    DIAGNOSIS,
    INCIDENT_COLUMNS,
    PASSAGES,
    SEVERITY,
    VERIFICATION,
    incident,
)
from pipeline.domain.anomaly import Anomaly
from pipeline.domain.diagnosis import Diagnosis, Evidence, Passage
from pipeline.domain.ids import IncidentId, ServiceName, SlackUserId
from pipeline.domain.incident import Case, Incident, fingerprint
from pipeline.domain.lifecycle import FINAL_INCIDENT_STATES, QUIET_INCIDENT_STATES, IncidentState
from pipeline.domain.severity import SeverityResult
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.domain.verification import Verification
from pipeline.ports.store import CardPlace

_FINAL = [state.value for state in FINAL_INCIDENT_STATES]


class PostgresIncidents:
    """``IncidentStore`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        *,
        service: ServiceName,
        environment: str,
        family: str,
        severity: SeverityResult,
        title: str,
        callers: Sequence[ServiceName],
        generated_baseline: bool,
    ) -> Incident | None:
        row = await self._connection.fetchrow(
            f"""INSERT INTO incidents (fingerprint, service, environment, family, severity, severity_detail, title,
                                       callers, generated_baseline)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
                WHERE NOT EXISTS (SELECT 1 FROM incidents
                                  WHERE fingerprint = $1 AND muted_until > clock_timestamp())
                ON CONFLICT (fingerprint) WHERE state NOT IN ('resolved', 'self_recovered', 'closed') DO NOTHING
                RETURNING {INCIDENT_COLUMNS}""",  # noqa: S608 - a constant list of columns
            fingerprint(environment, service, family),
            service,
            environment,
            family,
            severity.severity.value,
            SEVERITY.dump_python(severity, mode="json"),
            title,
            list(callers),
            generated_baseline,
        )
        return incident(row) if row else None

    async def get(self, incident_id: IncidentId) -> Incident | None:
        row = await self._connection.fetchrow(
            f"SELECT {INCIDENT_COLUMNS} FROM incidents WHERE id = $1",  # noqa: S608 - constant
            incident_id,
        )
        return incident(row) if row else None

    async def case(self, incident_id: IncidentId) -> Case | None:
        return await cases.read(self._connection, incident_id)

    async def open(self) -> Sequence[Incident]:
        rows = await self._connection.fetch(
            f"""SELECT {INCIDENT_COLUMNS} FROM incidents
                WHERE state NOT IN ('resolved', 'self_recovered', 'closed') ORDER BY severity, id""",  # noqa: S608
        )
        return [incident(row) for row in rows]

    async def recent(self, limit: int) -> Sequence[Incident]:
        rows = await self._connection.fetch(
            f"""SELECT {INCIDENT_COLUMNS} FROM incidents
                ORDER BY state IN ('resolved', 'self_recovered', 'closed'), id DESC LIMIT $1""",  # noqa: S608
            limit,
        )
        return [incident(row) for row in rows]

    async def by_card(self, place: CardPlace) -> IncidentId | None:
        found = await self._connection.fetchval(
            "SELECT id FROM incidents WHERE card_channel = $1 AND card_ts = $2", place.channel, place.ts
        )
        return IncidentId(found) if found is not None else None

    async def move(self, incident_: Incident, to: IncidentState, *, outcome: str | None) -> Incident | None:
        row = await self._connection.fetchrow(
            f"""UPDATE incidents SET state = $4, version = version + 1, state_since = clock_timestamp(),
                       updated_at = clock_timestamp(), outcome = coalesce($5, outcome),
                       closed_at = CASE WHEN $4 = ANY ($6::text[]) THEN coalesce(closed_at, clock_timestamp()) END
                WHERE id = $1 AND version = $2 AND state = $3
                RETURNING {INCIDENT_COLUMNS}""",  # noqa: S608
            incident_.id,
            incident_.version,
            incident_.state.value,
            to.value,
            storable(outcome) if outcome is not None else None,
            _FINAL,
        )
        return incident(row) if row else None

    async def claim(self, states: Iterable[IncidentState], *, worker: str, lease_s: float) -> Incident | None:
        row = await self._connection.fetchrow(
            f"""UPDATE incidents SET leased_by = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
                WHERE id = (
                    SELECT id FROM incidents
                    WHERE state = ANY ($1::text[]) AND (lease_until IS NULL OR lease_until < clock_timestamp())
                    ORDER BY severity, id LIMIT 1 FOR UPDATE SKIP LOCKED)
                RETURNING {INCIDENT_COLUMNS}""",  # noqa: S608
            [state.value for state in states],
            worker,
            lease_s,
        )
        return incident(row) if row else None

    async def keep(self, incident_id: IncidentId, *, worker: str, lease_s: float) -> bool:
        kept = await self._connection.fetchval(
            """UPDATE incidents SET lease_until = clock_timestamp() + make_interval(secs => $3)
               WHERE id = $1 AND leased_by = $2 RETURNING true""",
            incident_id,
            worker,
            lease_s,
        )
        return bool(kept)

    async def release(self, incident_id: IncidentId, *, worker: str) -> None:
        await self._connection.execute(
            "UPDATE incidents SET lease_until = NULL, leased_by = NULL WHERE id = $1 AND leased_by = $2",
            incident_id,
            worker,
        )

    async def attached(self) -> Mapping[SeriesKey, IncidentId]:
        rows = await self._connection.fetch(
            """SELECT a.service, a.signal, a.instance, a.incident_id FROM anomalies a
               JOIN incidents i ON i.id = a.incident_id
               WHERE i.state <> ALL($1::text[]) AND a.cleared_at IS NULL ORDER BY a.id""",
            _FINAL,
        )
        return {
            SeriesKey(ServiceName(row["service"]), Signal(row["signal"]), row["instance"]): IncidentId(
                row["incident_id"]
            )
            for row in rows
        }

    async def left_behind(self, *, after_s: float) -> frozenset[SeriesKey]:
        rows = await self._connection.fetch(
            """SELECT a.service, a.signal, a.instance FROM anomalies a JOIN incidents i ON i.id = a.incident_id
               WHERE i.state = ANY($1::text[]) AND a.cleared_at IS NULL AND a.service <> i.service
                 AND (SELECT bool_and(own.cleared_at < clock_timestamp() - make_interval(secs => $2))
                      FROM anomalies own WHERE own.incident_id = i.id AND own.service = i.service)""",
            [state.value for state in QUIET_INCIDENT_STATES],
            after_s,
        )
        return frozenset(SeriesKey(ServiceName(row["service"]), Signal(row["signal"]), row["instance"]) for row in rows)

    async def attach(self, incident_id: IncidentId, *anomalies: Anomaly) -> Sequence[Anomaly]:
        # Sent together: in a storm there are thousands of them, and each answer would be waited for.
        rows = await self._connection.fetchmany(
            """INSERT INTO anomalies (incident_id, kind, service, signal, instance, started_at, seen_at, value, peak,
                                      expected, sigma, threshold, breach_above, change)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
               ON CONFLICT (incident_id, service, signal, instance) DO UPDATE
               SET kind = CASE WHEN excluded.change IS NULL THEN anomalies.kind ELSE excluded.kind END,
                   -- The first change that was blamed stays: what is done about it comes later, and is one too.
                   change = coalesce(anomalies.change, excluded.change),
                   seen_at = excluded.seen_at, value = excluded.value, cleared_at = NULL,
                   peak = CASE WHEN anomalies.breach_above THEN greatest(anomalies.peak, excluded.peak)
                               ELSE least(anomalies.peak, excluded.peak) END
               RETURNING xmax = 0 AS new""",
            [
                (
                    incident_id,
                    one.kind.value,
                    one.key.service,
                    one.key.signal.value,
                    one.key.instance,
                    one.started_at,
                    one.seen_at,
                    one.value,
                    one.peak,
                    one.expected,
                    one.sigma,
                    one.bound.threshold,
                    one.bound.breach_above,
                    CHANGE.dump_python(one.change, mode="json") if one.change is not None else None,
                )
                for one in anomalies
            ],
        )
        return [one for one, row in zip(anomalies, rows, strict=True) if row["new"]]

    async def clear(self, incident_id: IncidentId, keys: Sequence[SeriesKey]) -> int:
        status: str = await self._connection.execute(
            """UPDATE anomalies SET cleared_at = clock_timestamp()
               FROM unnest($2::text[], $3::text[], $4::text[]) AS over (service, signal, instance)
               WHERE incident_id = $1 AND cleared_at IS NULL AND anomalies.service = over.service
                 AND anomalies.signal = over.signal AND anomalies.instance = over.instance""",
            incident_id,
            [key.service for key in keys],
            [key.signal.value for key in keys],
            [key.instance for key in keys],
        )
        return int(status.split()[-1])

    async def save_severity(self, incident_id: IncidentId, severity: SeverityResult) -> None:
        await self._connection.execute(
            "UPDATE incidents SET severity = $2, severity_detail = $3 WHERE id = $1",
            incident_id,
            severity.severity.value,
            SEVERITY.dump_python(severity, mode="json"),
        )

    async def save_diagnosis(
        self, incident_id: IncidentId, diagnosis: Diagnosis, evidence: Sequence[Evidence], passages: Sequence[Passage]
    ) -> None:
        await self._connection.execute(
            "UPDATE incidents SET diagnosis = $2, passages = $3 WHERE id = $1",
            incident_id,
            DIAGNOSIS.dump_python(diagnosis, mode="json"),
            PASSAGES.dump_python(tuple(passages), mode="json"),
        )
        await self._connection.execute("DELETE FROM evidence WHERE incident_id = $1", incident_id)
        await self.add_evidence(incident_id, evidence)

    async def add_evidence(self, incident_id: IncidentId, evidence: Sequence[Evidence]) -> None:
        await self._connection.executemany(
            """INSERT INTO evidence (incident_id, id, kind, statement, query, subject, window_from, window_to, service,
                                     sign, signal, began, value, snapshot)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
               ON CONFLICT (incident_id, id) DO NOTHING""",
            [
                (
                    incident_id,
                    fact.id,
                    fact.kind,
                    storable(fact.statement),
                    storable(fact.query),
                    storable(fact.subject),
                    fact.window_from,
                    fact.window_to,
                    fact.service,
                    fact.sign.value,
                    fact.signal.value if fact.signal else None,
                    fact.began,
                    fact.value,
                    fact.snapshot,
                )
                for fact in evidence
            ],
        )

    async def save_verification(self, incident_id: IncidentId, verification: Verification) -> None:
        await self._connection.execute(
            "UPDATE incidents SET verification = $2 WHERE id = $1",
            incident_id,
            VERIFICATION.dump_python(verification, mode="json"),
        )

    async def set_owner(self, incident_id: IncidentId, user: SlackUserId) -> None:
        await self._connection.execute("UPDATE incidents SET owner = $2 WHERE id = $1", incident_id, user)

    async def mute(self, incident_id: IncidentId, *, for_s: float) -> None:
        await self._connection.execute(
            "UPDATE incidents SET muted_until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1",
            incident_id,
            for_s,
        )

    async def card(self, incident_id: IncidentId) -> CardPlace | None:
        row = await self._connection.fetchrow(
            "SELECT card_channel, card_ts FROM incidents WHERE id = $1 AND card_ts IS NOT NULL", incident_id
        )
        return CardPlace(row["card_channel"], row["card_ts"]) if row else None

    async def set_card(self, incident_id: IncidentId, place: CardPlace | None) -> None:
        await self._connection.execute(
            "UPDATE incidents SET card_channel = $2, card_ts = $3 WHERE id = $1",
            incident_id,
            place.channel if place else None,
            place.ts if place else None,
        )
