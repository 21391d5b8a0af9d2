"""Signed HTTP: payloads are POSTed to the app's request URL, as to an app without Socket Mode.

https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import aiohttp

from bot.demo.slack.changes import Changes
from bot.demo.slack.transport import Kind, NotAcknowledgedError

VERIFY_EVERY_S = 0.5
JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"


class SignedHttp:
    """One request URL for events, interactions and commands. It counts as connected once it has been verified."""

    mode = "http"

    def __init__(self, url: str, signing_secret: str, changes: Changes) -> None:
        self._url = url
        self._secret = signing_secret.encode()
        self._changes = changes
        self._lost = asyncio.Event()
        self._lost.set()
        self._session = aiohttp.ClientSession()
        self._verifying = asyncio.create_task(self._keep_verified())

    @property
    def connected(self) -> bool:
        return not self._lost.is_set()

    async def _keep_verified(self) -> None:
        """Ask the URL for its challenge until it answers, and again whenever it could not be reached."""
        while True:
            challenge = secrets.token_hex(16)
            body = json.dumps({"type": "url_verification", "challenge": challenge, "token": "local"})
            try:
                answer = await self._post(body, JSON_TYPE, {}, timeout_s=3.0)
            except NotAcknowledgedError:
                answer = {}
            if challenge in (answer.get("challenge"), answer.get("text")):
                self._lost.clear()
                self._changes.bump()
                await self._lost.wait()
            await asyncio.sleep(VERIFY_EVERY_S)

    async def send(
        self, kind: Kind, payload: dict[str, Any], *, attempt: int, reason: str, timeout_s: float
    ) -> dict[str, Any]:
        """POST one payload; the JSON it was answered with. Raises NotAcknowledgedError."""
        headers: dict[str, str] = {}
        if kind == "events_api":
            body, content_type = json.dumps(payload), JSON_TYPE
            if attempt:
                headers = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": reason}
        elif kind == "interactive":
            body, content_type = urlencode({"payload": json.dumps(payload)}), FORM_TYPE
        else:
            body, content_type = urlencode(payload), FORM_TYPE
        try:
            return await self._post(body, content_type, headers, timeout_s)
        except NotAcknowledgedError as error:
            if error.reason == "connection_failed" and self.connected:
                self._lost.set()
                self._changes.bump()
            raise

    async def _post(self, body: str, content_type: str, headers: dict[str, str], timeout_s: float) -> dict[str, Any]:
        timestamp = str(int(time.time()))
        digest = hmac.new(self._secret, f"v0:{timestamp}:{body}".encode(), hashlib.sha256).hexdigest()
        signed = {
            "Content-Type": content_type,
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": f"v0={digest}",
            **headers,
        }
        try:
            async with self._session.post(
                self._url, data=body.encode(), headers=signed, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as response:
                text = await response.text()
                if response.status != 200:
                    raise NotAcknowledgedError("http_error")
                if not text:
                    return {}
                if response.content_type != JSON_TYPE:
                    return {"text": text}
                answer = json.loads(text)
                return answer if isinstance(answer, dict) else {}
        except TimeoutError:
            raise NotAcknowledgedError("http_timeout") from None
        except json.JSONDecodeError:
            raise NotAcknowledgedError("http_error") from None
        except aiohttp.ClientError:
            raise NotAcknowledgedError("connection_failed") from None

    async def stop(self) -> None:
        self._verifying.cancel()
        await asyncio.gather(self._verifying, return_exceptions=True)
        await self._session.close()
