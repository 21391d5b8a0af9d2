"""Block Kit as small functions: each returns the JSON of one block, with its text cut to Slack's limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bot.slack.blocks import MAX_MESSAGE_BLOCKS, MAX_MESSAGE_CHARS, blocks_chars
from bot.slack.text import SECTION_CHARS, clip, plain

Block = dict[str, Any]
View = dict[str, Any]

HEADER_CHARS = 150
FIELD_CHARS = 2000
BUTTON_CHARS = 75
OPTION_CHARS = 75
CONFIRM_CHARS = 300
TITLE_CHARS = 24
TEXT_CHARS = 300
"""Our own limit of a message's top-level text: a notification shows no more."""


@dataclass(frozen=True, slots=True)
class Message:
    """What chat.postMessage takes; ``text`` is for notifications and screen readers."""

    text: str
    blocks: list[Block]


def mrkdwn(text: str, limit: int = SECTION_CHARS) -> dict[str, Any]:
    """A mrkdwn text object; verbatim, so that Slack makes no links from plain addresses or names."""
    return {"type": "mrkdwn", "text": clip(text, limit) or " ", "verbatim": True}


def plain_text(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": plain(text, limit) or " ", "emoji": True}


def header(text: str) -> Block:
    return {"type": "header", "text": plain_text(text, HEADER_CHARS)}


def section(text: str, accessory: Block | None = None) -> Block:
    block: Block = {"type": "section", "text": mrkdwn(text)}
    return block if accessory is None else {**block, "accessory": accessory}


def fields(*pairs: tuple[str, str]) -> Block:
    """Up to ten titled values (mrkdwn), in two columns where there is room for them."""
    return {
        "type": "section",
        "fields": [mrkdwn(f"*{title}*\n{value}", FIELD_CHARS) for title, value in pairs[:10]],
    }


def context(*texts: str) -> Block:
    return {"type": "context", "elements": [mrkdwn(text, FIELD_CHARS) for text in texts[:10]]}


def divider() -> Block:
    return {"type": "divider"}


def image(file_id: str, alt_text: str) -> Block:
    return {"type": "image", "slack_file": {"id": file_id}, "alt_text": plain(alt_text, 2000)}


def button(
    text: str,
    action_id: str,
    value: str,
    *,
    style: Literal["primary", "danger"] | None = None,
    confirm: Block | None = None,
) -> Block:
    block: Block = {
        "type": "button",
        "text": plain_text(text, BUTTON_CHARS),
        "action_id": action_id,
        "value": value,
    }
    if style:
        block["style"] = style
    return block if confirm is None else {**block, "confirm": confirm}


def confirm(title: str, text: str, yes: str, no: str) -> Block:
    """A confirm dialog; ``text`` is mrkdwn."""
    return {
        "title": plain_text(title, 100),
        "text": mrkdwn(text, CONFIRM_CHARS),
        "confirm": plain_text(yes, 30),
        "deny": plain_text(no, 30),
    }


def overflow(action_id: str, options: Sequence[tuple[str, str]]) -> Block:
    """``options`` are (text, value), at most five."""
    return {
        "type": "overflow",
        "action_id": action_id,
        "options": [{"text": plain_text(text, BUTTON_CHARS), "value": value} for text, value in options[:5]],
    }


def actions(*elements: Block) -> Block:
    return {"type": "actions", "elements": list(elements)}


def text_input(
    label: str, block_id: str, action_id: str, *, hint: str, initial: str = "", min_length: int = 0
) -> Block:
    """A line of text to fill in; required."""
    element: Block = {"type": "plain_text_input", "action_id": action_id, "max_length": 500}
    if initial:
        element["initial_value"] = initial
    if min_length:
        element["min_length"] = min_length
    return {
        "type": "input",
        "block_id": block_id,
        "label": plain_text(label, 200),
        "hint": plain_text(hint, 300),
        "element": element,
    }


def choice_input(
    label: str, block_id: str, action_id: str, options: Sequence[tuple[str, str, str]], *, hint: str
) -> Block:
    """One of ``options``: (text, value, description), at most ten; required."""
    shown = [
        {"text": plain_text(text, OPTION_CHARS), "value": value, "description": plain_text(more, OPTION_CHARS)}
        for text, value, more in options[:10]
    ]
    return {
        "type": "input",
        "block_id": block_id,
        "label": plain_text(label, 200),
        "hint": plain_text(hint, 300),
        "element": {"type": "radio_buttons", "action_id": action_id, "options": shown},
    }


def modal(title: str, blocks: list[Block], *, submit: str = "", callback_id: str = "", metadata: str = "") -> View:
    """A modal with up to 100 blocks; without ``submit`` it is only to be read."""
    view: View = {
        "type": "modal",
        "title": plain_text(title, TITLE_CHARS),
        "close": plain_text("Cancel" if submit else "Close", TITLE_CHARS),
        "blocks": blocks[:100],
    }
    if submit:
        view |= {"submit": plain_text(submit, TITLE_CHARS), "callback_id": callback_id, "private_metadata": metadata}
    return view


def paragraphs(lines: Sequence[str]) -> list[Block]:
    """Lines (mrkdwn) as sections, as many lines in each as Slack takes."""
    blocks: list[Block] = []
    held = ""
    for line in (clip(line, SECTION_CHARS) for line in lines):
        if held and len(held) + 1 + len(line) > SECTION_CHARS:
            blocks.append(section(held))
            held = ""
        held = f"{held}\n{line}" if held else line
    return [*blocks, section(held)] if held else blocks


def fit(blocks: Sequence[Block], note: str, *, last: Sequence[Block] = ()) -> list[Block]:
    """As many blocks from the start as one message takes, then ``last``; ``note`` (mrkdwn) where some had to go."""
    whole = [*blocks, *last]
    if len(whole) <= MAX_MESSAGE_BLOCKS and blocks_chars(whole) <= MAX_MESSAGE_CHARS:
        return whole
    room = MAX_MESSAGE_CHARS - blocks_chars([context(note), *last])
    kept: list[Block] = []
    for block in blocks[: MAX_MESSAGE_BLOCKS - 1 - len(last)]:
        room -= blocks_chars(block) + 1
        if room < 0:
            break
        kept.append(block)
    return [*kept, context(note), *last]


def with_ids(blocks: Sequence[Block], suffix: str) -> list[Block]:
    """Gives each block an id that is new with each ``suffix``: Slack asks for that when a message is updated."""
    return [
        block if "block_id" in block else {**block, "block_id": f"{block['type']}-{number}-{suffix}"}
        for number, block in enumerate(blocks)
    ]
