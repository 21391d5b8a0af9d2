"""People at the local Slack, the real Bolt app over Socket Mode, and a desk that records what reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from slack_sdk.errors import SlackRequestError

from bot.demo.slack.people import RefusedError
from bot.slack import names, replies
from pipeline.domain.approval import ApprovalRule, DecisionOutcome, DecisionResult, default_rules
from pipeline.domain.errors import OutcomeUnknown, TemporaryError
from pipeline.domain.ids import IncidentId, SlackUserId
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.notice import ThreadNotice, ThreadPart
from pipeline.domain.severity import Severity
from pipeline.ports.control import KillSwitch
from pipeline.stages.desk import Desk
from tests.builders import ALICE, INCIDENT, PLAN, TOKEN, after, make_case, make_incident, make_plan, make_ways
from tests.desk_double import DeskDouble
from tests.slack_stage import CHANNEL, WAIT_S, Stage, stage, thread_row

REASON = {names.REASON_BLOCK: {names.TYPED: "deploy running"}}


@pytest.fixture
async def on_stage() -> AsyncIterator[Stage]:
    async with stage() as running:
        yield running


def whispers(state: dict[str, Any], channel: str = CHANNEL) -> str:
    """All that only this person sees in the channel."""
    return "\n".join(str(m.get("blocks") or m["text"]) for m in state["messages"][channel] if m.get("ephemeral"))


async def told(person: Any, words: str, channel: str = CHANNEL) -> str:
    """Waits until the person alone was told these words."""

    def look(state: dict[str, Any]) -> str:
        shown = whispers(state, channel)
        return shown if words in shown else ""

    look.__name__ = f"whisper {words!r}"
    return str(await person.wait_for(look, WAIT_S))


async def reply_with(person: Any, root_ts: str, words: str) -> dict[str, Any]:
    """Waits for a reply of the bot in the thread."""

    def look(state: dict[str, Any]) -> dict[str, Any] | None:
        replies = [m for m in state["messages"][CHANNEL] if m.get("thread_ts") == root_ts and m.get("bot_id")]
        return next((m for m in replies if m["ts"] != root_ts and words in str(m["blocks"])), None)

    look.__name__ = f"reply {words!r}"
    found: dict[str, Any] = await person.wait_for(look, WAIT_S)
    return found


async def modal_with(person: Any, words: str) -> dict[str, Any]:
    def look(state: dict[str, Any]) -> dict[str, Any] | None:
        return next((view for view in state["modals"] if words in str(view)), None)

    look.__name__ = f"modal {words!r}"
    found: dict[str, Any] = await person.wait_for(look, WAIT_S)
    return found


def test_the_double_has_the_methods_of_the_real_desk() -> None:
    for name, method in inspect.getmembers(Desk, inspect.iscoroutinefunction):
        if name.startswith("_"):
            continue
        assert inspect.signature(method) == inspect.signature(getattr(DeskDouble, name)), name


async def test_an_approver_approves(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.APPROVE)
        assert on_stage.desk.called("approve") == [(PLAN, ALICE)]
        assert whispers(await alice.state()) == ""
    async with on_stage.person("U0BOB") as bob:
        await bob.click(CHANNEL, ts, names.APPROVE)
    assert len(on_stage.desk.called("approve")) == 2


@pytest.mark.parametrize("user", ["U0CARLA", "U0GIL"])
async def test_others_are_told_no_and_leave_an_audit_row(on_stage: Stage, user: str) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person(user) as person:
        await person.click(CHANNEL, ts, names.APPROVE)
        await told(person, "You may not decide")
        await person.click(CHANNEL, ts, names.REJECT)
        await person.wait_for(lambda _: len(on_stage.desk.called("denied")) == 2, WAIT_S)
        assert await person.modals() == []
    assert on_stage.desk.called("approve") == []
    assert [(incident, who, what) for incident, who, what, _ in on_stage.desk.called("denied")] == [
        (INCIDENT, user, f"approve plan {PLAN}"),
        (INCIDENT, user, f"reject plan {PLAN}"),
    ]


async def test_a_late_click_is_told_who_was_first(on_stage: Stage) -> None:
    on_stage.desk.decision = DecisionResult(
        DecisionOutcome.ALREADY_DECIDED, "Too late: already approved by <@U0BOB>. <!channel>"
    )
    ts = await on_stage.post_card()
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.APPROVE)
        shown = await told(alice, "already approved by <@U0BOB>")
    assert "<!channel>" not in shown


async def test_a_decision_that_cannot_be_stored_is_not_acknowledged(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    on_stage.desk.failing = TemporaryError("the database is away")
    async with on_stage.person("U0ALICE") as alice:
        with pytest.raises(RefusedError):
            await alice.click(CHANNEL, ts, names.APPROVE)
        await told(alice, "the database is away")


async def test_rejecting_takes_a_reason(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.REJECT)
        view = await modal_with(alice, "Why not?")
        assert view["private_metadata"] == TOKEN
        with pytest.raises(RefusedError) as refused:
            await alice.submit(view["id"], {names.REASON_BLOCK: {names.TYPED: "   "}})
        assert names.REASON_BLOCK in refused.value.errors
        await alice.submit(view["id"], REASON)
        assert await alice.modals() == []
    assert on_stage.desk.called("reject") == [(PLAN, ALICE, "deploy running")]


async def test_a_late_rejection_stays_in_the_window(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    on_stage.desk.decision = DecisionResult(DecisionOutcome.EXPIRED, "Too late: the proposal has expired.")
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.REJECT)
        await alice.submit((await modal_with(alice, "Why not?"))["id"], REASON)
        await modal_with(alice, "the proposal has expired")


async def with_ways(stage_: Stage) -> str:
    """The ts of a card whose plan has two other ways, the second of them on another platform."""
    stage_.desk.the_case = make_case(plan=make_plan(alternatives=make_ways()))
    return await stage_.post_card()


def way(number: int) -> dict[str, dict[str, Any]]:
    return {names.WAY_BLOCK: {names.TYPED: str(number)}}


async def test_another_way_is_taken_from_the_card(on_stage: Stage) -> None:
    ts = await with_ways(on_stage)
    on_stage.desk.answers_after_s = 3.5  # longer than a click waits
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.OTHER_WAYS)
        view = await modal_with(alice, "Roll back from revision 3f9a1c2 to 1b2c3d4 on argocd")
        assert "kubectl" not in str(view), "what only a person could do is no choice"
        with pytest.raises(RefusedError) as refused:
            await alice.submit(view["id"], {})
        assert names.WAY_BLOCK in refused.value.errors
        await alice.submit(view["id"], way(1))
        assert await alice.modals() == []
        shown = await told(alice, "Proposed as revision 2")
        assert "<!channel>" not in shown
    assert on_stage.desk.called("another_way") == [(PLAN, 1, ALICE)]


async def test_another_way_is_taken_on_home(on_stage: Stage) -> None:
    on_stage.desk.the_case = make_case(plan=make_plan(alternatives=make_ways()))
    async with on_stage.person("U0ALICE") as alice:
        await alice.home()
        home = await alice.wait_for(lambda state: state["home"], WAIT_S)
        await alice.click_in_view(home["id"], names.OTHER_WAYS)
        await alice.submit((await modal_with(alice, "Propose instead"))["id"], way(0))
        await alice.wait_for(lambda state: "Proposed as revision 2" in str(state["home"]), WAIT_S)
    assert on_stage.desk.called("another_way") == [(PLAN, 0, ALICE)]


async def test_another_way_is_for_those_who_may_decide(on_stage: Stage) -> None:
    ts = await with_ways(on_stage)
    async with on_stage.person("U0CARLA") as carla:
        await carla.click(CHANNEL, ts, names.OTHER_WAYS)
        await told(carla, "You may not decide")
        assert await carla.modals() == []
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.OTHER_WAYS)
        view = await modal_with(alice, "Propose instead")
        on_stage.desk.rules = (ApprovalRule(people=1, users=("U0BOB",)),)  # in the meantime
        with pytest.raises(RefusedError) as refused:
            await alice.submit(view["id"], way(0))
        assert "You may not decide" in str(refused.value.errors)
        await alice.wait_for(lambda _: len(on_stage.desk.called("denied")) == 2, WAIT_S)
    assert on_stage.desk.called("another_way") == []
    assert [call[2] for call in on_stage.desk.called("denied")] == [f"replace plan {PLAN}"] * 2


async def test_another_way_that_cannot_be_noted_stays_in_the_window_and_a_late_click_opens_none(
    on_stage: Stage,
) -> None:
    ts = await with_ways(on_stage)
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, ts, names.OTHER_WAYS)
        view = await modal_with(alice, "Propose instead")
        on_stage.desk.failing = TemporaryError("the database is away")
        with pytest.raises(RefusedError) as refused:
            await alice.submit(view["id"], way(0))
        assert "the database is away" in str(refused.value.errors)
        on_stage.desk.failing = None
        await alice.close_view(view["id"])
        on_stage.desk.the_case = replace(on_stage.desk.the_case, incident=make_incident(IncidentState.MITIGATING))
        await alice.click(CHANNEL, ts, names.OTHER_WAYS)
        await told(alice, "does not wait any more")
        assert await alice.modals() == []


async def test_evidence_and_dry_run_open_windows(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person("U0CARLA") as carla:
        await carla.click(CHANNEL, ts, names.EVIDENCE)
        view = await modal_with(carla, "process_resident_memory_bytes")
        await carla.close_view(view["id"])
        await carla.click(CHANNEL, ts, names.DRY_RUN)
        await modal_with(carla, "restart checkout-1")


async def test_the_menu_tends_the_incident(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person("U0CARLA") as carla:
        for what in ("mute", "not_an_incident", "take_ownership", "escalate", "close"):
            await carla.click(CHANNEL, ts, names.MORE, f"{what}:{INCIDENT}")
            assert on_stage.desk.called(what) == [(INCIDENT, "U0CARLA")]
        await told(carla, "It is yours")
    async with on_stage.person("U0GIL") as guest:
        await guest.click(CHANNEL, ts, names.MORE, f"close:{INCIDENT}")
        await told(guest, "guests may not do this")
    assert len(on_stage.desk.called("close")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/sre status", ["Phase *Assist*", "127.0.0.1:9 refused", "2 could not be sent", "no ANTHROPIC_API_KEY"]),
        ("/sre status INC-42", ["Awaiting decision", "checkout-1 leaks memory", "[E1][E2][E3]"]),
        ("/sre status INC-7", ["there is no INC-7"]),
        ("/sre status yesterday", ["is no incident: write INC-42"]),
        ("/sre incidents", ["INC-42", "Awaiting decision"]),
        ("/sre approvals", ["INC-42", "Restart checkout-1", "expires"]),
        ("/sre investigate checkout", ["checkout: p99 240 ms"]),
        ("/sre ask why?", ["checkout-1 grows [E1]", "&lt;!channel&gt; is only text"]),
        ("/sre ask INC-42 why?", ["checkout-1 grows [E1]"]),
        ("/sre ask is checkout slow?", ["checkout-1 grows [E1]"]),
        ("/sre ask is payments slow?", ["payments is as usual [E1]"]),
        ("/sre phase", ["Phase: Assist", "incidents diagnosed: 3 (needs ≥ 50)"]),
        ("/sre-phase", ["Phase: Assist"]),
        ("/sre dry-run INC-42", ["restart checkout-1"]),
        ("/sre whoami", ["<@U0ALICE>", "You may approve"]),
        ("/sre help", ["kill [service|env:name|all] &lt;reason&gt;`", "`/sre dry-run &lt;INC-42&gt;`"]),
        ("/sre stop", ["Did you mean `/sre kill all &lt;reason&gt;`?", "investigate &lt;service&gt; [since 30m]"]),
        ("/sre Pause! now", ["Did you mean `/sre kill all &lt;reason&gt;`?"]),
        ("/sre dry-run", ["name an incident: /sre dry-run INC-42"]),
        ("/sre phase set", ["phase set &lt;phase&gt; &lt;reason&gt;"]),
        ("/sre", ["kill [service|env:name|all]"]),
        ("/sre statsu", ["Did you mean `/sre status`?"]),
        ("/sre <!channel>", ["I do not know `&lt;!channel&gt;`"]),
        ("/sre resume all done", ["Nothing is stopped"]),
        ("/sre phase set assist we are ready", ["Phase is now *assist*"]),
    ],
)
async def test_commands_answer_the_person_who_asked(on_stage: Stage, text: str, words: list[str]) -> None:
    async with on_stage.person("U0ALICE") as alice:
        await alice.command(text, "C0GENERAL")
        shown = await told(alice, words[0], "C0GENERAL")
    for word in words:
        assert word in shown


async def test_whoami_says_for_what_one_may_approve(on_stage: Stage) -> None:
    own = ApprovalRule(severities=(Severity.SEV1,), people=1, users=("U0CARLA",))
    on_stage.desk.rules = (own, *default_rules(2, ("U0ALICE",)))
    async with on_stage.person("U0CARLA") as carla:
        await carla.command("/sre whoami", "C0GENERAL")
        shown = await told(carla, "You may approve and reject for tier 1: SEV1; tier 2: SEV1;", "C0GENERAL")
    assert "tier 4: SEV1; nothing else" in shown
    assert "You may not resume or set the phase" in shown
    async with on_stage.person("U0GIL") as guest:
        await guest.command("/sre whoami", "C0GENERAL")
        await told(guest, "You may not approve: guests may not do this", "C0GENERAL")


async def test_what_takes_long_is_promised_first(on_stage: Stage) -> None:
    on_stage.desk.answers_after_s = 3.5
    async with on_stage.person("U0CARLA") as carla:
        await carla.command("/sre investigate checkout", "C0GENERAL")
        await told(carla, "checkout: p99 240 ms", "C0GENERAL")
        assert "Working on it" in str(await carla.messages("C0GENERAL"))


async def test_killing_stops_more_rather_than_less(on_stage: Stage) -> None:
    async with on_stage.person("U0CARLA") as carla:
        await carla.command("/sre-kill checkout it flaps", CHANNEL)
        await carla.command("/sre kill all deploy freeze", CHANNEL)
        await carla.command("/sre kill everything burns", CHANNEL)
        await told(carla, "No service “everything” here")
    assert on_stage.desk.called("kill") == [
        ("checkout", "it flaps", "U0CARLA"),
        ("all", "deploy freeze", "U0CARLA"),
        ("all", "everything burns", "U0CARLA"),
    ]


async def test_killing_without_a_reason_asks_for_one(on_stage: Stage) -> None:
    async with on_stage.person("U0CARLA") as carla:
        await carla.command("/sre-kill", CHANNEL)
        view = await modal_with(carla, "Stop the bot")
        await carla.submit(view["id"], REASON)
        await modal_with(carla, "Kill switch ON for *all*")
    assert on_stage.desk.called("kill") == [("all", "deploy running", "U0CARLA")]


async def test_a_guest_may_not_kill_and_an_engineer_may_not_resume(on_stage: Stage) -> None:
    on_stage.desk.switches = (KillSwitch("all", True, "freeze", "U0BOB", after(0), None),)
    async with on_stage.person("U0GIL") as guest:
        await guest.command("/sre kill all because", CHANNEL)
        await told(guest, "guests may not do this")
    async with on_stage.person("U0CARLA") as carla:
        await carla.command("/sre resume all because", CHANNEL)
        await told(carla, "neither on the list nor in the user group")
        await carla.command("/sre phase set shadow because", CHANNEL)
    async with on_stage.person("U0BOB") as bob:
        await bob.command("/sre resume freeze is over", CHANNEL)
        await told(bob, "released")
    assert on_stage.desk.called("kill") == on_stage.desk.called("set_phase") == []
    assert on_stage.desk.called("resume") == [("all", "freeze is over", "U0BOB")]
    assert [call[2] for call in on_stage.desk.called("denied")] == ["kill", "resume", "phase set"]


async def test_replies_in_the_thread_are_questions_and_stop_stops(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person("U0GIL") as guest:
        await guest.say("why that replica?", CHANNEL, thread_ts=ts)
        answer = await reply_with(guest, ts, "checkout-1 grows [E1]")
        assert "<!channel>" not in str(answer["blocks"])
        await guest.say("Stop!", CHANNEL, thread_ts=ts)
        await reply_with(guest, ts, "Rejected; nothing is changed")
        await guest.say("@sre-bot & why <now>?", CHANNEL, thread_ts=ts)
        await guest.wait_for(lambda _: len(on_stage.desk.called("ask")) == 2, WAIT_S)
    assert on_stage.desk.called("halt") == [(INCIDENT, "U0GIL")]
    assert [call[1:] for call in on_stage.desk.called("ask")] == [
        ("why that replica?", "U0GIL", False),
        ("& why <now>?", "U0GIL", False),
    ], "a guest may ask, and propose nothing"


async def test_an_answer_grows_in_its_thread_and_ends_as_the_checked_one(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    on_stage.desk.pieces = ("It seems that ", "checkout-1 <!channel> grows, see https://evil.example/x ")
    async with on_stage.person("U0CARLA") as carla:
        await carla.say("why?", CHANNEL, thread_ts=ts)
        answer = await reply_with(carla, ts, "checkout-1 grows [E1]")
        said = [m for m in await carla.messages(CHANNEL) if m.get("thread_ts") == ts and m.get("bot_id")]
        replies = [m for m in said if m["ts"] != ts]
    assert [m["ts"] for m in replies if "grows" in str(m["blocks"])] == [answer["ts"]], "one message, no second one"
    assert "evil" not in str(replies)
    assert on_stage.desk.called("ask") == [(INCIDENT, "why?", "U0CARLA", True)]


async def test_where_slack_does_not_stream_the_answer_comes_whole(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(**_: Any) -> None:
        raise SlackRequestError("not here")

    ts = await on_stage.post_card()
    on_stage.desk.pieces = ("It seems that ",)
    monkeypatch.setattr(on_stage.client, "chat_startStream", refused)
    async with on_stage.person("U0CARLA") as carla:
        await carla.say("why?", CHANNEL, thread_ts=ts)
        await reply_with(carla, ts, "checkout-1 grows [E1]")


async def test_somebody_who_knows_better_says_that_the_cause_is_wrong(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    await on_stage.publisher.publish(thread_row(2, ThreadNotice(part=ThreadPart.REASONING)))
    async with on_stage.person("U0GIL") as guest:
        reasoning = await reply_with(guest, ts, "How this was reasoned")
        await guest.click(CHANNEL, reasoning["ts"], names.WRONG_CAUSE)
        await told(guest, "You may not decide")
    async with on_stage.person("U0ALICE") as alice:
        await alice.click(CHANNEL, reasoning["ts"], names.WRONG_CAUSE)
        await told(alice, "not used again")
    assert on_stage.desk.called("wrong_cause") == [(INCIDENT, "U0ALICE")]


async def test_what_is_said_while_the_database_is_away_is_done_when_it_is_back(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ts = await on_stage.post_card()
    asked: list[str] = []
    find, remember = on_stage.desk.incident_of_card, on_stage.desk.first_time

    async def find_later(channel: str, at: str) -> IncidentId | None:
        asked.append(channel)
        if len(asked) % 2:
            raise TemporaryError("the database is away")
        return await find(channel, at)

    async def forget(key: str) -> bool:
        await remember(key)
        raise TemporaryError("the database is away")

    monkeypatch.setattr(on_stage.desk, "incident_of_card", find_later)
    monkeypatch.setattr(on_stage.desk, "first_time", forget)
    async with on_stage.person("U0CARLA") as carla:
        await carla.say("stop", CHANNEL, thread_ts=ts)
        await reply_with(carla, ts, "Rejected; nothing is changed")
        await carla.say("why?", CHANNEL, thread_ts=ts)
        await reply_with(carla, ts, "checkout-1 grows [E1]")
    assert on_stage.desk.called("halt") == [(INCIDENT, "U0CARLA")]
    assert len(on_stage.desk.called("ask")) == 1


@pytest.mark.parametrize("blind", [False, True])
async def test_who_could_not_be_heard_is_told(on_stage: Stage, monkeypatch: pytest.MonkeyPatch, blind: bool) -> None:
    monkeypatch.setattr(replies, "INSIST_S", 1.0)
    ts = await on_stage.post_card()
    on_stage.desk.failing = TemporaryError("the database is away.")

    async def away(channel: str, at: str) -> IncidentId | None:
        del channel, at
        raise TemporaryError("the database is away.")

    if blind:
        monkeypatch.setattr(on_stage.desk, "incident_of_card", away)
    async with on_stage.person("U0CARLA") as carla:
        other = await carla.say("a thread of people", CHANNEL)
        await carla.say("stop", CHANNEL, thread_ts=other)
        await carla.say("why?", CHANNEL, thread_ts=ts)
        await reply_with(carla, ts, "Not answered: the database is away.")
        await carla.say("stop", CHANNEL, thread_ts=ts)
        said = await reply_with(carla, ts, "NOT stopped")
        assert said["blocks"][0]["text"]["text"] == (
            '⚠️ NOT stopped: the database is away. `sre-bot kill all "&lt;reason&gt;"` stops from the command line.'
        )
        assert not [m for m in await carla.messages(CHANNEL) if m.get("thread_ts") == other and m.get("bot_id")]


async def test_a_stop_without_an_answer_is_asked_for_again(on_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    ts = await on_stage.post_card()
    halt, lost = on_stage.desk.halt, [OutcomeUnknown("no answer to COMMIT")]

    async def halt_later(incident_id: IncidentId, user: SlackUserId) -> str:
        if lost:
            raise lost.pop()
        return await halt(incident_id, user)

    monkeypatch.setattr(on_stage.desk, "halt", halt_later)
    async with on_stage.person("U0CARLA") as carla:
        await carla.say("halt!", CHANNEL, thread_ts=ts)
        await reply_with(carla, ts, "Rejected; nothing is changed")


async def test_slack_need_not_say_who_stops(on_stage: Stage) -> None:
    async with on_stage.person("U0CARLA") as carla:
        await on_stage.trouble(rate_limit_s=30)
        await carla.command("/sre kill all deploy freeze", CHANNEL)
        await told(carla, "Kill switch ON for *all*")
        await carla.command("/sre resume all because", CHANNEL)
        await told(carla, "Try again in a minute.")
        assert "minute.." not in whispers(await carla.state())
    assert on_stage.desk.called("kill") == [("all", "deploy freeze", "U0CARLA")]
    assert on_stage.desk.called("resume") == []


async def test_a_mention_outside_threads_is_a_command_and_other_talk_is_none(on_stage: Stage) -> None:
    async with on_stage.person("U0ALICE") as alice:
        await alice.say("lunch?", CHANNEL)
        other = await alice.say("a thread of people", CHANNEL)
        await alice.say("not about an incident", CHANNEL, thread_ts=other)
        asked = await alice.say("@sre-bot status INC-42", CHANNEL)
        await reply_with(alice, asked, "Awaiting decision")
        bots = [m for m in await alice.messages(CHANNEL) if m.get("bot_id")]
    assert len(bots) == 1
    assert on_stage.desk.calls == []


async def test_an_event_delivered_again_is_answered_once(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    async with on_stage.person("U0CARLA") as carla:
        await carla.say("why?", CHANNEL, thread_ts=ts)
        await reply_with(carla, ts, "checkout-1 grows [E1]")
    assert len([key for key in on_stage.desk.seen if key.startswith("slack-event:Ev")]) == 1
    assert len(on_stage.desk.called("ask")) == 1


async def test_home_decides_and_stops(on_stage: Stage) -> None:
    async with on_stage.person("U0ALICE") as alice:
        await alice.home()
        home = await alice.wait_for(lambda state: state["home"], WAIT_S)
        shown = str(home["blocks"])
        for words in ("Pending approvals: 1", "INC-42", "Phase: Assist", "Stop everything"):
            assert words in shown
        await alice.click_in_view(home["id"], names.APPROVE)
        await alice.wait_for(lambda state: "it is being carried out" in str(state["home"]), WAIT_S)
        assert on_stage.desk.called("approve") == [(PLAN, ALICE)]
        await alice.click_in_view(home["id"], names.KILL)
        await alice.submit((await modal_with(alice, "Stop the bot"))["id"], REASON)
        assert on_stage.desk.called("kill") == [("all", "deploy running", ALICE)]
    async with on_stage.person("U0CARLA") as carla:
        await carla.home()
        home = await carla.wait_for(lambda state: state["home"], WAIT_S)
        await carla.click_in_view(home["id"], names.APPROVE)
        await carla.wait_for(lambda state: "You may not decide" in str(state["home"]), WAIT_S)


async def test_home_resumes(on_stage: Stage) -> None:
    on_stage.desk.switches = (
        KillSwitch("all", True, "freeze", "U0BOB", after(0), "U0BOB"),
        KillSwitch("checkout", True, "flaps", "U0CARLA", after(0), None),
    )
    async with on_stage.person("U0ALICE") as alice:
        await alice.home()
        home = await alice.wait_for(lambda state: state["home"], WAIT_S)
        assert "one more person is needed" in str(home["blocks"])
        await alice.click_in_view(home["id"], f"{names.RESUME}:1")
        await alice.submit((await modal_with(alice, "Let the bot run again"))["id"], REASON)
        await modal_with(alice, "Kill switch released for *checkout*")
    assert on_stage.desk.called("resume") == [("checkout", "deploy running", ALICE)]


async def test_the_socket_comes_back_after_a_drop(on_stage: Stage) -> None:
    ts = await on_stage.post_card()
    await on_stage.trouble(drop_socket=True)
    async with on_stage.person("U0ALICE") as alice:
        async with asyncio.timeout(WAIT_S):
            while not on_stage.desk.called("approve"):
                with contextlib.suppress(RefusedError):
                    await alice.click(CHANNEL, ts, names.APPROVE)
    assert set(on_stage.desk.called("approve")) == {(PLAN, ALICE)}
