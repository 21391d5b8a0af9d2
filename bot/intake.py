"""The door for what others tell over HTTP: changes from pipelines, alerts from Alertmanager. Signed, bounded, queued.

``POST /intake/changes`` takes one change or a list of them, ``POST /intake/alerts`` Alertmanager's webhook (version 4,
https://prometheus.io/docs/alerting/latest/configuration/#webhook_config). A request carries the token as
``Authorization: Bearer …``, or ``X-Sre-Signature: sha256=<hex>``, the HMAC of the raw body under the token.
What was answered with 202 is on the bus; on every other answer nothing was taken, and it may be sent again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.domain.errors import TemporaryError
from pipeline.ports.bus import Bus
from pipeline.stages.intake import TOPIC, AlertTold, ChangeTold, as_event

MAX_BODY_BYTES = 262_144
MAX_ITEMS = 500
SERVICE_LABELS = ("service", "app", "app_kubernetes_io_name", "job")
"""Labels of an alert that may name its service, the first that is there."""
_UNSET_YEAR = 1
"""Alertmanager writes 0001-01-01 for an end that is not known."""


class _Alert(BaseModel):
    """As far as it is used; Alertmanager adds fields with its versions."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: AwareDatetime
    endsAt: AwareDatetime | None = None
    fingerprint: str = ""


class _Webhook(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    alerts: list[_Alert] = Field(max_length=MAX_ITEMS)


_CHANGES: TypeAdapter[ChangeTold | list[ChangeTold]] = TypeAdapter(ChangeTold | list[ChangeTold])


class Door:
    """Both handlers. With no token set it stays shut and says so."""

    def __init__(self, bus: Bus, token: str | None) -> None:
        self._bus = bus
        self._token = token.encode() if token else b""

    async def changes(self, request: web.Request) -> web.Response:
        """One change, or up to ``MAX_ITEMS`` of them."""
        body = await self._body(request)
        try:
            told = _CHANGES.validate_json(body)
        except ValidationError as error:
            return _refused(HTTPStatus.BAD_REQUEST, _first(error))
        many = told if isinstance(told, list) else [told]
        if len(many) > MAX_ITEMS:
            return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_ITEMS} changes at a time")
        return await self._queue(many, request.headers.get("Idempotency-Key", ""))

    async def alerts(self, request: web.Request) -> web.Response:
        """Alertmanager's webhook. An alert whose labels name no service is counted and left out."""
        body = await self._body(request)
        try:
            told = _Webhook.model_validate_json(body).alerts
        except ValidationError as error:
            return _refused(HTTPStatus.BAD_REQUEST, _first(error))
        try:
            known = [one for alert in told if (one := _alert(alert)) is not None]
        except ValidationError as error:
            return _refused(HTTPStatus.BAD_REQUEST, _first(error))
        return await self._queue(known, "", left_out=len(told) - len(known))

    async def _queue(self, many: Sequence[ChangeTold | AlertTold], key: str, *, left_out: int = 0) -> web.Response:
        try:
            for number, told in enumerate(many):
                own = f"{key[:100]}/{number}" if key else hashlib.sha256(told.model_dump_json().encode()).hexdigest()
                await self._bus.publish(TOPIC, as_event(told, key=own))
        except TemporaryError:
            answer = _refused(HTTPStatus.SERVICE_UNAVAILABLE, "the event bus is away: send it again")
            answer.headers["Retry-After"] = "5"
            return answer
        said: dict[str, int] = {"accepted": len(many)}
        if left_out:
            said["left_out"] = left_out
        return web.json_response(said, status=HTTPStatus.ACCEPTED)

    async def _body(self, request: web.Request) -> bytes:
        """The raw body of a request that may come in. Raises the HTTP error that says why not."""
        if not self._token:
            raise web.HTTPForbidden(text="the intake is shut: set SRE_INTAKE_TOKEN")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
        body = bytearray()
        async for chunk in request.content.iter_chunked(65_536):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body))
        if not self._vouched(request.headers, bytes(body)):
            raise web.HTTPUnauthorized(text="neither the token nor a signature of this body that fits")
        try:
            json.loads(body, object_pairs_hook=_each_key_once)
        except (ValueError, RecursionError) as error:
            raise web.HTTPBadRequest(text=f"Invalid JSON: {error}"[:300]) from error
        return bytes(body)

    def _vouched(self, headers: Mapping[str, str], body: bytes) -> bool:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        signature = headers.get("X-Sre-Signature", "").removeprefix("sha256=")
        signed = hmac.new(self._token, body, hashlib.sha256).hexdigest()
        # Both are compared whatever the other says, in a time that tells nothing; as bytes, for a header may hold any.
        by_token = hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self._token)
        by_signature = hmac.compare_digest(signature.encode(errors="surrogateescape"), signed.encode())
        return (scheme.lower() == "bearer" and by_token) or by_signature


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Of two values for one key somebody else might read the other one."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _alert(alert: _Alert) -> AlertTold | None:
    """Raises ValidationError for one that is too long to be true."""
    service = next((alert.labels[label] for label in SERVICE_LABELS if alert.labels.get(label)), "")
    name = alert.labels.get("alertname", "")
    if not service or not name:
        return None
    labels = "\n".join(f"{label}={value}" for label, value in sorted(alert.labels.items()))
    over = alert.status == "resolved" and alert.endsAt is not None and alert.endsAt.year > _UNSET_YEAR
    return AlertTold(
        service=service,
        fingerprint=alert.fingerprint or hashlib.sha256(labels.encode()).hexdigest(),
        name=name,
        summary=(alert.annotations.get("summary") or alert.annotations.get("description") or "")[:1000],
        started_at=alert.startsAt,
        ended_at=alert.endsAt if over else None,
    )


def _refused(status: HTTPStatus, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def _first(error: ValidationError) -> str:
    one = error.errors()[0]
    return f"{'.'.join(str(part) for part in one['loc']) or 'body'}: {one['msg']}"
