"""The local Slack's Web API, called by slack_sdk and by plain HTTP in every form Slack takes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.demo.slack.manifest import DEFAULT_MANIFEST, read_manifest
from bot.demo.slack.person import Person
from bot.demo.slack.server import LocalSlack
from tests.contract.slack_bots import (
    APP_TOKEN,
    BOT_TOKEN,
    GENERAL,
    INCIDENTS,
    PATIENCE_S,
    card,
    local_slack,
    running,
    web_client,
)


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with running(local_slack()) as started:
        yield started


@pytest.fixture
def client(slack: LocalSlack) -> AsyncWebClient:
    return web_client(slack)


async def refusal(call: Any) -> dict[str, Any]:
    """The answer to a call that Slack refuses."""
    with pytest.raises(SlackApiError) as caught:
        await call
    answer: dict[str, Any] = caught.value.response.data
    return answer


async def test_post_update_and_find_by_metadata(client: AsyncWebClient) -> None:
    metadata = {"event_type": "outbox", "event_payload": {"outbox_id": "7"}}
    posted = await client.chat_postMessage(channel=INCIDENTS, text="hi", blocks=card(), metadata=metadata)
    assert posted["message"]["bot_id"] == "B0SREBOT"
    assert posted["message"]["blocks"][0]["block_id"]
    plain = await client.conversations_history(channel=INCIDENTS)
    assert "metadata" not in plain["messages"][0]
    full = await client.conversations_history(channel=INCIDENTS, include_all_metadata=True)
    assert full["messages"][0]["metadata"] == metadata

    await client.chat_update(channel=INCIDENTS, ts=posted["ts"], text="done", blocks=card()[:1])
    updated = (await client.conversations_history(channel=INCIDENTS, include_all_metadata=True))["messages"][0]
    assert (updated["text"], len(updated["blocks"]), updated["metadata"]) == ("done", 1, metadata)
    assert "edited" not in updated
    await client.chat_update(channel=INCIDENTS, ts=posted["ts"], text="only text")
    without = (await client.conversations_history(channel=INCIDENTS))["messages"][0]
    assert "blocks" not in without
    assert without["edited"]["user"] == "U0SREBOT"


async def test_threads_pages_and_windows(client: AsyncWebClient) -> None:
    root = (await client.chat_postMessage(channel=INCIDENTS, text="root"))["ts"]
    replies = [
        (await client.chat_postMessage(channel=INCIDENTS, text=f"reply {n}", thread_ts=root))["ts"] for n in range(3)
    ]
    later = (await client.chat_postMessage(channel=INCIDENTS, text="later"))["ts"]
    history = await client.conversations_history(channel=INCIDENTS)
    assert [m["ts"] for m in history["messages"]] == [later, root]
    assert history["messages"][1]["reply_count"] == 3
    seen: list[str] = []
    cursor = ""
    while True:
        page = await client.conversations_replies(channel=INCIDENTS, ts=root, limit=2, cursor=cursor)
        seen += [m["ts"] for m in page["messages"]]
        if not page["has_more"]:
            break
        cursor = page["response_metadata"]["next_cursor"]
    assert seen == [root, *replies]
    window = await client.conversations_history(channel=INCIDENTS, oldest=root, latest=later)
    assert window["messages"] == []
    window = await client.conversations_history(channel=INCIDENTS, oldest=root, inclusive=True, limit=1)
    assert [m["ts"] for m in window["messages"]] == [later]
    assert (await refusal(client.conversations_replies(channel=INCIDENTS, ts="1.0")))["error"] == ("thread_not_found")
    link = await client.chat_getPermalink(channel=INCIDENTS, message_ts=replies[0])
    assert f"thread_ts={root}" in link["permalink"]


@pytest.mark.parametrize("form", ["query", "form", "json", "multipart"])
async def test_every_form_of_body(slack: LocalSlack, form: str) -> None:
    arguments = {"channel": INCIDENTS, "text": f"by {form}"}
    bearer = {"Authorization": f"Bearer {BOT_TOKEN}"}
    multipart = aiohttp.FormData({**arguments, "token": BOT_TOKEN}, default_to_multipart=True)
    forms: dict[str, dict[str, Any]] = {
        "query": {"params": arguments, "headers": bearer},
        "form": {"data": {**arguments, "token": BOT_TOKEN}},
        "json": {"json": arguments, "headers": bearer},
        "multipart": {"data": multipart},
    }
    async with aiohttp.ClientSession() as http:
        verb = "GET" if form == "query" else "POST"
        async with http.request(verb, slack.api_url + "chat.postMessage", **forms[form]) as response:
            answer = await response.json()
    assert response.status == 200
    assert answer["ok"], answer
    assert answer["message"]["text"] == f"by {form}"


async def test_refusals(slack: LocalSlack, client: AsyncWebClient) -> None:
    assert (await refusal(web_client(slack, "xoxb-wrong").auth_test()))["error"] == "invalid_auth"
    assert (await refusal(web_client(slack, "").auth_test()))["error"] == "not_authed"
    assert (await refusal(web_client(slack, APP_TOKEN).auth_test()))["error"] == "not_allowed_token_type"
    wrong = client.apps_connections_open(app_token="xapp-wrong")
    assert (await refusal(wrong))["error"] == "invalid_auth"
    assert (await refusal(client.api_call("chat.nonsense")))["error"] == "unknown_method"
    posts: list[tuple[dict[str, Any], str]] = [
        ({"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
        ({"channel": GENERAL, "text": "x"}, "not_in_channel"),
        ({"channel": INCIDENTS}, "no_text"),
        ({"channel": INCIDENTS, "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": INCIDENTS, "text": "x", "thread_ts": "1.000000"}, "thread_not_found"),
        ({"channel": INCIDENTS, "text": "x", "metadata": {"event_type": 1}}, "invalid_metadata_format"),
    ]
    for arguments, error in posts:
        call = client.api_call("chat.postMessage", json=arguments)
        assert (await refusal(call))["error"] == error, arguments
    missing = await refusal(client.api_call("chat.update", json={"ts": "1.0", "text": "x"}))
    assert missing["error"] == "invalid_arguments"
    assert "channel" in missing["response_metadata"]["messages"][0]
    gone = client.chat_update(channel=INCIDENTS, ts="1.000000", text="x")
    assert (await refusal(gone))["error"] == "message_not_found"
    async with Person(slack.base_url, "U0CARLA") as carla:
        hers = await carla.say("mine", INCIDENTS)
    foreign = client.chat_update(channel=INCIDENTS, ts=hers, text="x")
    assert (await refusal(foreign))["error"] == "cant_update_message"
    ours = (await client.chat_postMessage(channel=INCIDENTS, text="x"))["ts"]
    long = client.chat_update(channel=INCIDENTS, ts=ours, text="x" * 4001)
    assert (await refusal(long))["error"] == "msg_too_long"


async def test_invalid_blocks_are_named(client: AsyncWebClient) -> None:
    blocks = card()
    blocks[0]["text"]["text"] = "x" * 3001
    blocks[1]["elements"][1]["action_id"] = "approve"
    answer = await refusal(client.chat_postMessage(channel=INCIDENTS, text="x", blocks=blocks))
    assert answer["error"] == "invalid_blocks"
    assert answer["errors"] == [
        "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
        "`action_id` 'approve' already exists [json-pointer:/blocks/1/elements/1/action_id]",
    ]
    many = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 2900}} for _ in range(5)]
    too_long = client.chat_postMessage(channel=INCIDENTS, text="x", blocks=many)
    assert (await refusal(too_long))["error"] == "msg_blocks_too_long"
    text_as_blocks = client.api_call("chat.postMessage", data={"channel": INCIDENTS, "blocks": "{["})
    assert (await refusal(text_as_blocks))["error"] == "invalid_blocks_format"


async def test_people_groups_and_channels(client: AsyncWebClient) -> None:
    me = await client.auth_test()
    assert (me["user_id"], me["bot_id"], me["team_id"]) == ("U0SREBOT", "B0SREBOT", "T0LOCAL")
    assert "chat:write" in me.headers["X-OAuth-Scopes"]
    guest = (await client.users_info(user="U0GIL"))["user"]
    assert guest["is_restricted"]
    assert not guest["is_bot"]
    assert (await refusal(client.users_info(user="U0NOBODY")))["error"] == "user_not_found"
    members = await client.usergroups_users_list(usergroup="S0SRE")
    assert members["users"] == ["U0ALICE", "U0BOB"]
    users = [page["members"][0]["id"] async for page in await client.users_list(limit=1)]
    assert users == ["U0ALICE", "U0BOB", "U0CARLA", "U0GIL", "U0SREBOT"]
    scope = await refusal(client.conversations_info(channel=INCIDENTS))
    assert (scope["error"], scope["needed"]) == ("missing_scope", "channels:read")


async def test_scopes_of_a_manifest_open_methods(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yml"
    path.write_text(
        "features: {slash_commands: [{command: /ops, description: d, usage_hint: h}]}\n"
        "oauth_config: {scopes: {bot: ['chat:write', 'channels:read', 'channels:join', 'reactions:write']}}\n"
        "settings: {event_subscriptions: {bot_events: [app_mention]}, socket_mode_enabled: true}\n"
    )
    manifest = read_manifest(path)
    assert manifest.commands[0].command == "/ops"
    async with running(local_slack(manifest=manifest)) as slack:
        client = web_client(slack)
        assert not (await client.conversations_info(channel=GENERAL))["channel"]["is_member"]
        await client.conversations_join(channel=GENERAL)
        posted = await client.chat_postMessage(channel=GENERAL, text="here")
        await client.reactions_add(channel=GENERAL, name="eyes", timestamp=posted["ts"])
        names = {c["name"]: c["is_member"] for c in (await client.conversations_list())["channels"]}
        assert names == {"incidents": True, "general": True}
        assert (await refusal(client.users_list()))["error"] == "missing_scope"


async def test_an_ephemeral_message_is_seen_by_one(slack: LocalSlack, client: AsyncWebClient) -> None:
    await client.chat_postEphemeral(channel=INCIDENTS, user="U0BOB", text="only you")
    async with Person(slack.base_url, "U0BOB") as bob, Person(slack.base_url, "U0ALICE") as alice:
        assert [m["ephemeral"] for m in await bob.messages(INCIDENTS)] == [True]
        assert await alice.messages(INCIDENTS) == []
    assert (await client.conversations_history(channel=INCIDENTS))["messages"] == []
    nobody = client.chat_postEphemeral(channel=INCIDENTS, user="U0NOBODY", text="x")
    assert (await refusal(nobody))["error"] == "user_not_in_channel"


async def test_deleting_a_root_keeps_its_thread(client: AsyncWebClient) -> None:
    root = (await client.chat_postMessage(channel=INCIDENTS, text="root"))["ts"]
    reply = (await client.chat_postMessage(channel=INCIDENTS, text="reply", thread_ts=root))["ts"]
    await client.chat_delete(channel=INCIDENTS, ts=root)
    thread = (await client.conversations_replies(channel=INCIDENTS, ts=root))["messages"]
    assert [m.get("subtype") for m in thread] == ["tombstone", None]
    await client.chat_delete(channel=INCIDENTS, ts=reply)
    again = client.chat_delete(channel=INCIDENTS, ts=reply)
    assert (await refusal(again))["error"] == "message_not_found"


async def test_upload_and_picture(slack: LocalSlack) -> None:
    async with running(local_slack(processing_s=0.5)) as slow:
        client = web_client(slow)
        root = (await client.chat_postMessage(channel=INCIDENTS, text="root"))["ts"]
        picture = b"\x89PNG\r\n\x1a\n" + bytes(64)
        uploaded = await client.files_upload_v2(
            content=picture,
            filename="p99 chart.png",
            title="p99",
            channel=INCIDENTS,
            thread_ts=root,
            initial_comment="the chart",
        )
        file_id = uploaded["file"]["id"]
        image = {"type": "image", "alt_text": "p99 rises", "slack_file": {"id": file_id}}
        early = client.chat_update(channel=INCIDENTS, ts=root, text="x", blocks=[image])
        answer = await refusal(early)
        assert answer["errors"] == ["invalid slack file [json-pointer:/blocks/0/slack_file]"]
        async with Person(slow.base_url, "U0ALICE") as alice:
            async with asyncio.timeout(PATIENCE_S):
                while not (await client.files_info(file=file_id))["file"]["mimetype"]:
                    await asyncio.sleep(0.02)
            await client.chat_update(channel=INCIDENTS, ts=root, text="x", blocks=[image])
            shown, shared = await alice.messages(INCIDENTS)
        assert shared["thread_ts"] == root
        assert shared["files"][0]["mimetype"] == "image/png"
        async with aiohttp.ClientSession() as http:
            for url in (shown["blocks"][0]["slack_file"]["url"], shared["files"][0]["url"]):
                async with http.get(slow.base_url + url) as response:
                    assert response.content_type == "image/png"
                    assert await response.read() == picture


async def test_an_upload_of_another_length_is_refused(slack: LocalSlack, client: AsyncWebClient) -> None:
    issued = await client.files_getUploadURLExternal(filename="a.txt", length=5)
    async with aiohttp.ClientSession() as http:
        async with http.post(issued["upload_url"], data=b"longer than five") as response:
            assert response.status == 400
        never = client.files_completeUploadExternal(files=[{"id": issued["file_id"]}])
        assert (await refusal(never))["error"] == "file_not_found"
        async with http.put(issued["upload_url"], data=b"fives") as response:
            assert await response.text() == "OK - 5"
    await client.files_completeUploadExternal(files=[{"id": issued["file_id"], "title": "A"}])
    assert (await client.files_info(file=issued["file_id"]))["file"]["title"] == "A"


async def test_channel_files_and_homes_survive_a_restart(tmp_path: Path) -> None:
    manifest = replace(DEFAULT_MANIFEST, scopes=DEFAULT_MANIFEST.scopes | {"channels:join"})
    async with running(local_slack(tmp_path, manifest=manifest, processing_s=0)) as first:
        client = web_client(first)
        root = await client.chat_postMessage(
            channel=INCIDENTS, text="root", metadata={"event_type": "e", "event_payload": {"id": "1"}}
        )
        await client.chat_postMessage(channel=INCIDENTS, text="reply", thread_ts=root["ts"])
        gone = await client.chat_postMessage(channel=INCIDENTS, text="gone")
        await client.chat_delete(channel=INCIDENTS, ts=gone["ts"])
        await client.conversations_join(channel=GENERAL)
        uploaded = await client.files_upload_v2(content=b"text", filename="a.txt")
        home = {"type": "home", "blocks": [{"type": "divider"}]}
        await client.views_publish(user_id="U0ALICE", view=home)
        async with Person(first.base_url, "U0ALICE") as alice:
            rev = (await alice.state())["rev"]
    async with running(local_slack(tmp_path, manifest=manifest, processing_s=0)) as second:
        client = web_client(second)
        replies = await client.conversations_replies(channel=INCIDENTS, ts=root["ts"], include_all_metadata=True)
        assert [m["text"] for m in replies["messages"]] == ["root", "reply"]
        assert replies["messages"][0]["metadata"]["event_payload"] == {"id": "1"}
        assert len((await client.conversations_history(channel=INCIDENTS))["messages"]) == 1
        await client.chat_update(channel=INCIDENTS, ts=root["ts"], text="still ours")
        await client.chat_postMessage(channel=GENERAL, text="still a member")
        assert (await client.files_info(file=uploaded["file"]["id"]))["file"]["filetype"] == "txt"
        async with Person(second.base_url, "U0ALICE") as alice:
            state = await alice.state()
        assert state["home"]["blocks"][0]["type"] == "divider"
        assert state["rev"] > rev


async def test_a_streamed_reply_grows(slack: LocalSlack, client: AsyncWebClient) -> None:
    async with Person(slack.base_url, "U0ALICE") as alice:
        asked = await alice.say("@sre why?", INCIDENTS)
        stream = await client.chat_stream(
            channel=INCIDENTS,
            thread_ts=asked,
            recipient_team_id="T0LOCAL",
            recipient_user_id="U0ALICE",
            buffer_size=1,
        )
        await stream.append(markdown_text="**Because** ")
        task = {"type": "task_update", "id": "t1", "title": "Look", "status": "in_progress"}
        await stream.append(chunks=[task])
        await stream.append(chunks=[{**task, "status": "complete", "output": "found"}])
        await stream.stop(markdown_text="done", blocks=[{"type": "divider"}])
        reply = (await alice.messages(INCIDENTS))[-1]
        assert [b["type"] for b in reply["blocks"]] == ["markdown", "task_card", "markdown", "divider"]
        assert reply["blocks"][1]["status"] == "complete"
        late = client.chat_appendStream(channel=INCIDENTS, ts=reply["ts"], markdown_text="x")
        assert (await refusal(late))["error"] == "message_not_in_streaming_state"


async def test_rate_limits_when_asked_for() -> None:
    async with running(local_slack(rate_limits=True)) as slack:
        client = web_client(slack)
        posts = [client.chat_postMessage(channel=INCIDENTS, text="x") for _ in range(30)]
        answers = await asyncio.gather(*posts, return_exceptions=True)
        limited = [answer for answer in answers if isinstance(answer, SlackApiError)]
        assert 5 <= len(answers) - len(limited) < 30
        assert {error.response.status_code for error in limited} == {429}
        assert int(limited[0].response.headers["Retry-After"]) >= 1
        await client.auth_test()


async def test_trouble_switches(slack: LocalSlack, client: AsyncWebClient) -> None:
    async with aiohttp.ClientSession() as http:

        async def switch(**change: Any) -> None:
            async with http.post(f"{slack.base_url}/local/trouble", json=change) as response:
                assert (await response.json())["ok"]

        await switch(outage=True)
        with pytest.raises(SlackApiError) as caught:
            await client.auth_test()
        assert caught.value.response.status_code == 500
        await switch(outage=False, rate_limit_s=4)
        with pytest.raises(SlackApiError) as caught:
            await client.chat_postMessage(channel=INCIDENTS, text="x")
        assert caught.value.response.status_code == 429
        assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 4
        async with Person(slack.base_url, "U0ALICE") as alice:
            await alice.wait_for(lambda state: state["trouble"]["rate_limit_s"] == 0, PATIENCE_S)
        await client.chat_postMessage(channel=INCIDENTS, text="x")


async def test_a_taken_port_and_a_broken_folder_are_said(slack: LocalSlack, tmp_path: Path) -> None:
    second = local_slack()
    with pytest.raises(OSError, match="address already in use"):
        await second.start(port=int(slack.base_url.rpartition(":")[2]))
    assert second.base_url == ""
    (tmp_path / "slack.sqlite3").mkdir()
    with pytest.raises(OSError, match="unable to open"):
        await local_slack(tmp_path).start()


async def test_the_world_is_passed_through() -> None:
    switched: list[Any] = []

    async def fault(request: web.Request) -> web.Response:
        switched.append((request.match_info["name"], await request.json()))
        return web.json_response({"name": "slow", "active": True})

    async def world(_request: web.Request) -> web.Response:
        return web.json_response({"services": [{"name": "checkout", "replicas": 2, "instances": []}]})

    supervisor = web.Application()
    supervisor.add_routes([web.get("/v1/world", world), web.post("/v1/faults/{name}", fault)])
    runner = web.AppRunner(supervisor)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    world_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with running(local_slack(world_url=world_url)) as slack, aiohttp.ClientSession() as http:
        async with http.get(f"{slack.base_url}/local/world") as response:
            assert (await response.json())["services"][0]["replicas"] == 2
        async with http.post(f"{slack.base_url}/local/world/faults/slow", json={"on": True}) as response:
            assert (await response.json())["active"]
        assert switched == [("slow", {"on": True})]
        await runner.cleanup()
        async with http.get(f"{slack.base_url}/local/world") as response:
            assert response.status == 503


async def test_the_page_and_the_missing_world(slack: LocalSlack) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/page/no-such-file.js", "/page/..%2fserver.py"):
            async with http.get(slack.base_url + path) as response:
                assert response.status == 404
                assert response.content_type == "text/plain"
        async with http.get(f"{slack.base_url}/local/world") as response:
            assert response.status == 503
            assert (await response.json())["error"]
        async with http.post(f"{slack.base_url}/local/message", data="{}") as response:
            assert response.status == 415
        async with http.post(f"{slack.base_url}/local/message", json={"as": "U0BOB"}) as response:
            assert not (await response.json())["ok"]
