"""PagerDuty through its Events API v2: https://developer.pagerduty.com/docs/send-alert-event"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import aiohttp
from pydantic import BaseModel, ConfigDict, JsonValue, SecretStr, ValidationError

from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.severity import Severity
from pipeline.ports.pager import Page, Pager

ENQUEUE_URL: Final = "https://events.pagerduty.com/v2/enqueue"
MAX_SUMMARY_CHARS: Final = 1024
"""https://developer.pagerduty.com/docs/send-alert-event: longer ones are refused."""
MAX_RETRY_AFTER_S: Final = 300.0
MAX_ANSWER_BYTES: Final = 65_536
_SEVERITY: Final = {
    Severity.SEV1: "critical",
    Severity.SEV2: "error",
    Severity.SEV3: "warning",
    Severity.SEV4: "info",
}


class _Refusal(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    message: str = ""
    errors: tuple[str, ...] = ()


class PagerDuty(Pager):
    """One service integration, named by its routing key. An event is sent once a call; each call has ``timeout_s``.

    An event may be sent again: PagerDuty folds those of one dedup key into one incident.
    """

    def __init__(self, routing_key: SecretStr, *, url: str = ENQUEUE_URL, timeout_s: float = 10.0) -> None:
        self._routing_key = routing_key
        self._url = url
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def send(self, page: Page) -> None:
        try:
            async with self._connected().post(self._url, json=self._event(page), allow_redirects=False) as response:
                status, body = response.status, await response.content.read(MAX_ANSWER_BYTES)
                retry_after = response.headers.get("Retry-After", "")
        except aiohttp.ClientConnectorError as error:
            raise TemporaryError(f"PagerDuty cannot be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OutcomeUnknown(f"no answer from PagerDuty: {str(error) or type(error).__name__}") from error
        if status == HTTPStatus.ACCEPTED:
            return
        why = f"{status} {self._reason(body)}".rstrip()
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT):
            raise TemporaryError(f"PagerDuty takes no more events now: {why}", retry_after_s=_seconds(retry_after))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise OutcomeUnknown(f"PagerDuty failed: {why}")
        raise PermanentError(f"PagerDuty refused the event: {why}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _event(self, page: Page) -> dict[str, JsonValue]:
        event: dict[str, JsonValue] = {
            "routing_key": self._routing_key.get_secret_value(),
            "event_action": page.event,
            "dedup_key": page.dedup_key,
        }
        if page.event != "trigger":
            return event
        links: list[JsonValue] = [{"href": page.link, "text": f"{page.label} in Slack"}] if page.link else []
        details: dict[str, JsonValue] = {"incident": page.label, "environment": page.environment}
        return event | {
            "client": "sre-bot",
            "links": links,
            "payload": {
                "summary": _clipped(page.summary),
                "source": page.service,
                "severity": _SEVERITY[page.severity],
                "component": page.service,
                "group": page.environment,
                "class": page.severity.value,
                "custom_details": details,
            },
        }

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_s))
        return self._session

    def _reason(self, body: bytes) -> str:
        try:
            refusal = _Refusal.model_validate_json(body)
            said = "; ".join(part for part in (refusal.message, *refusal.errors) if part)
        except ValidationError:
            said = body[:200].decode(errors="replace")
        return said.replace(self._routing_key.get_secret_value(), "…")[:300]


def _clipped(summary: str) -> str:
    return summary if len(summary) <= MAX_SUMMARY_CHARS else summary[: MAX_SUMMARY_CHARS - 1].rstrip() + "…"


def _seconds(retry_after: str) -> float | None:
    """The header's seconds, within reason; a date or nothing is left to the sender's own back-off."""
    text = retry_after.strip()
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdecimal() else None
