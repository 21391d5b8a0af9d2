"""A person for scripts: does through the page's endpoints what somebody does with a mouse and a keyboard."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import aiohttp

from bot.demo.slack.people import RefusedError
from bot.demo.slack.view_values import initial_values
from bot.slack.blocks import interactive_elements

Found = TypeVar("Found")
LOOK_AGAIN_S = 2.0
"""How long wait_for trusts the event stream before it looks by itself."""


class NoSuchElementError(LookupError):
    """The message or view has no element with this action_id; the text lists those it has."""


class Person:
    """One person of the local Slack. Use as an async context manager, or call close().

    Every action raises RefusedError with what the person is told when it did not work.
    """

    def __init__(self, base_url: str, user_id: str) -> None:
        self.user_id = user_id
        self._base_url = base_url.rstrip("/")
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    async def _post(self, path: str, **body: Any) -> dict[str, Any]:
        async with self._http.post(f"{self._base_url}{path}", json={"as": self.user_id, **body}) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
        if not answer["ok"]:
            errors = answer.get("errors")
            raise RefusedError(answer.get("error") or "Some fields need another look.", errors)
        return answer

    async def state(self) -> dict[str, Any]:
        """Everything this person sees, as in the page's /local/state."""
        url = f"{self._base_url}/local/state"
        async with self._http.get(url, params={"as": self.user_id}) as response:
            response.raise_for_status()
            state: dict[str, Any] = await response.json()
        return state

    async def messages(self, channel: str) -> list[dict[str, Any]]:
        """Roots and replies of a channel by ts, with what only this person sees among them."""
        listed: list[dict[str, Any]] = (await self.state())["messages"][channel]
        return listed

    async def modals(self) -> list[dict[str, Any]]:
        """The open modals, the top one last."""
        stack: list[dict[str, Any]] = (await self.state())["modals"]
        return stack

    async def say(self, text: str, channel: str, thread_ts: str | None = None) -> str:
        """Write a message or a reply; its ts. "@sre …" mentions the bot."""
        answer = await self._post("/local/message", channel=channel, text=text, thread_ts=thread_ts)
        return str(answer["ts"])

    async def command(self, text: str, channel: str) -> None:
        """Type a slash command, e.g. "/sre status"."""
        await self._post("/local/command", channel=channel, text=text)

    async def home(self) -> None:
        """Open the Home tab; the bot publishes it a moment later, see `wait_for` and state()["home"]."""
        await self._post("/local/home")

    async def click(self, channel: str, ts: str, action_id: str, value: Any = None) -> None:
        """Press a button of a message, or choose the option with that value in its menu.

        A button's confirm dialog counts as confirmed. Raises NoSuchElementError.
        """
        message = next((m for m in await self.messages(channel) if m["ts"] == ts), None)
        if message is None:
            raise NoSuchElementError(f"{self.user_id} sees no message {ts} in {channel}")
        block_id, element = _element(message.get("blocks", []), action_id, f"message {ts}")
        pressed = element.get("value") if value is None else value
        where = {"channel": channel, "ts": ts, "block_id": block_id, "action_id": action_id}
        await self._post("/local/action", **where, value=pressed)

    async def click_in_view(self, view_id: str, action_id: str, value: Any = None) -> None:
        """Press a button of an open modal or of the Home tab. Raises NoSuchElementError."""
        view = await self._view(view_id)
        block_id, element = _element(view["blocks"], action_id, f"view {view_id}")
        pressed = element.get("value") if value is None else value
        where = {"view_id": view_id, "block_id": block_id, "action_id": action_id}
        await self._post("/local/action", **where, value=pressed)

    async def submit(self, view_id: str, values: dict[str, dict[str, Any]]) -> None:
        """Send a modal with {block_id: {action_id: text or option value}}; other fields stay as they opened.

        RefusedError.errors holds complaints by block id.
        """
        entered = initial_values(await self._view(view_id))
        for block_id, fields in values.items():
            if block_id not in entered:
                raise NoSuchElementError(f"view {view_id} has no input block {block_id}, but {sorted(entered)}")
            entered[block_id] |= fields
        await self._post("/local/view/submit", view_id=view_id, values=entered)

    async def close_view(self, view_id: str) -> None:
        """Close a modal without sending it."""
        await self._post("/local/view/close", view_id=view_id)

    async def _view(self, view_id: str) -> dict[str, Any]:
        state = await self.state()
        views = [*state["modals"], *filter(None, [state["home"]])]
        view: dict[str, Any] | None = next((v for v in views if v["id"] == view_id), None)
        if view is None:
            raise NoSuchElementError(f"{self.user_id} has no view {view_id} open")
        return view

    @asynccontextmanager
    async def _changes(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set at every change this person may see."""
        changed = asyncio.Event()

        async def listen(response: aiohttp.ClientResponse) -> None:
            async for line in response.content:
                if line.startswith(b"data:") and "rev" in json.loads(line[5:]):
                    changed.set()

        url = f"{self._base_url}/local/events"
        endless = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with self._http.get(url, params={"as": self.user_id}, timeout=endless) as response:
            listening = asyncio.create_task(listen(response))
            try:
                yield changed
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def wait_for(self, look: Callable[[dict[str, Any]], Found | None], timeout_s: float) -> Found:
        """Wait until `look(state)` finds something (is truthy); that. Raises TimeoutError with what it sought."""
        try:
            async with asyncio.timeout(timeout_s), self._changes() as changed:
                while True:
                    changed.clear()
                    found = look(await self.state())
                    if found:
                        return found
                    await _either(changed, LOOK_AGAIN_S)
        except TimeoutError:
            sought = getattr(look, "__name__", repr(look))
            raise TimeoutError(f"{self.user_id} did not see {sought} within {timeout_s:g} s") from None


async def _either(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, but no longer than that."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait([waiting], timeout=timeout_s)
    waiting.cancel()


def _element(blocks: list[dict[str, Any]], action_id: str, where: str) -> tuple[str, dict[str, Any]]:
    """(block id, element). Raises NoSuchElementError."""
    there = [(block["block_id"], e) for block in blocks for _, e in interactive_elements(block)]
    for block_id, element in there:
        if element.get("action_id") == action_id:
            return block_id, element
    ids = [str(element.get("action_id")) for _, element in there]
    raise NoSuchElementError(f"{where} has no {action_id!r}, but {ids}")
