"""The parts of the thread: complete where it fits, cut with a note where it does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bot.slack.blocks import validate_message
from bot.slack.kit import Message
from bot.slack.thread import render_part
from pipeline.domain.notice import ThreadPart
from pipeline.domain.trace import JsonValue, TraceKind
from tests.builders import make_case, make_evidence, make_passage, make_trace, states_of_a_case

CASES = states_of_a_case()
TRACE = make_trace(
    (TraceKind.DETECTED, "memory use of checkout-1 at 93 %"),
    (TraceKind.TOOL_CALL, "topology(checkout): called by web"),
    (TraceKind.REVIEW, "the reviewer agrees: 0.80"),
    (TraceKind.DECISION, "approved by U0ALICE (1 of 1)"),
    (TraceKind.EXECUTION, "checkout-1 replaced"),
    (TraceKind.VERIFICATION, "recovered"),
)


def words(message: Message) -> str:
    return json.dumps(message.blocks, ensure_ascii=False)


@pytest.mark.parametrize("part", ThreadPart)
@pytest.mark.parametrize("name", CASES)
def test_slack_takes_every_part_of_every_case(part: ThreadPart, name: str) -> None:
    for trace in ([], TRACE):
        message = render_part(part, CASES[name], trace, text="✅ approved by <@U0ALICE>", chart_file_id="F0CHART001")
        assert validate_message(message.text, message.blocks) == []


def test_evidence_has_query_and_window() -> None:
    shown = words(render_part(ThreadPart.EVIDENCE, make_case(), []))
    assert "[E2]" in shown
    assert "`process_resident_memory_bytes{service=" in shown
    assert "13:52:00 UTC to 14:03:10 UTC" in shown


def test_reasoning_shows_how_it_came_about() -> None:
    shown = words(render_part(ThreadPart.REASONING, make_case(), TRACE))
    for said in (
        "`0.74` memory-local-process.md › One replica grows",
        "topology(checkout): called by web",
        "the reviewer agrees: 0.80",
        "0.35·author 0.90 + 0.25·reviewer 0.80 + 0.25·retrieval 0.74 + 0.15·evidence 0.60 = 0.79",
        "0.30·user impact",
        "✅ blast radius: 1 of 3 replicas, limit 50 %",
        "rule engine",
    ):
        assert said in shown


def test_reasoning_shows_what_was_weighed_against_the_plan() -> None:
    shown = words(render_part(ThreadPart.REASONING, CASES["awaiting-ways"], TRACE))
    for said in (
        "First: *Restart checkout-1* · medium risk · cannot be undone",
        "Or: *Roll back from revision 8 to 7* · high risk · cannot be undone",
        "Or by hand: `kubectl rollout undo",
        "Tried before: Scale from 2 to 4 replicas — did not help, rolled back",
    ):
        assert said in shown
    by_hand = words(render_part(ThreadPart.REASONING, CASES["manual"], TRACE))
    assert "By hand: `git -C config revert --no-edit 3f9a1c2`" in by_hand


@pytest.mark.parametrize(
    ("exchange", "said"),
    [
        (
            {"prompt": {"system": "s", "user": "Why <now>? ```" + "x" * 900}},
            ("*Prompt*, the first 700 of 914", "Why &lt;now"),
        ),
        ({"facts": {"replicas": 3}, "reply": {}}, ("*Facts given to the rules*", '"replicas": 3')),
    ],
)
def test_reasoning_shows_what_was_asked_and_where_the_rest_is(
    exchange: dict[str, JsonValue], said: tuple[str, ...]
) -> None:
    first, *_ = make_trace((TraceKind.PROMPT, "asked"))
    message = render_part(
        ThreadPart.REASONING, make_case(), [replace(first, entry=replace(first.entry, data=exchange)), *TRACE]
    )
    assert validate_message(message.text, message.blocks) == []
    shown = "\n".join(block["text"]["text"] for block in message.blocks if "text" in block)
    for part in said:
        assert part in shown
    assert shown.count("```") == 2
    assert "x" * 700 not in shown
    assert "printed by `sre-bot trace INC-42`" in words(message)


def test_a_line_keeps_mentions_and_escapes_the_rest() -> None:
    message = render_part(ThreadPart.LINE, make_case(), [], text="✋ rejected by <@U0BOB>: <!channel> & co")
    assert message.blocks[0]["text"]["text"] == "✋ rejected by <@U0BOB>: &lt;!channel&gt; &amp; co"


def test_only_a_reminder_calls_groups_and_nothing_calls_everybody() -> None:
    text = "⏰ <!subteam^S0SRE> <@U0BOB> <!channel> <!subteam^x>"
    reminder = render_part(ThreadPart.REMINDER, make_case(), [], text=text)
    shown = "⏰ <!subteam^S0SRE> <@U0BOB> &lt;!channel&gt; &lt;!subteam^x&gt;"
    assert reminder.blocks[0]["text"]["text"] == shown
    assert validate_message(reminder.text, reminder.blocks) == []
    line = render_part(ThreadPart.LINE, make_case(), [], text=text)
    assert "<!subteam" not in str(line.blocks)


def test_verification_says_before_and_after_and_shows_the_chart() -> None:
    message = render_part(ThreadPart.VERIFICATION, CASES["recovered"], TRACE, chart_file_id="F0CHART001")
    shown = words(message)
    assert "✅ Recovered* after 3 min 10 s" in shown
    assert "memory use of checkout-1 93 % → 46 %" in shown
    assert "Bound: at most 85 % · usually 48 %" in shown
    assert any(block["type"] == "image" for block in message.blocks)
    blind = words(render_part(ThreadPart.VERIFICATION, CASES["cannot-tell"], TRACE))
    assert "no fresh samples since the action" in blind


def test_the_summary_drafts_the_post_mortem_from_the_trail() -> None:
    shown = words(render_part(ThreadPart.SUMMARY, CASES["recovered"], TRACE))
    for said in (
        "Post-mortem draft",
        "approved by <@U0ALICE> (1 of 1)",
        "1 change",
        "checkout-1 replaced",
        "to fill in",
    ):
        assert said in shown
    rejected = words(render_part(ThreadPart.SUMMARY, CASES["rejected"], TRACE))
    assert "rejected by <@U0ALICE> (deploy running); nothing was changed" in rejected


def test_too_much_is_cut_with_a_note() -> None:
    long = "word " * 300
    case = replace(
        make_case(),
        evidence=tuple(make_evidence(number, statement=long, query=long) for number in range(1, 60)),
        passages=tuple(make_passage(text=long, heading=long) for _ in range(60)),
    )
    trace = make_trace(*[(TraceKind.TOOL_CALL, long)] * 200)
    for part in (ThreadPart.EVIDENCE, ThreadPart.REASONING):
        message = render_part(part, case, trace)
        assert validate_message(message.text, message.blocks) == []
        assert "shortened for Slack" in words(message)
    line = render_part(ThreadPart.LINE, case, [], text=long * 9)
    assert validate_message(line.text, line.blocks) == []
