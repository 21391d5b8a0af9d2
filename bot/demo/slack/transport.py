"""How payloads reach the bot: one small protocol, implemented by Socket Mode and by signed HTTP."""

from typing import Any, Literal, Protocol

Kind = Literal["events_api", "interactive", "slash_commands"]


class NotAcknowledgedError(Exception):
    """The bot did not answer in time, answered with an error, or is not there; the argument says which."""

    @property
    def reason(self) -> str:
        return str(self.args[0])


class Transport(Protocol):
    """One way to the bot."""

    mode: str

    @property
    def connected(self) -> bool: ...

    async def send(
        self, kind: Kind, payload: dict[str, Any], *, attempt: int, reason: str, timeout_s: float
    ) -> dict[str, Any]:
        """Deliver once; what it was acknowledged with ({} for nothing). Raises NotAcknowledgedError.

        `attempt` is 0 for the first try of an event; `reason` says why it is tried again.
        """
        ...

    async def stop(self) -> None: ...
