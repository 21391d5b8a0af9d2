"""What Slack adds to blocks when it stores them, and how to find an element in them again."""

import copy
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from bot.slack.blocks import interactive_elements


def filled(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy with block ids, action ids and the defaults of text objects filled in."""
    copied = copy.deepcopy(list(blocks))
    for block in copied:
        block.setdefault("block_id", secrets.token_urlsafe(4)[:5])
        for _, element in interactive_elements(block):
            element.setdefault("action_id", secrets.token_urlsafe(4)[:5])
        _fill_texts(block)
    return copied


def _fill_texts(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _fill_texts(item)
    elif isinstance(value, dict):
        if value.get("type") == "plain_text":
            value.setdefault("emoji", True)
        elif value.get("type") == "mrkdwn":
            value.setdefault("verbatim", False)
        for item in value.values():
            _fill_texts(item)


def find_element(
    blocks: Sequence[dict[str, Any]], block_id: str, action_id: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(block, element) with these ids, or None."""
    for block in blocks:
        if block.get("block_id") == block_id:
            for _, element in interactive_elements(block):
                if element.get("action_id") == action_id:
                    return block, element
    return None


def slack_files(value: Any, pointer: str = "/blocks") -> Iterator[tuple[str, dict[str, Any]]]:
    """(JSON pointer, slack_file object) of every picture in the blocks that is an uploaded file."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from slack_files(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        file = value.get("slack_file")
        if value.get("type") == "image" and isinstance(file, dict):
            yield f"{pointer}/slack_file", file
        for key, item in value.items():
            if isinstance(item, list | dict):
                yield from slack_files(item, f"{pointer}/{key}")


def plain_fallback(blocks: Sequence[dict[str, Any]]) -> str:
    """The text Slack makes up for notifications when a message comes with blocks only."""
    words: list[str] = []
    for block in blocks:
        for key in ("text", "title"):
            content = block.get(key)
            if isinstance(content, dict):
                words.append(str(content.get("text", "")))
            elif isinstance(content, str):
                words.append(content)
        words += [str(field.get("text", "")) for field in block.get("fields", ())]
    return " ".join(word for word in words if word)
