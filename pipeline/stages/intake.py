"""Takes in what others tell over the bus: changes that were made, alerts that fired. Each event counts once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.domain.alert import Alert
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.ids import ServiceName
from pipeline.domain.incident import Incident
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.bus import Bus, BusEvent
from pipeline.ports.store import Store
from pipeline.ports.trail import SYSTEM

log = logging.getLogger(__name__)

TOPIC = "intake"
GROUP = "sre-bot"
IDLE_S = 30.0
"""A replica that took an event and did not finish it in this time is taken for gone."""
BEFORE_S = 900.0
"""An alert this long before an incident may be of the same trouble."""
KEEP_S = 7 * 86_400.0
"""Longer than the bus keeps events: one that is delivered again is known."""


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a NUL character cannot be stored")
    return text


def _of_our_time(at: datetime) -> datetime:
    if not 1970 <= at.year <= 9000:
        raise ValueError("a year between 1970 and 9000 is meant")
    return at


_Text = Annotated[str, AfterValidator(_storable)]
_Line = Annotated[_Text, Field(max_length=1000)]
_Name = Annotated[_Text, Field(min_length=1, max_length=253)]
_Moment = Annotated[AwareDatetime, AfterValidator(_of_our_time)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    service: _Name


class ChangeTold(_Told):
    """A change that somebody made; ``at`` is when it took effect."""

    kind: Literal["change"] = "change"
    change: ChangeKind = ChangeKind.DEPLOYMENT
    revision: Annotated[_Text, Field(min_length=1, max_length=200)]
    at: _Moment
    title: _Line = ""
    author: Annotated[_Text, Field(max_length=200)] = ""


class AlertTold(_Told):
    """An alert of another system, firing or over."""

    kind: Literal["alert"] = "alert"
    fingerprint: Annotated[_Text, Field(min_length=1, max_length=200)]
    name: _Name
    summary: _Line = ""
    started_at: _Moment
    ended_at: _Moment | None = None


Told = Annotated[ChangeTold | AlertTold, Field(discriminator="kind")]
_TOLD: TypeAdapter[ChangeTold | AlertTold] = TypeAdapter(Told)


def as_event(told: ChangeTold | AlertTold, *, key: str) -> Mapping[str, str]:
    """The fields of the event; ``key`` is the same whenever its sender repeats it."""
    return {"key": key, "told": told.model_dump_json()}


class Intake:
    """One consumer of the group; its effect, and that it happened, are one transaction."""

    def __init__(self, store: Store, bus: Bus, redact: Callable[[str], str], *, worker: str) -> None:
        self._store = store
        self._bus = bus
        self._redact = redact
        self._worker = worker

    async def run_once(self) -> int:
        """Takes what waits, a few seconds at most; returns how many events were new. Raises TemporaryError."""
        new = 0
        for event in await self._bus.take(TOPIC, group=GROUP, consumer=self._worker, idle_s=IDLE_S):
            new += await self._apply(event)
            await self._bus.done(TOPIC, group=GROUP, event_id=event.id)
        return new

    async def alerts_around(self, incident: Incident) -> tuple[str, ...]:
        """Names of the alerts of the incident's service that fired from shortly before it on, each once."""
        async with self._store.begin() as uow:
            alerts = await uow.intake.alerts(incident.service, incident.opened_at - timedelta(seconds=BEFORE_S))
        return tuple(dict.fromkeys(one.name for one in alerts))

    async def forget(self) -> None:
        """Deletes what was processed long ago."""
        async with self._store.begin() as uow:
            await uow.intake.forget(keep_s=KEEP_S)

    async def _apply(self, event: BusEvent) -> bool:
        key = event.fields.get("key") or event.id
        async with self._store.begin() as uow:
            if not await uow.intake.first_time(GROUP, key[:200]):
                return False
            try:
                told = _TOLD.validate_json(event.fields.get("told", ""))
            except ValidationError as error:
                said = f"an event on the bus was not understood and is left out: {_first(error)}"
                log.warning("%s (%s)", said, event.id)
                await uow.trace.add(SYSTEM, TraceEntry(TraceKind.NOTE, said, {"event": event.id, "key": key[:200]}))
                return False
            match told:
                case ChangeTold():
                    await uow.telemetry.save_changes([self._change(told)])
                case AlertTold():
                    await uow.intake.save_alerts([self._alert(told)])
        return True

    def _change(self, told: ChangeTold) -> ChangeEvent:
        return ChangeEvent(
            ServiceName(told.service),
            told.at.astimezone(UTC),
            told.change,
            self._redact(told.revision),
            self._redact(told.title),
            self._redact(told.author),
        )

    def _alert(self, told: AlertTold) -> Alert:
        return Alert(
            told.fingerprint,
            ServiceName(told.service),
            self._redact(told.name),
            self._redact(told.summary),
            told.started_at.astimezone(UTC),
            _utc(told.ended_at),
        )


def _utc(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at is not None else None


def _first(error: ValidationError) -> str:
    one = error.errors()[0]
    return f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
