"""Who may do what: asked of Slack at the click, on team id and user id. No answer means no, except to stopping."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.client import SLACK_TROUBLE, error_code
from pipeline.domain.approval import ApprovalRule

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 1.5
"""Slack waits 3 s for the click's acknowledgement, and the decision is written to the database in the same time."""
GROUP_FRESH_S = 20.0
"""usergroups.* may be called 20 times a minute, and a policy may name several groups."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Who may resume and set the phase: those listed and the members of the user group, in the bot's own workspace.

    Who may decide on a plan is for its ballot to say.
    """

    team_id: str
    approver_ids: frozenset[str]
    approver_group: str | None = None
    """Id of a user group (S…)."""


class Access:
    """Answers with an empty string for yes, or with the reason for no in words."""

    def __init__(self, client: AsyncWebClient, policy: AccessPolicy) -> None:
        self._client = client
        self._policy = policy
        self._groups: dict[str, _Group] = {}
        self._refused: dict[str, str] = {}

    async def check(self, user_id: str, team_id: str) -> str:
        """Whether this person may order the bot: resume, change the phase."""
        group = self._policy.approver_group
        own = ApprovalRule.model_construct(
            tiers=(),
            severities=(),
            people=1,
            users=tuple(self._policy.approver_ids),
            groups=(group,) if group else (),
        )
        return await self.check_rule(user_id, team_id, own)

    async def check_rule(self, user_id: str, team_id: str, rule: ApprovalRule) -> str:
        """Whether this person may decide where ``rule`` counts."""
        (why,) = await self.check_rules(user_id, team_id, [rule])
        return why

    async def check_rules(self, user_id: str, team_id: str, rules: Sequence[ApprovalRule]) -> tuple[str, ...]:
        """The same of several rules."""
        return await self._within(self._may_decide(user_id, team_id, rules), lambda why: (why,) * len(rules))

    async def check_member(self, user_id: str, team_id: str) -> str:
        """Whether this person may tend incidents: a full member of the workspace."""
        return await self._within(self._is_member(user_id, team_id), str)

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

    async def _within(self, question: Awaitable[_Answer], no: Callable[[str], _Answer]) -> _Answer:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await question
        except SLACK_TROUBLE as error:
            why = error_code(error) if isinstance(error, SlackApiError) else "no answer"
            return no(
                f"Slack could not tell who you are ({why or 'it failed'}), so nothing is done. Try again in a minute"
            )

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

    async def _may_decide(self, user_id: str, team_id: str, rules: Sequence[ApprovalRule]) -> tuple[str, ...]:
        no = await self._is_member(user_id, team_id)
        if no:
            return (no,) * len(rules)
        asked = {group for rule in rules if user_id not in rule.users for group in rule.groups}
        member_of = [group for group in sorted(asked) if user_id in await self._group_members(group)]
        return tuple(rule.why_not(user_id, member_of) for rule in rules)

    async def _group_members(self, group_id: str) -> frozenset[str]:
        group = self._groups.setdefault(group_id, _Group())
        async with group.reading:  # many clicks at once ask Slack once
            if time.monotonic() - group.read_s >= GROUP_FRESH_S:
                answer = await self._client.usergroups_users_list(usergroup=group_id)
                group.members = frozenset(str(user_id) for user_id in answer["users"])
                group.read_s = time.monotonic()
            return group.members


@dataclass(slots=True)
class _Group:
    """The members of a user group when they were last read."""

    members: frozenset[str] = frozenset()
    read_s: float = float("-inf")
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
