"""One redactor for the whole process, and the places where it stands.

Where it fails, what it should have cleaned goes nowhere: an error without the text is raised, a log line is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from pipeline.domain.errors import PermanentError
from pipeline.domain.redaction import Redactor
from pipeline.domain.trace import JsonValue, TraceEntry

REDACTOR = Redactor()
"""One, so that the same secret has the same placeholder in the prompt, on the card, in the trail and in the log."""


_Clean = TypeVar("_Clean")
LEFT_OUT = "a line was left out: it could not be written without its secrets"


def redact(text: str) -> str:
    """``text`` without its secrets. Raises PermanentError, without the text, when they cannot be taken out."""
    return _or_refuse(lambda: REDACTOR.text(text).text)


def redact_json(value: JsonValue) -> JsonValue:
    """The same for JSON, keys included."""
    return _or_refuse(lambda: REDACTOR.json(value))


def _or_refuse(clean: Callable[[], _Clean]) -> _Clean:
    try:
        return clean()
    except Exception as error:  # noqa: BLE001
        # Not raised from it: its words may hold the text.
        why = f"nothing was sent or stored: taking out secrets failed ({type(error).__name__})"
    raise PermanentError(why)


def clean_entry(entry: TraceEntry) -> TraceEntry:
    """An entry of the trail without its secrets."""
    data = redact_json(dict(entry.data))
    assert isinstance(data, dict)
    return TraceEntry(entry.kind, redact(entry.summary), data)


class RedactingFormatter(logging.Formatter):
    """Takes secrets out of whole log lines, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return redact(super().format(record))
        except (PermanentError, TypeError, ValueError, KeyError):
            return f"{record.levelname} {record.name} (line {record.lineno}): {LEFT_OUT}"


def log_to_stderr(level: str | int, form: str) -> None:
    """Sets logging up, without secrets in it."""
    logging.raiseExceptions = False  # logging's own report of a line that failed shows it with its arguments
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
