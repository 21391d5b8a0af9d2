"""What the Web API answers with when it refuses."""

from collections.abc import Iterable
from typing import Any

from bot.slack.blocks import Problem


class SlackError(Exception):
    """HTTP 200 with ok:false. `code` is one of Slack's error codes; `more` goes into the answer beside it."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.code = code
        self.more = more

    def body(self) -> dict[str, Any]:
        return {"ok": False, "error": self.code, **self.more}


def with_reasons(code: str, problems: Iterable[Problem]) -> SlackError:
    """An error that lists its reasons the way Slack does: in `errors` and in `response_metadata.messages`."""
    reasons = [str(problem) for problem in problems]
    return SlackError(code, errors=reasons, response_metadata={"messages": [f"[ERROR] {reason}" for reason in reasons]})


def missing(*fields: str) -> SlackError:
    """invalid_arguments for arguments that were not given."""
    messages = [f"[ERROR] missing required field: {field}" for field in fields]
    return SlackError("invalid_arguments", response_metadata={"messages": messages})
