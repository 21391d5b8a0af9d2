"""Words for Slack: escaping what comes from outside, cutting to Slack's limits, times and durations for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pipeline.domain.untrusted import without_links

SECTION_CHARS = 3000
"""Slack's limit of a section's text; other limits stand with the block they belong to in ``kit``."""

_MENTION = re.compile(r"&lt;@([UW][A-Z0-9]{2,20})&gt;")
_GROUP = re.compile(r"&lt;!subteam\^(S[A-Z0-9]{1,30})&gt;")
_USER_ID = re.compile(r"[UW][A-Z0-9]{2,20}")
# Control characters and those that turn the reading direction can make a text look like another one.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_OPEN_END = re.compile(r"&[a-z]{0,4}$|<[^>]*$")


def escape(text: str) -> str:
    """Text from outside, safe inside mrkdwn: no mention, link or date can be made from it.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    shown = _INVISIBLE.sub("", text)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def sentence(text: str) -> str:
    """Like ``escape``, for the bot's own sentences: mentions of people (``<@U…>``) are kept, nothing else."""
    return _MENTION.sub(r"<@\1>", escape(text))


def calling(text: str) -> str:
    """Like ``sentence``, for text that is all ours: mentions of user groups are kept too."""
    return _GROUP.sub(r"<!subteam^\1>", sentence(text))


def one_line(text: str) -> str:
    """All runs of whitespace become one space."""
    return " ".join(text.split())


def inline(text: str, limit: int) -> str:
    """Text from outside on one line, escaped, without anything Slack would link, at most ``limit`` characters."""
    return clip(escape(without_links(one_line(text))), limit)


def code(text: str, limit: int = 200) -> str:
    """Text from outside as inline code, at most ``limit`` characters."""
    return f"`{clip(escape(one_line(text)).replace('`', 'ˋ') or ' ', max(limit - 2, 1))}`"


def code_block(text: str, limit: int = 1200) -> str:
    """Text from outside as a block of code, at most ``limit`` characters with its fences."""
    return "```" + clip(escape(text).replace("`", "ˋ") or " ", max(limit - 6, 1)) + "```"


def plain(text: str, limit: int) -> str:
    """Text from outside for a ``plain_text`` object, which shows entities as they are: angle brackets are replaced."""
    shown = one_line(_INVISIBLE.sub("", text)).replace("<", "‹").replace(">", "›")
    return shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


def clip(text: str, limit: int) -> str:
    """At most ``limit`` characters of escaped text, ending in ``…`` when cut, never inside an entity or a ``<…>``."""
    if len(text) <= limit:
        return text
    kept = text[: max(limit - 1, 0)]
    return _OPEN_END.sub("", kept).rstrip() + "…"


def mention(user_id: str) -> str:
    """``<@U…>``, which Slack shows as the person's name; anything that is no user id is shown escaped."""
    return f"<@{user_id}>" if _USER_ID.fullmatch(user_id) else escape(user_id)


def clock(at: datetime) -> str:
    """A time of day in the reader's own time zone; ``14:05 UTC`` where that cannot be shown."""
    return f"<!date^{int(at.timestamp())}^{{time}}|{at.astimezone(UTC):%H:%M} UTC>"


def day_and_time(at: datetime) -> str:
    """Like ``clock`` with the day before it."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC>"


def utc(at: datetime) -> str:
    """``14:05:09 UTC``, for windows of queries and for places where Slack shows no dates."""
    return f"{at.astimezone(UTC):%H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 10 s``, ``2 h 5 min``, ``2 d 4 h``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _pair(whole // 60, "min", whole % 60, "s")
    if whole < 172_800:
        return _pair(whole // 3600, "h", whole % 3600 // 60, "min")
    return _pair(whole // 86_400, "d", whole % 86_400 // 3600, "h")


def _pair(large: int, unit: str, small: int, lesser: str) -> str:
    return f"{large} {unit} {small} {lesser}" if small else f"{large} {unit}"


def counted(number: int, noun: str) -> str:
    """``1 alert``, ``3 alerts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
