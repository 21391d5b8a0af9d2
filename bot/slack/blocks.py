"""What Slack accepts as a message or a view, checked before it is sent.

One validator for the bot and for the local Slack; the types and limits stand in `bot.slack.block_types`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from bot.slack.block_types import (
    BLOCKS,
    MAX_MARKDOWN_CHARS,
    MESSAGE_ONLY_BLOCKS,
    VIEW,
    Check,
    Problem,
    array,
    typed,
)

__all__ = [
    "Problem",
    "blocks_chars",
    "interactive_elements",
    "validate_blocks",
    "validate_message",
    "validate_view",
]

MAX_TEXT_CHARS = 4_000
"""Top-level text: chat.update refuses more (msg_too_long)."""
MAX_MESSAGE_BLOCKS = 50
MAX_VIEW_BLOCKS = 100
MAX_MESSAGE_CHARS = 13_000
"""All blocks of a message as compact JSON. Slack answers msg_blocks_too_long at about 13,200 characters of
text plus an undocumented share of the markup; counting all markup stays on the safe side."""
MAX_VIEW_BYTES = 250_000

Surface = Literal["message", "modal", "home"]

_SURFACES: dict[Surface, tuple[Check, int]] = {
    "message": (typed({**BLOCKS, **MESSAGE_ONLY_BLOCKS}), MAX_MESSAGE_BLOCKS),
    "modal": (typed(BLOCKS), MAX_VIEW_BLOCKS),
    "home": (typed(BLOCKS), MAX_VIEW_BLOCKS),
}


def interactive_elements(block: Mapping[str, Any], pointer: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The elements of one block that carry an action_id, with their JSON pointers."""
    found: list[tuple[str, dict[str, Any]]] = []
    for key in ("accessory", "element"):
        if isinstance(block.get(key), dict):
            found.append((f"{pointer}/{key}", block[key]))
    elements = block.get("elements")
    if block.get("type") in ("actions", "context_actions") and isinstance(elements, list):
        found += [(f"{pointer}/elements/{i}", e) for i, e in enumerate(elements) if isinstance(e, dict)]
    return [(path, element) for path, element in found if element.get("type") != "image"]


def _duplicates(blocks: Sequence[Any], path: str) -> Iterable[Problem]:
    block_ids: set[Any] = set()
    for index, block in enumerate(blocks):
        if not isinstance(block, dict):
            continue
        block_id = block.get("block_id")
        if isinstance(block_id, str) and block_id in block_ids:
            yield Problem(f"{path}/{index}/block_id", f"`block_id` {block_id!r} already exists")
        block_ids.add(block_id if isinstance(block_id, str) else None)
        action_ids: set[str] = set()
        for where, element in interactive_elements(block, f"{path}/{index}"):
            action_id = element.get("action_id")
            if isinstance(action_id, str):
                if action_id in action_ids:
                    yield Problem(f"{where}/action_id", f"`action_id` {action_id!r} already exists")
                action_ids.add(action_id)


def validate_blocks(blocks: Any, surface: Surface = "message", path: str = "/blocks") -> list[Problem]:
    """Every reason for Slack to refuse these blocks on that surface; an empty list when there is none."""
    check, maximum = _SURFACES[surface]
    problems = list(array(check, maximum, minimum=0)(blocks, path))
    if not isinstance(blocks, list):
        return problems
    problems += _duplicates(blocks, path)
    of_type = [block.get("type") for block in blocks if isinstance(block, dict)]
    if of_type.count("table") > 1:
        problems.append(Problem(path, "only_one_table_allowed"))
    markdown = [b.get("text") for b in blocks if isinstance(b, dict) and b.get("type") == "markdown"]
    if len(markdown) > 1 and sum(len(text) for text in markdown if isinstance(text, str)) > MAX_MARKDOWN_CHARS:
        problems.append(Problem(path, f"all markdown blocks: must be less than {MAX_MARKDOWN_CHARS + 1} characters"))
    return problems


def blocks_chars(blocks: Any) -> int:
    """The size of the blocks as compact JSON, in characters; compare with MAX_MESSAGE_CHARS."""
    return len(json.dumps(blocks, ensure_ascii=False, separators=(",", ":")))


def validate_message(text: str | None, blocks: Any = None, attachments: Sequence[Any] | None = None) -> list[Problem]:
    """Every reason for Slack to refuse this message; an empty list when there is none.

    `text` is what notifications and screen readers use, so it is asked for even beside blocks.
    """
    problems: list[Problem] = []
    if not text:
        problems.append(Problem("/text", "no_text"))
    elif len(text) > MAX_TEXT_CHARS:
        problems.append(Problem("/text", f"must be less than {MAX_TEXT_CHARS + 1} characters"))
    everything = list(blocks) if isinstance(blocks, list) else []
    if blocks is not None:
        problems += validate_blocks(blocks)
    for index, attachment in enumerate(attachments or ()):
        if isinstance(attachment, dict) and attachment.get("blocks") is not None:
            problems += validate_blocks(attachment["blocks"], path=f"/attachments/{index}/blocks")
            everything += attachment["blocks"] if isinstance(attachment["blocks"], list) else []
    if everything and blocks_chars(everything) > MAX_MESSAGE_CHARS:
        problems.append(Problem("/blocks", f"whole message: must be less than {MAX_MESSAGE_CHARS + 1} characters"))
    return problems


def validate_view(view: Any) -> list[Problem]:
    """Every reason for Slack to refuse this modal or Home view; an empty list when there is none."""
    problems = list(VIEW(view, ""))
    if not isinstance(view, dict) or view.get("type") not in ("modal", "home"):
        return problems
    blocks = view.get("blocks")
    if blocks is not None:
        problems += validate_blocks(blocks, view["type"])
    if isinstance(blocks, list):
        has_input = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
        if view["type"] == "modal" and has_input and view.get("submit") is None:
            problems.append(Problem("/submit", "required when an input block is within blocks"))
    if len(json.dumps(view, ensure_ascii=False).encode()) > MAX_VIEW_BYTES:
        problems.append(Problem("", f"view_too_large: must be less than {MAX_VIEW_BYTES + 1} bytes"))
    return problems
