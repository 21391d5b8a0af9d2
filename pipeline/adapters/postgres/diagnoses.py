"""Answers of a model kept for reuse: one per cause, for as long as it is young and rests on the same things."""

from __future__ import annotations

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.records import HYPOTHESIS
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.ids import IncidentId
from pipeline.ports.diagnoses import CachedDiagnosis, CauseKey


class PostgresDiagnoses:
    """``DiagnosisCache`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find(self, key: CauseKey, rests_on: str, *, ttl_s: float) -> CachedDiagnosis | None:
        row = await self._connection.fetchrow(
            """SELECT incident_id, hypothesis, source, made_at FROM diagnosis_cache
               WHERE service = $1 AND kind = $2 AND signal = $3 AND rests_on = $4
                 AND made_at > clock_timestamp() - make_interval(secs => $5)""",
            key.service,
            key.kind.value,
            key.signal.value,
            rests_on,
            ttl_s,
        )
        if row is None:
            return None
        return CachedDiagnosis(
            IncidentId(row["incident_id"]), HYPOTHESIS.validate_python(row["hypothesis"]), row["source"], row["made_at"]
        )

    async def keep(
        self, key: CauseKey, rests_on: str, incident_id: IncidentId, hypothesis: Hypothesis, source: str
    ) -> None:
        await self._connection.execute(
            """INSERT INTO diagnosis_cache (service, kind, signal, rests_on, incident_id, hypothesis, source)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               ON CONFLICT (service, kind, signal) DO UPDATE
               SET rests_on = excluded.rests_on, incident_id = excluded.incident_id, hypothesis = excluded.hypothesis,
                   source = excluded.source, made_at = clock_timestamp()""",
            key.service,
            key.kind.value,
            key.signal.value,
            rests_on,
            incident_id,
            HYPOTHESIS.dump_python(hypothesis, mode="json"),
            source,
        )

    async def drop(self, incident_id: IncidentId) -> bool:
        dropped = await self._connection.fetchval(
            """WITH gone AS (
                   DELETE FROM diagnosis_cache cached USING incidents i, anomalies a
                   WHERE i.id = $1 AND a.incident_id = i.id AND cached.service = i.service
                     AND cached.kind = a.kind AND cached.signal = a.signal RETURNING 1)
               SELECT count(*) > 0 FROM gone""",
            incident_id,
        )
        return bool(dropped)
