"""The arguments of one Web API call, however they were sent."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bot.demo.slack.errors import SlackError, missing


async def read_arguments(request: web.Request) -> dict[str, Any]:
    """Query, form, JSON or multipart as one dict. Raises invalid_json, json_not_object."""
    given: dict[str, Any] = dict(request.query)
    if request.method == "GET" or not request.can_read_body:
        return given
    if request.content_type == "application/json":
        try:
            body = json.loads(await request.text())
        except json.JSONDecodeError:
            raise SlackError("invalid_json") from None
        if not isinstance(body, dict):
            raise SlackError("json_not_object")
        return given | body
    if request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form = await request.post()
        return given | {key: value for key, value in form.items() if isinstance(value, str)}
    return given


class Arguments:
    """Typed access to the arguments; a form carries everything as text, JSON does not."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def shown(self) -> dict[str, Any]:
        """Everything that was given, without the token."""
        return {key: value for key, value in self._given.items() if key != "token"}

    def has(self, name: str) -> bool:
        return self._given.get(name) not in (None, "")

    def text(self, name: str, default: str = "") -> str:
        value = self._given.get(name)
        return default if value is None else str(value)

    def required(self, *names: str) -> list[str]:
        """The texts of these arguments. Raises invalid_arguments for those that are not given."""
        absent = [name for name in names if not self.has(name)]
        if absent:
            raise missing(*absent)
        return [str(self._given[name]) for name in names]

    def flag(self, name: str) -> bool:
        return str(self._given.get(name, "")).lower() in ("1", "true")

    def integer(self, name: str, default: int) -> int:
        try:
            return int(self._given.get(name) or default)
        except (TypeError, ValueError):
            raise SlackError("invalid_arguments") from None

    def json(self, name: str, error: str = "invalid_arguments") -> Any:
        """A list or object, also when sent as JSON text; None when absent. Raises `error` when it is not JSON."""
        value = self._given.get(name)
        if not isinstance(value, str):
            return value
        if not value:
            return None
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            raise SlackError(error) from None
