"""Cards and threads reach the local Slack once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.slack import publisher as publisher_module
from bot.slack.client import make_client
from bot.slack.publisher import SlackPublisher
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.notice import BusNotice, ThreadNotice, ThreadPart
from pipeline.ports.store import CardPlace
from tests.builders import INCIDENT, states_of_a_case
from tests.slack_stage import CHANNEL, Stage, card_row, stage, thread_row

# Opened lately by the clock that gives messages their ts.
CASES = {
    name: replace(case, incident=replace(case.incident, opened_at=datetime.now(UTC)))
    for name, case in states_of_a_case().items()
}


@pytest.fixture
async def on_stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(publisher_module, "UPDATE_EVERY_S", 0.01)
    async with stage(connected=False) as running:
        running.desk.the_case = CASES["awaiting"]
        yield running


async def channel(on_stage: Stage) -> list[dict[str, Any]]:
    async with on_stage.person("U0CARLA") as carla:
        return await carla.messages(CHANNEL)


def header(message: dict[str, Any]) -> str:
    return str(message["blocks"][0]["text"]["text"])


async def test_the_card_is_posted_once_with_its_chart_and_then_updated(on_stage: Stage) -> None:
    await on_stage.publisher.publish(card_row(1))
    [posted] = await channel(on_stage)
    assert header(posted).endswith("Awaiting decision")
    assert [b["type"] for b in posted["blocks"]].count("image") == 1
    found = await on_stage.client.conversations_history(channel=CHANNEL, include_all_metadata=True)
    assert found["messages"][0]["metadata"] == {
        "event_type": "sre_bot_outbox",
        "event_payload": {"outbox_id": 1, "incident_id": INCIDENT},
    }
    on_stage.desk.the_case = CASES["recovered"]
    await on_stage.publisher.publish(card_row(2))
    [updated] = await channel(on_stage)
    assert updated["ts"] == posted["ts"]
    assert header(updated).endswith("Recovered")
    before = {b["block_id"] for b in posted["blocks"]}
    assert not before & {b["block_id"] for b in updated["blocks"]}


async def test_a_drawing_that_shows_nothing_new_is_not_sent(on_stage: Stage) -> None:
    await on_stage.publisher.publish(card_row(1))
    before = await channel(on_stage)
    await on_stage.publisher.publish(card_row(2))
    assert await channel(on_stage) == before


async def test_the_chart_is_renewed_on_verification_only(on_stage: Stage) -> None:
    def picture(message: dict[str, Any]) -> str:
        return str(next(b for b in message["blocks"] if b["type"] == "image")["slack_file"]["id"])

    seen = []
    for number, name in enumerate(("diagnosing", "awaiting", "running", "recovered"), start=1):
        on_stage.desk.the_case = CASES[name]
        await on_stage.publisher.publish(card_row(number))
        seen.append(picture((await channel(on_stage))[0]))
    assert seen[0] == seen[1] == seen[2] != seen[3]


async def test_chart_trouble_costs_the_chart_only(on_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_samples(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(on_stage.desk, "metric", no_samples)
    await on_stage.publisher.publish(card_row(1))
    [posted] = await channel(on_stage)
    assert "image" not in [b["type"] for b in posted["blocks"]]


async def test_a_deleted_card_is_posted_anew(on_stage: Stage) -> None:
    await on_stage.publisher.publish(card_row(1))
    [posted] = await channel(on_stage)
    await on_stage.client.chat_delete(channel=CHANNEL, ts=posted["ts"])
    on_stage.desk.the_case = CASES["running"]
    await on_stage.publisher.publish(card_row(2))
    [again] = await channel(on_stage)
    assert again["ts"] != posted["ts"]
    assert on_stage.store.places[INCIDENT] == CardPlace(CHANNEL, again["ts"])


async def test_a_card_in_doubt_is_found_and_not_posted_twice(on_stage: Stage) -> None:
    await on_stage.publisher.publish(card_row(1))
    [posted] = await channel(on_stage)
    on_stage.store.places.clear()
    on_stage.desk.the_case = CASES["running"]
    await on_stage.publisher.publish(card_row(1, in_doubt=True))
    [same] = await channel(on_stage)
    assert same["ts"] == posted["ts"]
    assert header(same).endswith("running")
    assert on_stage.store.places[INCIDENT].ts == posted["ts"]


async def test_a_card_in_doubt_that_is_not_there_is_posted(on_stage: Stage) -> None:
    await on_stage.publisher.publish(card_row(1, in_doubt=True))
    assert len(await channel(on_stage)) == 1


async def test_a_reply_in_doubt_is_sent_once(on_stage: Stage) -> None:
    await on_stage.publisher.publish(card_row(1))
    said = ThreadNotice(part=ThreadPart.LINE, text="✅ approved by <@U0ALICE>")
    await on_stage.publisher.publish(thread_row(2, said))
    await on_stage.publisher.publish(thread_row(2, said, in_doubt=True))
    root, reply = await channel(on_stage)
    assert reply["thread_ts"] == root["ts"]
    assert reply["text"] == "✅ approved by <@U0ALICE>"
    await on_stage.publisher.publish(thread_row(3, said, in_doubt=True))
    assert len(await channel(on_stage)) == 3


@pytest.mark.parametrize(
    "part", [ThreadPart.EVIDENCE, ThreadPart.REASONING, ThreadPart.VERIFICATION, ThreadPart.SUMMARY]
)
async def test_every_part_is_taken(on_stage: Stage, part: ThreadPart) -> None:
    on_stage.desk.the_case = CASES["recovered"]
    await on_stage.publisher.publish(card_row(1))
    await on_stage.publisher.publish(thread_row(2, ThreadNotice(part=part)))
    assert len(await channel(on_stage)) == 2


async def test_a_reply_waits_for_its_card_and_outlives_it(on_stage: Stage) -> None:
    said = ThreadNotice(part=ThreadPart.LINE, text="hello")
    with pytest.raises(TemporaryError, match="not posted yet"):
        await on_stage.publisher.publish(thread_row(1, said))
    await on_stage.publisher.publish(card_row(2))
    await on_stage.client.chat_delete(channel=CHANNEL, ts=on_stage.store.places[INCIDENT].ts)
    with pytest.raises(TemporaryError, match="posted anew"):
        await on_stage.publisher.publish(thread_row(3, said))
    await on_stage.publisher.publish(thread_row(3, said))
    root, reply = await channel(on_stage)
    assert reply["thread_ts"] == root["ts"]


async def test_a_rate_limit_says_how_long_to_wait(on_stage: Stage) -> None:
    await on_stage.trouble(rate_limit_s=30)
    with pytest.raises(TemporaryError) as caught:
        await on_stage.publisher.publish(card_row(1))
    assert caught.value.retry_after_s is not None
    assert 20 < caught.value.retry_after_s <= 30


async def test_an_outage_leaves_a_post_unknown_and_an_update_to_be_repeated(on_stage: Stage) -> None:
    await on_stage.trouble(outage=True)
    with pytest.raises(OutcomeUnknown):
        await on_stage.publisher.publish(card_row(1))
    await on_stage.trouble(outage=False)
    await on_stage.publisher.publish(card_row(1, in_doubt=True))
    on_stage.desk.the_case = CASES["running"]
    await on_stage.trouble(outage=True)
    with pytest.raises(TemporaryError):
        await on_stage.publisher.publish(card_row(2))
    await on_stage.trouble(outage=False)
    await on_stage.publisher.publish(card_row(2))
    [card] = await channel(on_stage)
    assert header(card).endswith("running")


async def test_a_server_that_is_not_there_got_nothing(on_stage: Stage) -> None:
    await on_stage.slack.stop()
    with pytest.raises(TemporaryError, match="cannot be reached"):
        await on_stage.publisher.publish(card_row(1))


async def test_what_a_person_must_set_right_is_said(on_stage: Stage) -> None:
    desk: Any = on_stage.desk
    store: Any = on_stage.store
    elsewhere = SlackPublisher(on_stage.client, desk, store, "C0GENERAL")
    with pytest.raises(PermanentError, match="/invite it there"):
        await elsewhere.publish(card_row(1))
    stranger = SlackPublisher(make_client("xoxb-wrong", on_stage.slack.api_url), desk, store, CHANNEL)
    with pytest.raises(PermanentError, match="the bot token is wrong"):
        await stranger.publish(card_row(1))
    with pytest.raises(PermanentError, match="not for Slack"):
        await on_stage.publisher.publish(card_row(1, notice=BusNotice(topic="t", fields={})))
    with pytest.raises(PermanentError, match="no INC-7"):
        await on_stage.publisher.publish(card_row(1, incident_id=7))
