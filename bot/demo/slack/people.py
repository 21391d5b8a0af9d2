"""What a person does in the workspace: write, press, type a command, fill in a modal, open the Home tab."""

import secrets
from typing import Any

from bot.demo.slack import payloads
from bot.demo.slack.answers import give
from bot.demo.slack.blockfill import find_element
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.methods_views import checked_view
from bot.demo.slack.tickets import ResponseUrl
from bot.demo.slack.transport import Kind, NotAcknowledgedError
from bot.demo.slack.view_values import initial_values, state_values, typed_value
from bot.demo.slack.workspace import BOT, CHANNELS, TEAM_ID, USERS, User, typed_text

MAX_TYPED_CHARS = 12_000


class RefusedError(Exception):
    """What the person is told instead; `errors` are complaints by block id of a modal."""

    def __init__(self, told: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(told)
        self.told = told
        self.errors = errors or {}


def person(user_id: str) -> User:
    """The person with that id; the bot is none. Raises RefusedError."""
    user = USERS.get(user_id)
    if user is None or user is BOT:
        raise RefusedError(f"There is nobody called {user_id!r} here.")
    return user


def _channel(channel: str) -> str:
    if channel not in CHANNELS:
        raise RefusedError(f"There is no channel {channel!r}.")
    return channel


class People:
    """Each method is one thing a person does; it raises RefusedError when it did not work."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def _ask(self, kind: Kind, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._core.delivery.ask(kind, payload)
        except NotAcknowledgedError as error:
            if error.reason == "not_connected":
                raise RefusedError("sre-bot is not connected") from None
            if error.reason == "http_error":
                raise RefusedError("sre-bot answered with an error") from None
            told = f"sre-bot did not respond within {self._core.delivery.ack_timeout_s:g} s"
            raise RefusedError(told) from None

    def say(self, user: User, channel: str, text: str, thread_ts: str | None) -> str:
        """Write a message, or a reply in a thread; its ts."""
        core = self._core
        if not text.strip():
            raise RefusedError("The message is empty.")
        if len(text) > MAX_TYPED_CHARS:
            raise RefusedError(f"The message is longer than {MAX_TYPED_CHARS} characters.")
        message = {
            "type": "message",
            "user": user.id,
            "team": TEAM_ID,
            "client_msg_id": secrets.token_hex(16),
            "text": typed_text(text),
            "ts": core.messages.next_ts(),
        }
        root_ts = core.messages.root_ts(_channel(channel), thread_ts) if thread_ts else None
        if thread_ts and root_ts is None:
            raise RefusedError("That thread is gone.")
        if root_ts is not None:
            root = core.messages.get(channel, root_ts)
            message["thread_ts"] = root_ts
            if root is not None:
                message["parent_user_id"] = root["user"]
        core.post(channel, message)
        return str(message["ts"])

    async def press(self, user: User, channel: str, ts: str, where: tuple[str, str], value: Any) -> None:
        """Press or change the element with (block_id, action_id) of a message."""
        core = self._core
        own = core.messages.get_ephemeral(user.id, _channel(channel), ts)
        message = own or core.messages.get(channel, ts)
        if message is None:
            raise RefusedError("That message is gone.")
        pressed = self._pressed(message.get("blocks", []), where, value)
        await self._ask("interactive", payloads.message_action(core, user, channel, message, pressed))

    async def press_in_view(self, user: User, view_id: str, where: tuple[str, str], value: Any) -> None:
        """Press or change an element of an open modal or of the Home tab."""
        view = self._view(user, view_id)
        pressed = self._pressed(view["blocks"], where, value)
        view["state"] = {"values": state_values(view, initial_values(view))[0]}
        await self._ask("interactive", payloads.view_action(self._core, user, view, pressed))

    @staticmethod
    def _pressed(blocks: list[dict[str, Any]], where: tuple[str, str], value: Any) -> dict[str, Any]:
        found = find_element(blocks, *where)
        if found is None:
            raise RefusedError("That button is no longer there: the message has changed.")
        block, element = found
        try:
            state = typed_value(element, value)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        return payloads.action(element, block["block_id"], state, None if value is None else str(value))

    async def command(self, user: User, channel: str, typed: str) -> None:
        """Type a slash command; the answer arrives as a message."""
        core = self._core
        name, _, text = typed.strip().partition(" ")
        if name == "/invite":
            self._invite(user, _channel(channel), text)
            return
        if name not in {known.command for known in core.manifest.commands}:
            raise RefusedError(f"{name} is not a valid command. Type / to see the commands there are.")
        payload = payloads.command(core, user, _channel(channel), name, text.strip())
        answer = await self._ask("slash_commands", payload)
        if answer.get("text") or answer.get("blocks"):
            to = ResponseUrl(user.id, channel, None, None, False, 0.0)
            try:
                give(core, to, answer)
            except SlackError as error:
                raise RefusedError(f'{name} failed with the error "{error.code}"') from None

    def _invite(self, user: User, channel: str, text: str) -> None:
        if f"<@{BOT.id}>" not in typed_text(text):
            raise RefusedError("Only sre-bot can be invited: /invite @sre-bot")
        if channel not in self._core.members:
            self._core.join(channel, user.id)

    def _view(self, user: User, view_id: str) -> dict[str, Any]:
        view = self._core.views.find(user.id, view_id)
        if view is None:
            raise RefusedError("That window is closed.")
        return view

    async def submit(self, user: User, view_id: str, given: dict[str, dict[str, Any]]) -> None:
        """Send a modal. What is missing is said before the bot hears of it, as Slack's client does."""
        view = self._view(user, view_id)
        values, complaints = state_values(view, given)
        if complaints:
            raise RefusedError("Some fields need another look.", complaints)
        view["state"] = {"values": values}
        payload = payloads.view_submission(self._core, user, view)
        answer = await self._ask("interactive", payload)
        self._follow(user, view, answer)

    def _follow(self, user: User, view: dict[str, Any], answer: dict[str, Any]) -> None:
        """Do what the bot answered to a submission: nothing means close this modal."""
        views = self._core.views
        wanted = answer.get("response_action")
        if wanted == "errors":
            errors = {str(block): str(why) for block, why in (answer.get("errors") or {}).items()}
            inputs = {block["block_id"] for block in view["blocks"] if block["type"] == "input"}
            if not errors or not set(errors) <= inputs:
                raise RefusedError("sre-bot named errors for fields that are not there.")
            raise RefusedError("sre-bot did not accept this.", errors)
        try:
            if wanted == "update":
                views.update(view["id"], checked_view(self._core, answer.get("view"), "modal"))
            elif wanted == "push":
                views.push(user.id, checked_view(self._core, answer.get("view"), "modal"))
            else:
                views.close(user.id, view["id"], everything=wanted == "clear")
        except SlackError as error:
            reasons = "; ".join(error.more.get("errors", [error.code]))
            raise RefusedError(f"sre-bot answered with a window Slack refuses: {reasons}") from None

    def close(self, user: User, view_id: str) -> None:
        """Close a modal without sending it; the bot is told when the view asks for that."""
        view = self._view(user, view_id)
        clears = bool(view["clear_on_close"])
        for closed in self._core.views.close(user.id, view_id, everything=clears):
            if closed["notify_on_close"]:
                self._core.delivery.notify(payloads.view_closed(user, closed, clears))

    def open_home(self, user: User) -> None:
        self._core.feed.home_opened(user.id, self._core.views.home(user.id))
