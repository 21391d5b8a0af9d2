"""What an API's refusal means to us: come back later, or change something first. One line, with what to do.

Trying once more is done here and not by the SDKs: those sleep as long as a server asks, up to a minute, while an
incident waits and the deadline of the whole answer runs out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import isfinite
from typing import TypeVar

from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.untrusted import neutralise
from pipeline.ports.model import OnText

SAID_CHARS = 200
RETRY_WITHIN_S = 5.0
"""A server that asks for a longer wait is not waited for: the rules answer at once."""
RETRY_PAUSE_S = 0.5
"""Before the second try where the server names no time, as the SDKs have it."""
_T = TypeVar("_T")


class NotNow(TemporaryError):
    """The API was busy or out of reach: the same request may be taken in a moment."""


async def tried_again(ask: Callable[[OnText | None], Awaitable[_T]], on_text: OnText | None, retries: int) -> _T:
    """What ``ask`` gives, asked up to ``retries`` times more when it raises NotNow and a short wait may help.

    A part of an answer that ``on_text`` was given already is not given twice: then the error stands.
    """
    heard = False

    async def listening(piece: str) -> None:
        nonlocal heard
        heard = True
        if on_text is not None:
            await on_text(piece)

    while True:
        try:
            return await ask(listening if on_text is not None else None)
        except NotNow as error:
            wait_s = RETRY_PAUSE_S if error.retry_after_s is None else error.retry_after_s
            if heard or retries == 0 or wait_s > RETRY_WITHIN_S:
                raise
        retries -= 1
        await asyncio.sleep(wait_s)


def status_error(
    api: str, key: str, model: str, status: int, headers: Mapping[str, str], said: str
) -> PermanentError | TemporaryError:
    """The error for an HTTP ``status`` of ``api``. ``key`` names the setting of the key, ``said`` is its own text."""
    match status:
        case 401 | 403:
            return PermanentError(f"{api} refused the key ({status}): check {key}")
        case 402:
            return PermanentError(f"the account at {api} has no credit left (402): see its billing page")
        case 404:
            return PermanentError(
                f"{api} knows no model {model} (404): name one that is not retired, and check the base URL"
            )
        case 429 if "insufficient_quota" in said:
            return PermanentError(f"the account at {api} has no credit left (429): see its billing page")
        case 408 | 409 | 429:
            after_s = retry_after_s(headers)
            return NotNow(f"{api} asks to wait{_for(after_s)} ({status})", retry_after_s=after_s)
        case _ if status >= 500:
            what, after_s = "is overloaded" if status == 529 else "fails", retry_after_s(headers)
            asks = "" if after_s is None else f", asks to wait{_for(after_s)}"
            return NotNow(f"{api} {what} ({status}){asks}", retry_after_s=after_s)
        case _:
            return PermanentError(f"{api} refused the request ({status}): {one_line(said)}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The header in seconds, or the finer one in milliseconds; a date, its other form, is not used by these APIs."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if isfinite(seconds):
            return max(0.0, seconds)
    return None


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f" {seconds:g} s"


def unreadable(api: str, why: str) -> TemporaryError:
    """What came with a 200 is no answer: a proxy's page, a stream that broke off, a form nobody knows."""
    return TemporaryError(f"{api} gave an answer that cannot be read: {one_line(why)}")


def unreachable(api: str, error: BaseException) -> NotNow:
    """No connection, or one that was lost."""
    cause = error.__cause__ or error
    return NotNow(f"{api} cannot be reached: {one_line(str(cause) or type(cause).__name__)}")


def one_line(text: str) -> str:
    """An API's own words for a log line."""
    return neutralise(text, SAID_CHARS)
