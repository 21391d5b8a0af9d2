"""How far the page of each incident has come."""

from __future__ import annotations

from typing import Final

from pipeline.adapters.postgres.pool import Connection
from pipeline.domain.ids import IncidentId
from pipeline.domain.notice import PageEvent

_TRIGGER: Final = """
INSERT INTO pages (incident_id, state) VALUES ($1, 'trigger')
ON CONFLICT (incident_id) DO UPDATE SET state = 'trigger', changed_at = clock_timestamp()
WHERE pages.state = 'acknowledge' RETURNING dedup_key
"""
_ACKNOWLEDGE: Final = """
UPDATE pages SET state = 'acknowledge', changed_at = clock_timestamp()
WHERE incident_id = $1 AND state = 'trigger' RETURNING dedup_key
"""
_RESOLVE: Final = """
UPDATE pages SET state = 'resolve', changed_at = clock_timestamp()
WHERE incident_id = $1 AND state <> 'resolve' RETURNING dedup_key
"""
_STATEMENT: Final[dict[PageEvent, str]] = {"trigger": _TRIGGER, "acknowledge": _ACKNOWLEDGE, "resolve": _RESOLVE}


class PostgresPages:
    """``PageStore`` on one connection. Without a pager (``paging`` false) nothing is news to it."""

    def __init__(self, connection: Connection, *, paging: bool) -> None:
        self._connection = connection
        self._paging = paging

    async def move(self, incident_id: IncidentId, event: PageEvent) -> str | None:
        if not self._paging:
            return None
        key = await self._connection.fetchval(_STATEMENT[event], incident_id)
        return str(key) if key is not None else None
