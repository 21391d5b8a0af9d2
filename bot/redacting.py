"""One redactor for the whole process, and the places where it stands."""

from __future__ import annotations

import logging

from pipeline.domain.redaction import Redactor
from pipeline.domain.trace import TraceEntry

REDACTOR = Redactor()
"""One, so that the same secret has the same placeholder in the prompt, on the card, in the trail and in the log."""


def redact(text: str) -> str:
    """``text`` without its secrets."""
    return REDACTOR.text(text).text


def clean_entry(entry: TraceEntry) -> TraceEntry:
    """An entry of the trail without its secrets."""
    data = REDACTOR.json(dict(entry.data))
    assert isinstance(data, dict)
    return TraceEntry(entry.kind, redact(entry.summary), data)


class RedactingFormatter(logging.Formatter):
    """Takes secrets out of whole log lines, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def log_to_stderr(level: str | int, form: str) -> None:
    """Sets logging up, without secrets in it."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
