"""The last look at what is shown in Slack: no secret leaves, wherever it came from.

Raises PermanentError when secrets cannot be taken out: then nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.redacting import redact

SHOWN = frozenset({"text", "markdown_text", "alt_text", "alt_txt", "title", "initial_comment", "fallback", "name"})
"""Keys whose strings people read; all others are ids, types and states."""
_Payload = TypeVar("_Payload")


def without_secrets(payload: _Payload) -> _Payload:
    """A copy of blocks, a view or a whole request; only strings under ``SHOWN`` change."""
    return cast(_Payload, _clean(payload, shown=False))


def _clean(value: Any, *, shown: bool) -> Any:
    if isinstance(value, str):
        return redact(value) if shown else value
    if isinstance(value, Mapping):
        return {key: _clean(item, shown=key in SHOWN) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, shown=shown) for item in value]
    return value


class CleanClient(AsyncWebClient):
    """Every call of the Web API goes through here, whoever makes it."""

    async def api_call(self, api_method: str, **what: Any) -> AsyncSlackResponse:
        for part in ("json", "data", "params"):
            if isinstance(what.get(part), Mapping):
                what[part] = without_secrets(what[part])
        return await super().api_call(api_method, **what)
