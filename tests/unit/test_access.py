"""Who may decide, asked of a server that answers as Slack's users.info and usergroups.users.list do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.slack.access import Access, AccessPolicy
from bot.slack.client import make_client

TEAM = "T0LOCAL"


@dataclass
class People:
    """What the server answers; ``error`` instead of anything when set, after ``delay_s``."""

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    group: list[str] = field(default_factory=list)
    error: str = ""
    delay_s: float = 0.0
    group_calls: int = 0
    base_url: str = ""

    async def user(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        asked = {**request.query, **await request.post()}
        found = self.users.get(str(asked.get("user")))
        if self.error or found is None:
            return web.json_response({"ok": False, "error": self.error or "user_not_found"})
        return web.json_response({"ok": True, "user": {"team_id": TEAM, **found}})

    async def members(self, request: web.Request) -> web.Response:
        del request
        self.group_calls += 1
        if self.error:
            return web.json_response({"ok": False, "error": self.error})
        return web.json_response({"ok": True, "users": self.group})


@pytest.fixture
async def people() -> AsyncIterator[People]:
    answers = People(users={"U1": {"id": "U1"}, "U2": {"id": "U2"}}, group=["U2"])
    app = web.Application()
    app.router.add_route("*", "/api/users.info", answers.user)
    app.router.add_route("*", "/api/usergroups.users.list", answers.members)
    async with TestServer(app) as server:
        answers.base_url = str(server.make_url("/api/"))
        yield answers


def access(people: People, *, ids: tuple[str, ...] = ("U1",), group: str | None = "S1") -> Access:
    return Access(make_client("xoxb-test", people.base_url), AccessPolicy(TEAM, frozenset(ids), group))


async def test_listed_people_and_members_of_the_group_may_decide(people: People) -> None:
    asked = access(people)
    assert await asked.check("U1", TEAM) == ""
    assert await asked.check("U2", TEAM) == ""


async def test_others_may_not_decide_but_may_stop(people: People) -> None:
    people.group = []
    asked = access(people)
    assert "neither on the list nor in the user group" in await asked.check("U2", TEAM)
    assert await asked.check_member("U2", TEAM) == ""
    assert await access(people, group=None).check("U2", TEAM) == "you are not on the list of approvers"
    assert await access(people, ids=(), group=None).check("U2", TEAM) == "nobody is set as an approver"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"is_restricted": True}, "guests"),
        ({"is_ultra_restricted": True}, "guests"),
        ({"is_bot": True}, "apps"),
        ({"deleted": True}, "deactivated"),
        ({"team_id": "T0OTHER"}, "other workspaces"),
    ],
)
async def test_being_listed_does_not_help_those(people: People, facts: dict[str, Any], why: str) -> None:
    people.users["U1"] |= facts
    asked = access(people)
    assert why in await asked.check("U1", TEAM)
    assert why in await asked.check_member("U1", TEAM)


async def test_another_workspace_in_the_payload_is_refused_without_asking(people: People) -> None:
    people.error = "internal_error"
    assert "other workspaces" in await access(people).check("U1", "T0OTHER")


async def test_what_changed_since_the_last_click_counts(people: People) -> None:
    asked = access(people)
    assert await asked.check("U1", TEAM) == ""
    people.users["U1"]["deleted"] = True
    assert "deactivated" in await asked.check("U1", TEAM)


@pytest.mark.parametrize("error", ["user_not_found", "ratelimited", "missing_scope"])
async def test_an_error_means_no(people: People, error: str) -> None:
    people.error = error
    assert error in await access(people).check("U1", TEAM)


async def test_a_refusal_is_a_clause_that_a_sentence_can_end(people: People) -> None:
    people.error = "ratelimited"
    for why in (await access(people).check("U1", TEAM), await access(people).check_member("U1", TEAM)):
        assert why.endswith("Try again in a minute")


@pytest.mark.parametrize(("error", "delay_s"), [("ratelimited", 0.0), ("internal_error", 0.0), ("", 30.0)])
async def test_stopping_needs_no_answer_of_slack(people: People, error: str, delay_s: float) -> None:
    people.error, people.delay_s = error, delay_s
    asked = access(people)
    assert await asked.check_may_stop("U2", TEAM) == ""
    assert "other workspaces" in await asked.check_may_stop("U2", "T0OTHER")
    assert await asked.check_member("U2", TEAM) != ""


@pytest.mark.parametrize(
    ("facts", "why"), [({"is_restricted": True}, "guests"), ({"is_bot": True}, "apps"), ({"deleted": True}, "deactiv")]
)
async def test_who_is_known_to_be_no_member_may_not_stop(people: People, facts: dict[str, Any], why: str) -> None:
    people.users["U2"] |= facts
    asked = access(people)
    assert why in await asked.check_may_stop("U2", TEAM)
    people.error = "ratelimited"
    assert why in await asked.check_may_stop("U2", TEAM)
    people.error = ""
    people.users["U2"] = {"id": "U2"}
    assert await asked.check_may_stop("U2", TEAM) == ""
    people.error = "ratelimited"
    assert await asked.check_may_stop("U2", TEAM) == ""


async def test_no_answer_in_time_means_no(people: People) -> None:
    people.delay_s = 30.0
    assert "no answer" in await access(people).check("U1", TEAM)


async def test_the_group_is_asked_once_a_minute_and_a_failure_is_no_yes(people: People) -> None:
    asked = access(people)
    for _ in range(3):
        assert await asked.check("U2", TEAM) == ""
    assert people.group_calls == 1
    fresh = access(people)
    people.error = "ratelimited"
    assert "ratelimited" in await fresh.check("U2", TEAM)
