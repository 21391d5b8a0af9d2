"""Who may do what: asked of Slack at the click, on team id and user id. No answer means no, except to stopping."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.client import SLACK_TROUBLE, error_code

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 1.5
"""Slack waits 3 s for the click's acknowledgement, and the decision is written to the database in the same time."""
GROUP_FRESH_S = 60.0
"""usergroups.* may be called 20 times a minute."""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Approvers are those listed and the members of the user group, in the bot's own workspace."""

    team_id: str
    approver_ids: frozenset[str]
    approver_group: str | None = None
    """Id of a user group (S…)."""


class Access:
    """Answers with an empty string for yes, or with the reason for no in words."""

    def __init__(self, client: AsyncWebClient, policy: AccessPolicy) -> None:
        self._client = client
        self._policy = policy
        self._members: frozenset[str] = frozenset()
        self._members_read_s = float("-inf")
        self._refused: dict[str, str] = {}

    async def check(self, user_id: str, team_id: str) -> str:
        """Whether this person may decide: approve, reject, resume, change the phase."""
        return await self._within(self._may_decide(user_id, team_id))

    async def check_member(self, user_id: str, team_id: str) -> str:
        """Whether this person may tend incidents: a full member of the workspace."""
        return await self._within(self._is_member(user_id, team_id))

    async def check_may_stop(self, user_id: str, team_id: str) -> str:
        """Whether this person may engage the kill switch: a full member of the workspace.

        The one question where Slack's silence (outage, rate limit) means yes, for stopping is the safe side. Refused
        are other workspaces, and those whom Slack calls a guest, an app or deactivated, now or when it last answered.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._is_member(user_id, team_id)
        except SLACK_TROUBLE as error:
            known = self._refused.get(user_id, "")
            log.warning("Slack does not say who %s is (%r): stopping is %s", user_id, error, known or "allowed")
            return known

    async def _within(self, question: Awaitable[str]) -> str:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await question
        except SLACK_TROUBLE as error:
            why = error_code(error) if isinstance(error, SlackApiError) else "no answer"
            return f"Slack could not tell who you are ({why or 'it failed'}), so nothing is done. Try again in a minute"

    async def _is_member(self, user_id: str, team_id: str) -> str:
        if team_id != self._policy.team_id:
            return "people of other workspaces may not do this"
        answer = await self._client.users_info(user=user_id)
        why = self._refusal(user_id, answer["user"])
        if why:
            self._refused[user_id] = why
        else:
            self._refused.pop(user_id, None)
        return why

    def _refusal(self, user_id: str, user: dict[str, Any]) -> str:
        if user.get("team_id") != self._policy.team_id:
            return "people of other workspaces may not do this"
        if user.get("is_bot") or user.get("is_app_user") or user_id == "USLACKBOT":
            return "apps may not do this"
        if user.get("deleted"):
            return "this account is deactivated"
        if user.get("is_restricted") or user.get("is_ultra_restricted") or user.get("is_stranger"):
            return "guests may not do this"
        return ""

    async def _may_decide(self, user_id: str, team_id: str) -> str:
        no = await self._is_member(user_id, team_id)
        if no:
            return no
        if user_id in self._policy.approver_ids:
            return ""
        if self._policy.approver_group is None:
            if not self._policy.approver_ids:
                return "nobody is set as an approver"
            return "you are not on the list of approvers"
        if user_id in await self._group_members(self._policy.approver_group):
            return ""
        return "you are neither on the list nor in the user group of approvers"

    async def _group_members(self, group: str) -> frozenset[str]:
        if time.monotonic() - self._members_read_s >= GROUP_FRESH_S:
            answer = await self._client.usergroups_users_list(usergroup=group)
            self._members = frozenset(str(user_id) for user_id in answer["users"])
            self._members_read_s = time.monotonic()
        return self._members
