"""Open modals (a stack for each person) and published Home tabs."""

import copy
import secrets
from typing import Any

from bot.demo.slack.blockfill import filled
from bot.demo.slack.changes import Changes
from bot.demo.slack.errors import SlackError
from bot.demo.slack.journal import Journal
from bot.demo.slack.workspace import APP_ID, BOT_ID, TEAM_ID

MAX_STACK = 3
"""Modals that may lie on each other."""

View = dict[str, Any]


class Views:
    """Views as Slack's JSON. Homes survive a restart, open modals do not."""

    def __init__(self, journal: Journal, changes: Changes) -> None:
        self._journal = journal
        self._changes = changes
        self._stacks: dict[str, list[View]] = {}
        self._homes: dict[str, View] = dict(journal.all("home"))

    def _build(self, spec: View) -> View:
        view_id = "V" + secrets.token_hex(5).upper()
        built: View = {
            "id": view_id,
            "team_id": TEAM_ID,
            "app_id": APP_ID,
            "app_installed_team_id": TEAM_ID,
            "bot_id": BOT_ID,
            "title": None,
            "close": None,
            "submit": None,
            "private_metadata": "",
            "callback_id": "",
            "external_id": "",
            "clear_on_close": False,
            "notify_on_close": False,
            "root_view_id": view_id,
            "previous_view_id": None,
            "hash": secrets.token_hex(8),
            "state": {"values": {}},
            **{key: value for key, value in spec.items() if value is not None},
        }
        built["blocks"] = filled(spec["blocks"])
        return built

    def _check_external_id(self, spec: View, replaced: View | None = None) -> None:
        wanted = spec.get("external_id")
        if wanted:
            everything = [*self._homes.values(), *(v for stack in self._stacks.values() for v in stack)]
            if any(view["external_id"] == wanted and view is not replaced for view in everything):
                raise SlackError("duplicate_external_id")

    def open(self, user_id: str, spec: View) -> View:
        """Show a modal to that person; one that is open already is replaced by it."""
        self._check_external_id(spec)
        view = self._build(spec)
        self._stacks[user_id] = [view]
        self._changes.bump(only=user_id)
        return copy.deepcopy(view)

    def push(self, user_id: str, spec: View) -> View:
        """Lay a modal on the open one."""
        self._check_external_id(spec)
        stack = self._stacks.get(user_id, [])
        if not stack:
            raise SlackError("not_found")
        if len(stack) >= MAX_STACK:
            raise SlackError("push_limit_reached")
        view = self._build(spec)
        view |= {"root_view_id": stack[0]["id"], "previous_view_id": stack[-1]["id"]}
        stack.append(view)
        self._changes.bump(only=user_id)
        return copy.deepcopy(view)

    def update(self, view_id: str, spec: View, expected_hash: str | None = None) -> View:
        """Replace the content of an open view, keeping its id. Raises not_found or hash_conflict."""
        user_id, view = self._find(view_id)
        if expected_hash and expected_hash != view["hash"]:
            raise SlackError("hash_conflict")
        self._check_external_id(spec, view)
        kept = {key: view[key] for key in ("id", "root_view_id", "previous_view_id")}
        new = self._build(spec) | kept
        view.clear()
        view.update(new)
        self._changes.bump(only=user_id)
        return copy.deepcopy(view)

    def publish(self, user_id: str, spec: View, expected_hash: str | None = None) -> View:
        """Set that person's Home tab."""
        current = self._homes.get(user_id)
        if expected_hash and (current is None or expected_hash != current["hash"]):
            raise SlackError("hash_conflict")
        self._check_external_id(spec, current)
        view = self._build(spec)
        if current is not None:
            view |= {"id": current["id"], "root_view_id": current["id"]}
        self._homes[user_id] = view
        self._journal.put("home", user_id, view)
        self._changes.bump(only=user_id)
        return copy.deepcopy(view)

    def _find(self, view_id: str) -> tuple[str, View]:
        for user_id, stack in self._stacks.items():
            for view in stack:
                if view["id"] == view_id:
                    return user_id, view
        raise SlackError("not_found")

    def find(self, user_id: str, view_id: str) -> View | None:
        """A view this person has before them: an open modal or the Home tab."""
        mine = [*self._stacks.get(user_id, []), *filter(None, [self._homes.get(user_id)])]
        return next((copy.deepcopy(view) for view in mine if view["id"] == view_id), None)

    def id_of(self, external_id: str) -> str | None:
        views = (view for stack in self._stacks.values() for view in stack)
        return next((view["id"] for view in views if view["external_id"] == external_id), None)

    def close(self, user_id: str, view_id: str, *, everything: bool = False) -> list[View]:
        """Close that modal and what lies on it (or the whole stack); the closed ones, top first."""
        stack = self._stacks.get(user_id, [])
        at = next((i for i, view in enumerate(stack) if view["id"] == view_id), len(stack))
        closed = stack if everything else stack[at:]
        self._stacks[user_id] = [] if everything else stack[:at]
        self._changes.bump(only=user_id)
        return copy.deepcopy(closed[::-1])

    def stack(self, user_id: str) -> list[View]:
        return copy.deepcopy(self._stacks.get(user_id, []))

    def home(self, user_id: str) -> View | None:
        return copy.deepcopy(self._homes.get(user_id))
