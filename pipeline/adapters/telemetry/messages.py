"""The message inside of a log line, whatever envelope it travelled in. Pure."""

from __future__ import annotations

import json

_MESSAGE_FIELDS = ("msg", "message", "log", "body", "event")
_LEVEL_FIELDS = ("level", "severity", "lvl", "levelname", "log.level")
_ERROR_FIELDS = ("error", "err")
_ENVELOPES = 2
"""A container runtime wraps the line in JSON, and the program in it may have written JSON as well."""


def message_of(line: str) -> str:
    """The message field of a JSON line, after its level and before its error where it has them; any other line as it
    stands."""
    level = ""
    for _ in range(_ENVELOPES):
        fields = _fields(line)
        message = next((fields[name] for name in _MESSAGE_FIELDS if name in fields), None)
        if message is None:
            break
        level = next((fields[name] for name in _LEVEL_FIELDS if name in fields), level)
        line = message.rstrip("\r\n")
        error = next((fields[name] for name in _ERROR_FIELDS if fields.get(name)), "")
        if error and error not in line:
            line = f"{line}: {error}"
    return f"{level} {line}" if level else line.rstrip("\r\n")


def spellings(text: str) -> tuple[str, ...]:
    """``text``, and how it may stand inside of a JSON string, each once."""
    quoted = (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return tuple(dict.fromkeys((text, *quoted)))


def _fields(line: str) -> dict[str, str]:
    """The fields that are texts, of a line that is a JSON object; else none."""
    if not line.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
