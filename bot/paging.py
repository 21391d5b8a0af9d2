"""From the outbox to the pager: what a notice leaves open is read when it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.domain.errors import PermanentError
from pipeline.domain.ids import IncidentId, incident_label
from pipeline.domain.notice import PagerNotice
from pipeline.ports.outbox import OutboxRow
from pipeline.ports.pager import Page, Pager
from pipeline.ports.store import CardPlace, Store

Permalink = Callable[[CardPlace], Awaitable[str]]
"""The address of a card; empty where it cannot be told now."""


class PagePublisher:
    """Sends one pager notice at a time, and raises as ``Pager.send`` does.

    ``redact`` takes secrets out of what is shown.
    """

    def __init__(self, store: Store, pager: Pager, permalink: Permalink, redact: Callable[[str], str]) -> None:
        self._store = store
        self._pager = pager
        self._permalink = permalink
        self._redact = redact

    async def publish(self, row: OutboxRow) -> None:
        """Sends ``row``, once."""
        if row.incident_id is None or not isinstance(row.notice, PagerNotice):
            raise PermanentError(f"outbox row {row.id} is not for the pager")
        await self._pager.send(await self._page(row.incident_id, row.notice))

    async def _page(self, incident_id: IncidentId, notice: PagerNotice) -> Page:
        async with self._store.begin() as uow:
            incident = await uow.incidents.get(incident_id)
            place = await uow.incidents.card(incident_id)
        if incident is None:
            raise PermanentError(f"there is no {incident_label(incident_id)}")
        label = incident_label(incident_id)
        why = f": {notice.reason}" if notice.reason else ""
        return Page(
            event=notice.event,
            dedup_key=notice.dedup_key,
            label=label,
            summary=self._redact(f"{label} {incident.severity} {incident.service}: {incident.title}{why}"),
            severity=incident.severity,
            service=incident.service,
            environment=incident.environment,
            link=await self._permalink(place) if place is not None and notice.event == "trigger" else "",
        )
