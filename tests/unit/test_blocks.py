"""Every limit of Slack's that the validator knows, at its edge and one past it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack.blocks import Problem, validate_blocks, validate_message, validate_view

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def section(**more: Any) -> Json:
    return {"type": "section", "text": mrkdwn("x"), **more}


def button(action_id: str = "a", **more: Any) -> Json:
    return {"type": "button", "action_id": action_id, "text": plain("Go"), **more}


def actions(*elements: Json, **more: Any) -> Json:
    return {"type": "actions", "elements": list(elements or [button()]), **more}


def image(**more: Any) -> Json:
    return {"type": "image", "alt_text": "a chart", "slack_file": {"id": "F0123456789"}, **more}


def confirm(**more: Any) -> Json:
    texts = {"title": plain("Sure?"), "text": mrkdwn("x"), "confirm": plain("Yes"), "deny": plain("No")}
    return texts | more


def option(text: str = "o", value: str = "v") -> Json:
    return {"text": plain(text), "value": value}


def select(**more: Any) -> Json:
    return {"type": "static_select", "action_id": "s", "options": [option()], **more}


def field(element: Json | None = None, **more: Any) -> Json:
    text_input = {"type": "plain_text_input", "action_id": "t"}
    return {"type": "input", "label": plain("Why"), "element": element or text_input, **more}


def task(**more: Any) -> Json:
    return {"type": "task_card", "task_id": "1", "title": "Look", "status": "complete", **more}


def feedback() -> Json:
    buttons = {"positive_button": {"text": plain("Good"), "value": "+"}}
    buttons["negative_button"] = {"text": plain("Bad"), "value": "-"}
    return {"type": "feedback_buttons", "action_id": "f", **buttons}


def rich(text: str = "x") -> Json:
    run = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [run]}


def modal(*blocks: Json, **more: Any) -> Json:
    return {"type": "modal", "title": plain("Title"), "blocks": list(blocks), **more}


GOOD: list[Json] = [
    {"type": "divider"},
    {"type": "header", "text": plain("h" * 150)},
    section(text=mrkdwn("x" * 3000)),
    {"type": "section", "fields": [mrkdwn("x" * 2000)] * 5},
    section(accessory=button(value="v" * 2000, style="danger", confirm=confirm(text=mrkdwn("x" * 300)))),
    section(accessory={"type": "overflow", "action_id": "o", "options": [option()] * 5}),
    section(block_id="b" * 255),
    image(),
    {"type": "image", "alt_text": "x" * 2000, "image_url": "https://example.org/a.png", "title": plain("t")},
    {"type": "context", "elements": [mrkdwn("x"), plain("y"), image()] * 3},
    actions(*[button(f"a{n}", text=plain("x" * 75)) for n in range(25)]),
    actions(select(), {"type": "users_select", "action_id": "u"}),
    {"type": "markdown", "text": "x" * 12_000},
    rich(),
    {"type": "table", "rows": [[rich()], *[[{"type": "raw_text", "text": "x"}]] * 99]},
    {"type": "context_actions", "elements": [feedback()]},
    {"type": "plan", "title": "Plan", "tasks": [task(details=rich())]},
    task(output=rich(), sources=[{"type": "url", "url": "https://example.org", "text": "x"}]),
    field(optional=True, hint=plain("hint")),
]


@pytest.mark.parametrize("block", GOOD, ids=lambda block: str(block["type"]))
def test_what_slack_takes(block: Json) -> None:
    assert validate_message("text", [block]) == []


BAD: list[tuple[str, Json, str, str]] = [
    ("type missing", {"text": mrkdwn("x")}, "/blocks/0", "missing required field: type"),
    ("type unknown", {"type": "blink"}, "/blocks/0/type", "unsupported type: blink"),
    ("key unknown", section(colour="red"), "/blocks/0", "invalid additional property: colour"),
    ("section long", section(text=mrkdwn("x" * 3001)), "/blocks/0/text/text", "less than 3001"),
    ("section text empty", section(text=mrkdwn("")), "/blocks/0/text/text", "more than 0"),
    ("section text a string", section(text="x"), "/blocks/0/text", "must be an object"),
    ("section of nothing", {"type": "section"}, "/blocks/0", "at least one of text, fields"),
    ("11 fields", section(fields=[mrkdwn("x")] * 11), "/blocks/0/fields", "no more than 10"),
    ("field long", section(fields=[mrkdwn("x" * 2001)]), "/blocks/0/fields/0/text", "less than 2001"),
    ("header long", {"type": "header", "text": plain("h" * 151)}, "/blocks/0/text/text", "less than 151"),
    ("header mrkdwn", {"type": "header", "text": mrkdwn("h")}, "/blocks/0/text/type", "unsupported type"),
    ("26 buttons", actions(*[button(f"{n}") for n in range(26)]), "/blocks/0/elements", "no more than 25"),
    ("no buttons", {"type": "actions", "elements": []}, "/blocks/0/elements", "no less than 1"),
    ("label long", actions(button(text=plain("x" * 76))), "/blocks/0/elements/0/text/text", "less than 76"),
    ("value long", actions(button(value="v" * 2001)), "/blocks/0/elements/0/value", "less than 2001"),
    ("style unknown", actions(button(style="warning")), "/blocks/0/elements/0/style", "must be one of"),
    ("action_id long", actions(button("a" * 256)), "/blocks/0/elements/0/action_id", "less than 256"),
    ("block_id long", actions(block_id="b" * 256), "/blocks/0/block_id", "less than 256"),
    ("same action_id", actions(button(), button()), "/blocks/0/elements/1/action_id", "already exists"),
    (
        "confirm long",
        actions(button(confirm=confirm(text=mrkdwn("x" * 301)))),
        "/blocks/0/elements/0/confirm/text/text",
        "less than 301",
    ),
    (
        "confirm title long",
        actions(button(confirm=confirm(title=plain("x" * 101)))),
        "/blocks/0/elements/0/confirm/title/text",
        "less than 101",
    ),
    (
        "confirm button long",
        actions(button(confirm=confirm(deny=plain("x" * 31)))),
        "/blocks/0/elements/0/confirm/deny/text",
        "less than 31",
    ),
    (
        "confirm without deny",
        actions(button(confirm={k: v for k, v in confirm().items() if k != "deny"})),
        "/blocks/0/elements/0/confirm",
        "missing required field: deny",
    ),
    (
        "6 overflow options",
        actions({"type": "overflow", "action_id": "o", "options": [option()] * 6}),
        "/blocks/0/elements/0/options",
        "no more than 5",
    ),
    (
        "101 options",
        actions(select(options=[option()] * 101)),
        "/blocks/0/elements/0/options",
        "no more than 100",
    ),
    (
        "option value long",
        actions(select(options=[option(value="v" * 151)])),
        "/blocks/0/elements/0/options/0/value",
        "less than 151",
    ),
    (
        "options and groups",
        actions(select(option_groups=[{"label": plain("l"), "options": [option()]}])),
        "/blocks/0/elements/0",
        "exactly one of options, option_groups",
    ),
    ("input in actions", actions(field()["element"]), "/blocks/0/elements/0/type", "unsupported type"),
    ("no alt_text", image(alt_text=None), "/blocks/0", "missing required field: alt_text"),
    ("alt_text long", image(alt_text="x" * 2001), "/blocks/0/alt_text", "less than 2001"),
    ("two pictures", image(image_url="https://x"), "/blocks/0", "exactly one of image_url, slack_file"),
    ("file id odd", image(slack_file={"id": "f1"}), "/blocks/0/slack_file/id", "must match regex"),
    (
        "11 in context",
        {"type": "context", "elements": [mrkdwn("x")] * 11},
        "/blocks/0/elements",
        "no more than 10",
    ),
    ("markdown long", {"type": "markdown", "text": "x" * 12_001}, "/blocks/0/text", "less than 12001"),
    (
        "101 rows",
        {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]] * 101},
        "/blocks/0/rows",
        "no more than 100",
    ),
    (
        "21 columns",
        {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]},
        "/blocks/0/rows/0",
        "no more than 20",
    ),
    ("task status", task(status="done"), "/blocks/0/status", "must be one of"),
    ("label of input long", field(label=plain("x" * 2001)), "/blocks/0/label/text", "less than 2001"),
    ("input with button", field(button()), "/blocks/0/element/type", "unsupported type"),
]


@pytest.mark.parametrize(("block", "path", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_slack_refuses(block: Json, path: str, reason: str) -> None:
    problems = validate_message("text", [block])
    assert [p.path for p in problems] == [path], problems
    assert reason in problems[0].reason
    assert str(problems[0]).endswith(f"[json-pointer:{path}]")


def test_whole_messages() -> None:
    def paths(text: str | None, blocks: Any = None, attachments: list[Json] | None = None) -> list[str]:
        return [problem.path for problem in validate_message(text, blocks, attachments)]

    assert paths("x" * 4000) == []
    assert paths("x" * 4001) == ["/text"]
    assert validate_message("", [section()]) == [Problem("/text", "no_text")]
    assert paths(None) == ["/text"]
    assert paths("x", [section()] * 50) == []
    assert paths("x", [section()] * 51) == ["/blocks"]
    assert paths("x", [section(block_id="b"), section(block_id="b")]) == ["/blocks/1/block_id"]
    assert paths("x", [actions(button()), actions(button())]) == []
    assert paths("x", [section(text=mrkdwn("x" * 2900))] * 4) == []
    assert paths("x", [section(text=mrkdwn("x" * 2900))] * 5) == ["/blocks"]
    assert paths("x", [{"type": "markdown", "text": "x" * 6001}] * 2) == ["/blocks"]
    table = {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}
    assert paths("x", [table, table]) == ["/blocks"]
    assert paths("x", {"type": "section"}) == ["/blocks"]
    assert paths("x", ["section"]) == ["/blocks/0"]
    assert paths("x", None, [{"blocks": [{"type": "section"}]}]) == ["/attachments/0/blocks/0"]


def test_views() -> None:
    def reasons(view: Any) -> list[str]:
        return [str(problem) for problem in validate_view(view)]

    assert reasons(modal(section())) == []
    assert reasons(modal(field(), submit=plain("x" * 24), close=plain("No"), private_metadata="m" * 3000)) == []
    assert reasons({"type": "home", "blocks": [section()] * 100}) == []
    assert reasons(modal(title=plain("x" * 25))) == ["must be less than 25 characters [json-pointer:/title/text]"]
    assert reasons(modal(submit=plain("x" * 25))) == ["must be less than 25 characters [json-pointer:/submit/text]"]
    assert reasons(modal(private_metadata="m" * 3001)) == [
        "must be less than 3001 characters [json-pointer:/private_metadata]"
    ]
    assert reasons(modal(callback_id="m" * 256)) == ["must be less than 256 characters [json-pointer:/callback_id]"]
    assert reasons(modal(*[section()] * 101)) == ["no more than 100 items allowed [json-pointer:/blocks]"]
    assert reasons(modal(field())) == ["required when an input block is within blocks [json-pointer:/submit]"]
    assert reasons(modal({"type": "markdown", "text": "x"})) == [
        "unsupported type: markdown [json-pointer:/blocks/0/type]"
    ]
    assert reasons({"type": "home", "blocks": [], "title": plain("t")}) == [
        "invalid additional property: title [json-pointer:]"
    ]
    assert reasons({"type": "modal", "blocks": []}) == ["missing required field: title [json-pointer:]"]
    assert reasons({"type": "popup", "blocks": []}) == ["unsupported type: popup [json-pointer:/type]"]
    assert reasons(None) == ["must be an object [json-pointer:]"]
    big = modal(*[section(fields=[mrkdwn("x" * 2000)] * 10)] * 13)
    assert reasons(big) == ["view_too_large: must be less than 250001 bytes [json-pointer:]"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["section", "actions"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "elements", "accessory", "block_id", "rows", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_nothing_makes_the_validator_fall_over(value: Any) -> None:
    checks: list[Callable[[], list[Problem]]] = [
        lambda: validate_blocks(value),
        lambda: validate_view(value),
        lambda: validate_message("x", [value]),
    ]
    for check in checks:
        assert all(problem.reason for problem in check())
