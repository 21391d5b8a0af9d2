"""Errors whose type says what may be done next: try again, give up, or look before doing anything."""

from __future__ import annotations


class SreBotError(Exception):
    """Base of all errors of ours; the message is one line that a person can act on."""


class TemporaryError(SreBotError):
    """Nothing happened, and the same call may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermanentError(SreBotError):
    """Nothing happened, and the same call will fail again."""


class PreconditionFailed(PermanentError):
    """The target is not what the plan was made for; nothing was changed."""


class OutcomeUnknown(SreBotError):
    """A write was sent and no answer came: it may or may not have taken effect. Never retried blind."""


class ConfigurationError(SreBotError):
    """A setting is missing, unknown or wrong; the message names it and says what to write."""
