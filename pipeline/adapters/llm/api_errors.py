"""What an API's refusal means to us: come back later, or change something first. One line, with what to do."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.untrusted import neutralise

SAID_CHARS = 200


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
            return TemporaryError(f"{api} asks to wait ({status})", retry_after_s=retry_after_s(headers))
        case _ if status >= 500:
            what = "is overloaded" if status == 529 else "fails"
            return TemporaryError(f"{api} {what} ({status})", retry_after_s=retry_after_s(headers))
        case _:
            return PermanentError(f"{api} refused the request ({status}): {one_line(said)}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The header in seconds; its other form, a date, is not used by these APIs."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None


def unreadable(api: str, why: str) -> TemporaryError:
    """What came with a 200 is no answer: a proxy's page, a stream that broke off, a form nobody knows."""
    return TemporaryError(f"{api} gave an answer that cannot be read: {one_line(why)}")


def unreachable(api: str, error: BaseException) -> TemporaryError:
    """No connection, or one that was lost."""
    cause = error.__cause__ or error
    return TemporaryError(f"{api} cannot be reached: {one_line(str(cause) or type(cause).__name__)}")


def one_line(text: str) -> str:
    """An API's own words for a log line."""
    return neutralise(text, SAID_CHARS)
