"""What people do in the local Slack, handled by a real Bolt app over Socket Mode and over signed HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError

from bot.demo.slack.people import RefusedError
from bot.demo.slack.person import NoSuchElementError, Person
from tests.contract.slack_bots import GENERAL, INCIDENTS, PATIENCE_S, Bot, bot_on, card, reason_modal

Json = dict[str, Any]


@pytest.fixture(params=["socket", "http"])
async def bot(request: pytest.FixtureRequest) -> AsyncIterator[Bot]:
    # A busy machine must not turn a slow answer into a missed one: these tests are not about the 3 s.
    async with bot_on(request.param, ack_timeout_s=PATIENCE_S, trigger_life_s=PATIENCE_S) as started:
        yield started


@pytest.fixture
async def alice(bot: Bot) -> AsyncIterator[Person]:
    async with Person(bot.slack.base_url, "U0ALICE") as person:
        yield person


def roots(state: Json) -> list[Json]:
    return [m for m in state["messages"][INCIDENTS] if m.get("thread_ts") in (None, m["ts"])]


async def test_a_click_is_acknowledged_and_the_card_changes(bot: Bot, alice: Person) -> None:
    clicks: asyncio.Queue[Json] = asyncio.Queue()

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json, client: Any) -> None:
        clicks.put_nowait(body)
        await ack()
        channel, ts = body["container"]["channel_id"], body["container"]["message_ts"]
        await client.chat_update(channel=channel, ts=ts, text="approved", blocks=card()[:1])

    await bot.connect()
    posted = await bot.client.chat_postMessage(channel=INCIDENTS, text="card", blocks=card(value="INC-9"))
    await alice.click(INCIDENTS, posted["ts"], "approve")
    await alice.wait_for(lambda state: roots(state)[0]["text"] == "approved", PATIENCE_S)
    body = clicks.get_nowait()
    assert body["user"]["id"] == "U0ALICE"
    assert body["team"]["id"] == "T0LOCAL"
    assert body["message"]["ts"] == body["container"]["message_ts"] == posted["ts"]
    assert body["channel"]["id"] == INCIDENTS
    assert body["actions"][0] | {"action_ts": ""} == {
        "type": "button",
        "action_id": "approve",
        "block_id": "decide",
        "value": "INC-9",
        "style": "primary",
        "text": {"type": "plain_text", "text": "Approve", "emoji": True},
        "action_ts": "",
    }
    with pytest.raises(NoSuchElementError, match="approve"):
        await alice.click(INCIDENTS, posted["ts"], "approve")


async def test_a_guests_click_is_delivered_too(bot: Bot) -> None:
    who: list[str] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json, respond: Any) -> None:
        who.append(body["user"]["id"])
        await ack()
        await respond(text="You may not approve.", response_type="ephemeral", replace_original=False)

    await bot.connect()
    posted = await bot.client.chat_postMessage(channel=INCIDENTS, text="card", blocks=card())
    async with Person(bot.slack.base_url, "U0GIL") as gil:
        await gil.click(INCIDENTS, posted["ts"], "approve")
        told = await gil.wait_for(
            lambda state: [m for m in state["messages"][INCIDENTS] if m.get("ephemeral")], PATIENCE_S
        )
    assert who == ["U0GIL"]
    assert told[0]["text"] == "You may not approve."


async def test_a_modal_with_errors_then_closed(bot: Bot, alice: Person) -> None:
    @bot.app.action("reject")
    async def reject(ack: Any, body: Json, client: Any) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=reason_modal())

    @bot.app.view("reason")
    async def reason(ack: Any, view: Json, client: Any) -> None:
        text = view["state"]["values"]["why"]["text"]["value"]
        if len(text) < 10:
            await ack(response_action="errors", errors={"why": "Say a little more."})
            return
        await ack()
        await client.chat_postMessage(channel=INCIDENTS, text=f"rejected: {text}")

    await bot.connect()
    posted = await bot.client.chat_postMessage(channel=INCIDENTS, text="card", blocks=card())
    await alice.click(INCIDENTS, posted["ts"], "reject")
    modal = await alice.wait_for(lambda state: state["modals"], PATIENCE_S)
    view_id = modal[0]["id"]
    with pytest.raises(RefusedError) as caught:
        await alice.submit(view_id, {})
    assert caught.value.errors == {"why": "Please complete this required field."}
    with pytest.raises(RefusedError) as caught:
        await alice.submit(view_id, {"why": {"text": "no"}})
    assert caught.value.errors == {"why": "Say a little more."}
    assert len(await alice.modals()) == 1
    await alice.submit(view_id, {"why": {"text": "it is a planned load test"}})
    assert await alice.modals() == []
    await alice.wait_for(lambda state: "planned load test" in roots(state)[-1]["text"], PATIENCE_S)


async def test_modals_are_pushed_updated_and_cleared(bot: Bot, alice: Person) -> None:
    closed: asyncio.Queue[bool] = asyncio.Queue()
    answers: list[Json] = [
        {"response_action": "update", "view": {**reason_modal(), "callback_id": "second"}},
        {"response_action": "push", "view": {**reason_modal(), "callback_id": "third"}},
        {"response_action": "clear"},
    ]

    @bot.app.command("/sre")
    async def start(ack: Any, body: Json, client: Any) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=reason_modal())

    async def step(ack: Any) -> None:
        await ack(**answers.pop(0))

    for callback_id in ("reason", "second", "third"):
        bot.app.view({"type": "view_submission", "callback_id": callback_id})(step)

    @bot.app.view_closed("reason")
    async def on_close(ack: Any, body: Json) -> None:
        await ack()
        closed.put_nowait(body["is_cleared"])

    await bot.connect()
    await alice.command("/sre", INCIDENTS)
    first = (await alice.wait_for(lambda state: state["modals"], PATIENCE_S))[0]
    entered = {"why": {"text": "x"}}
    await alice.submit(first["id"], entered)
    updated = (await alice.modals())[0]
    assert (updated["id"], updated["callback_id"]) == (first["id"], "second")
    assert updated["hash"] != first["hash"]
    await alice.submit(first["id"], entered)
    pushed = await alice.modals()
    assert [v["callback_id"] for v in pushed] == ["second", "third"]
    assert pushed[1]["previous_view_id"] == first["id"]
    stale = bot.client.views_update(view_id=first["id"], hash=first["hash"], view=reason_modal())
    with pytest.raises(SlackApiError, match="hash_conflict"):
        await stale
    await alice.submit(pushed[1]["id"], entered)
    assert await alice.modals() == []
    with pytest.raises(SlackApiError, match="not_found"):
        await bot.client.views_update(view_id=first["id"], view=reason_modal())

    await alice.command("/sre", INCIDENTS)
    again = (await alice.wait_for(lambda state: state["modals"], PATIENCE_S))[0]
    await alice.close_view(again["id"])
    assert await asyncio.wait_for(closed.get(), PATIENCE_S) is False


async def test_a_trigger_opens_one_modal(bot: Bot, alice: Person) -> None:
    triggers: asyncio.Queue[str] = asyncio.Queue()

    @bot.app.command("/sre")
    async def command(ack: Any, body: Json) -> None:
        await ack()
        triggers.put_nowait(body["trigger_id"])

    await bot.connect()
    await alice.command("/sre help", INCIDENTS)
    trigger = await asyncio.wait_for(triggers.get(), PATIENCE_S)
    broken = {**reason_modal(), "title": {"type": "plain_text", "text": "x" * 25}}
    with pytest.raises(SlackApiError, match="invalid_arguments"):
        await bot.client.views_open(trigger_id=trigger, view=broken)
    await bot.client.views_open(trigger_id=trigger, view=reason_modal())
    with pytest.raises(SlackApiError, match="exchanged_trigger_id"):
        await bot.client.views_open(trigger_id=trigger, view=reason_modal())
    with pytest.raises(SlackApiError, match="invalid_trigger_id"):
        await bot.client.views_open(trigger_id="1.2.3", view=reason_modal())


async def test_commands_answer_at_once_and_later(bot: Bot, alice: Person) -> None:
    bodies: list[Json] = []

    @bot.app.command("/sre")
    async def command(ack: Any, body: Json, respond: Any) -> None:
        bodies.append(body)
        await ack("looking")
        await respond(text="for all", response_type="in_channel")
        for number in range(4):
            await respond(text=f"later {number}")
        bodies.append({"status": (await respond(text="once too often")).status_code})

    await bot.connect()
    await alice.command("/sre status INC-1", GENERAL)
    await alice.wait_for(lambda state: len(state["messages"][GENERAL]) == 6, PATIENCE_S)
    shown = (await alice.state())["messages"][GENERAL]
    # Bolt's acknowledgement and the answers race, as they do in Slack.
    texts = [(m["text"], m.get("ephemeral", False)) for m in shown]
    assert sorted(texts) == [("for all", False), *((f"later {n}", True) for n in range(4)), ("looking", True)]
    assert (bodies[0]["command"], bodies[0]["text"], bodies[0]["channel_id"]) == ("/sre", "status INC-1", GENERAL)
    async with asyncio.timeout(PATIENCE_S):
        while len(bodies) < 2:
            await asyncio.sleep(0.02)
    assert bodies[1]["status"] == 404
    with pytest.raises(RefusedError, match="not a valid command"):
        await alice.command("/nonsense", INCIDENTS)


async def test_a_response_url_replaces_and_deletes(bot: Bot, alice: Person) -> None:
    @bot.app.action("approve")
    async def approve(ack: Any, respond: Any) -> None:
        await ack()
        await respond(text="replaced", replace_original=True)

    @bot.app.action("reject")
    async def reject(ack: Any, respond: Any) -> None:
        await ack()
        await respond(delete_original=True)

    await bot.connect()
    posted = await bot.client.chat_postMessage(channel=INCIDENTS, text="card", blocks=card())
    await alice.click(INCIDENTS, posted["ts"], "approve")
    await alice.wait_for(lambda state: roots(state)[0]["text"] == "replaced", PATIENCE_S)
    await bot.client.chat_postEphemeral(channel=INCIDENTS, user="U0ALICE", text="own", blocks=card())
    own = (await alice.messages(INCIDENTS))[-1]
    await alice.click(INCIDENTS, own["ts"], "reject")
    await alice.wait_for(lambda state: len(state["messages"][INCIDENTS]) == 1, PATIENCE_S)


@pytest.mark.parametrize("mode", ["socket", "http"])
async def test_messages_mentions_and_the_bots_own_echo(mode: str) -> None:
    async with (
        bot_on(mode, hears_itself=True, ack_timeout_s=PATIENCE_S) as bot,
        Person(bot.slack.base_url, "U0ALICE") as alice,
    ):
        await _check_events(bot, alice)


async def _check_events(bot: Bot, alice: Person) -> None:
    events: asyncio.Queue[Json] = asyncio.Queue()

    async def keep(body: Json, next: Any) -> None:
        if body.get("type") == "event_callback":
            events.put_nowait(body)
        await next()

    async def listener() -> None:
        """Bolt answers an event with 404 unless somebody listens."""

    bot.app.middleware(keep)
    bot.app.event("message")(listener)
    bot.app.event("app_mention")(listener)
    await bot.connect()

    root = await bot.client.chat_postMessage(channel=INCIDENTS, text="root")
    asked = await alice.say("@sre status of <b> & https://example.org?", INCIDENTS, thread_ts=root["ts"])
    await alice.say("where the bot is not", GENERAL)
    await bot.client.chat_update(channel=INCIDENTS, ts=root["ts"], text="changed")
    await bot.client.chat_delete(channel=INCIDENTS, ts=root["ts"])
    seen = [await asyncio.wait_for(events.get(), PATIENCE_S) for _ in range(5)]
    assert len({body["event_id"] for body in seen}) == 5
    assert all(body["authorizations"][0]["user_id"] == "U0SREBOT" for body in seen)
    by_kind = {(b["event"]["type"], b["event"].get("subtype"), b["event"].get("bot_id")): b["event"] for b in seen}
    assert set(by_kind) == {
        ("message", None, "B0SREBOT"),
        ("message", None, None),
        ("app_mention", None, None),
        ("message", "message_changed", None),
        ("message", "message_deleted", None),
    }
    said = by_kind["message", None, None]
    assert said["text"] == "<@U0SREBOT> status of &lt;b&gt; &amp; <https://example.org?>"
    assert (said["ts"], said["thread_ts"], said["user"], said["channel"]) == (
        asked,
        root["ts"],
        "U0ALICE",
        INCIDENTS,
    )
    await alice.command("/invite @sre-bot", GENERAL)
    await alice.say("now it is", GENERAL)
    assert (await asyncio.wait_for(events.get(), PATIENCE_S))["event"]["text"] == "now it is"


async def test_the_home_tab(bot: Bot, alice: Person) -> None:
    pressed: asyncio.Queue[Json] = asyncio.Queue()

    @bot.app.event("app_home_opened")
    async def opened(event: Json, client: Any) -> None:
        home = {"type": "home", "blocks": card()[1:]}
        await client.views_publish(user_id=event["user"], view=home)

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json) -> None:
        await ack()
        pressed.put_nowait(body)

    await bot.connect()
    await alice.home()
    home = await alice.wait_for(lambda state: state["home"], PATIENCE_S)
    await alice.click_in_view(home["id"], "approve")
    body = await asyncio.wait_for(pressed.get(), PATIENCE_S)
    assert body["container"] == {"type": "view", "view_id": home["id"]}
    assert body["view"]["type"] == "home"
    assert "response_url" not in body
    async with Person(bot.slack.base_url, "U0BOB") as bob:
        assert (await bob.state())["home"] is None


async def test_menus_and_fields_of_every_kind(bot: Bot, alice: Person) -> None:
    chosen: asyncio.Queue[Json] = asyncio.Queue()

    def option(value: str) -> Json:
        return {"text": {"type": "plain_text", "text": value}, "value": value}

    def field(block_id: str, **element: Any) -> Json:
        label = {"type": "plain_text", "text": block_id}
        return {
            "type": "input",
            "block_id": block_id,
            "label": label,
            "optional": True,
            "element": {"action_id": "a", **element},
        }

    options = [option("a"), option("b")]

    @bot.app.action("menu")
    async def menu(ack: Any, body: Json, client: Any) -> None:
        await ack()
        chosen.put_nowait(body["actions"][0])
        fields = [
            field("pick", type="static_select", options=options, initial_option=options[1]),
            field("many", type="checkboxes", options=options),
            field("day", type="datepicker"),
            field("who", type="users_select"),
            field("count", type="number_input", is_decimal_allowed=False),
        ]
        await client.views_open(trigger_id=body["trigger_id"], view={**reason_modal(), "blocks": fields})

    @bot.app.view("reason")
    async def submitted(ack: Any, view: Json) -> None:
        await ack()
        chosen.put_nowait(view["state"]["values"])

    await bot.connect()
    overflow = {"type": "overflow", "action_id": "menu", "options": options}
    posted = await bot.client.chat_postMessage(
        channel=INCIDENTS, text="x", blocks=[{"type": "actions", "elements": [overflow]}]
    )
    with pytest.raises(RefusedError, match="none of the options"):
        await alice.click(INCIDENTS, posted["ts"], "menu", "c")
    await alice.click(INCIDENTS, posted["ts"], "menu", "b")
    action = await asyncio.wait_for(chosen.get(), PATIENCE_S)
    assert (action["type"], action["selected_option"]["value"]) == ("overflow", "b")
    view = (await alice.wait_for(lambda state: state["modals"], PATIENCE_S))[0]
    with pytest.raises(RefusedError) as caught:
        await alice.submit(view["id"], {"count": {"a": "many"}})
    assert caught.value.errors == {"count": "Enter a number."}
    entered: dict[str, Json] = {"many": {"a": ["a", "b"]}, "day": {"a": "2026-11-23"}, "who": {"a": "U0BOB"}}
    await alice.submit(view["id"], entered)
    values = {k: v["a"] for k, v in (await asyncio.wait_for(chosen.get(), PATIENCE_S)).items()}
    assert values["pick"]["selected_option"]["value"] == "b"
    assert [o["value"] for o in values["many"]["selected_options"]] == ["a", "b"]
    assert values["day"] == {"type": "datepicker", "selected_date": "2026-11-23"}
    assert values["who"]["selected_user"] == "U0BOB"
    assert values["count"] == {"type": "number_input", "value": None}
