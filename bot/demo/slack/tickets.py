"""Short-lived rights of the bot: trigger ids (open one modal) and response URLs (answer a few times)."""

import secrets
import time
from dataclasses import dataclass

from bot.demo.slack.errors import SlackError
from bot.demo.slack.workspace import TEAM_ID

RESPONSE_URL_USES = 5
RESPONSE_URL_LIFE_S = 30 * 60.0


@dataclass(slots=True)
class _Trigger:
    user_id: str
    from_view_id: str | None
    expires_at_s: float
    used: bool = False


@dataclass(frozen=True, slots=True)
class Trigger:
    """Who triggered, and from which open view (needed by views.push)."""

    user_id: str
    from_view_id: str | None


class Triggers:
    """Trigger ids: each opens or pushes one view, within `life_s` (Slack: 3 s)."""

    def __init__(self, life_s: float) -> None:
        self._life_s = life_s
        self._issued: dict[str, _Trigger] = {}

    def issue(self, user_id: str, from_view_id: str | None = None) -> str:
        now = time.monotonic()
        # Kept for a while after their end, so that a late use is told from an invented id.
        self._issued = {k: t for k, t in self._issued.items() if t.expires_at_s > now - 600}
        trigger_id = f"{time.time_ns()}.{TEAM_ID}.{secrets.token_hex(16)}"
        self._issued[trigger_id] = _Trigger(user_id, from_view_id, now + self._life_s)
        return trigger_id

    def exchange(self, trigger_id: str) -> Trigger:
        """Use it up. Raises invalid_trigger_id, exchanged_trigger_id or expired_trigger_id."""
        issued = self._issued.get(trigger_id)
        if issued is None:
            raise SlackError("invalid_trigger_id")
        if issued.used:
            raise SlackError("exchanged_trigger_id")
        if time.monotonic() > issued.expires_at_s:
            raise SlackError("expired_trigger_id")
        issued.used = True
        return Trigger(issued.user_id, issued.from_view_id)


@dataclass(slots=True)
class ResponseUrl:
    """Where answers to one interaction go: the channel and thread, and the message it came from, if any."""

    user_id: str
    channel: str
    thread_ts: str | None
    message_ts: str | None
    is_ephemeral: bool
    expires_at_s: float
    uses_left: int = RESPONSE_URL_USES


class ResponseUrls:
    """Response URLs: 5 uses within 30 minutes."""

    def __init__(self) -> None:
        self._issued: dict[str, ResponseUrl] = {}

    def issue(
        self,
        user_id: str,
        channel: str,
        *,
        thread_ts: str | None = None,
        message_ts: str | None = None,
        is_ephemeral: bool = False,
    ) -> str:
        """The path of a new response URL."""
        path = f"/response/{TEAM_ID}/{secrets.token_hex(12)}"
        expires_at_s = time.monotonic() + RESPONSE_URL_LIFE_S
        self._issued[path] = ResponseUrl(user_id, channel, thread_ts, message_ts, is_ephemeral, expires_at_s)
        return path

    def use(self, path: str) -> ResponseUrl:
        """Count one use. Raises invalid_url, expired_url or used_url (HTTP 404 in Slack)."""
        issued = self._issued.get(path)
        if issued is None:
            raise SlackError("invalid_url")
        if time.monotonic() > issued.expires_at_s:
            raise SlackError("expired_url")
        if issued.uses_left == 0:
            raise SlackError("used_url")
        issued.uses_left -= 1
        return issued
