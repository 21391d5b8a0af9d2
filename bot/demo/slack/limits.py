"""Why the Web API would not answer: an outage or a rate limit, switched on by hand or reached by calling too often."""

import asyncio
import math
import time
from collections import deque
from typing import Any

from bot.demo.slack.changes import Changes

POST_BURST = 5
"""Posts a channel takes at once before one a second is enforced."""
WINDOW_S = 60.0


class Trouble:
    """The switches of the page: everything answers 429 for a while, or 500."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._limited_until_s = 0.0
        self.outage = False

    def limit(self, seconds: float) -> None:
        self._limited_until_s = time.monotonic() + seconds
        self._changes.bump()
        if seconds:
            # The page is told when it ends, too: its switch goes back by itself.
            asyncio.get_running_loop().call_later(seconds, self._changes.bump)

    def set_outage(self, on: bool) -> None:
        self.outage = on
        self._changes.bump()

    def retry_after_s(self) -> int:
        """Whole seconds until the limit ends; 0 when there is none."""
        return max(0, math.ceil(self._limited_until_s - time.monotonic()))

    def for_page(self) -> dict[str, Any]:
        return {"rate_limit_s": self.retry_after_s(), "outage": self.outage, "drop_socket": False}


class RateLimits:
    """Slack's limits: about one post a second and channel, other methods so many a minute."""

    def __init__(self) -> None:
        self._calls: dict[str, deque[float]] = {}
        self._posts: dict[str, tuple[float, float]] = {}

    def retry_after_s(self, method: str, per_minute: int | None, channel: str) -> int:
        """0 when this call is within its limit (and it then counts), else whole seconds to wait."""
        now = time.monotonic()
        if method == "chat.postMessage":
            left, since_s = self._posts.get(channel, (float(POST_BURST), now))
            left = min(float(POST_BURST), left + now - since_s)
            if left < 1:
                self._posts[channel] = (left, now)
                return max(1, math.ceil(1 - left))
            self._posts[channel] = (left - 1, now)
            return 0
        if per_minute is None:
            return 0
        calls = self._calls.setdefault(method, deque())
        while calls and calls[0] <= now - WINDOW_S:
            calls.popleft()
        if len(calls) >= per_minute:
            return max(1, math.ceil(calls[0] + WINDOW_S - now))
        calls.append(now)
        return 0
