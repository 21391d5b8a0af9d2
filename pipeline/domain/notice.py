"""What is to be told to the outside, as stored in the outbox. How it looks is decided where it is sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ThreadPart(StrEnum):
    """A piece of an incident's thread."""

    EVIDENCE = "evidence"
    REASONING = "reasoning"
    LINE = "line"
    VERIFICATION = "verification"
    SUMMARY = "summary"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1


class CardNotice(_Stored):
    """Draw the incident's card anew from what the database says at that moment."""

    kind: Literal["card"] = "card"


class ThreadNotice(_Stored):
    """Post one part into the incident's thread; ``text`` (plain, unescaped) only with ``LINE``."""

    kind: Literal["thread"] = "thread"
    part: ThreadPart
    text: str = ""


class BusNotice(_Stored):
    """Tell other replicas and agents."""

    kind: Literal["bus"] = "bus"
    topic: str
    fields: dict[str, str]


Notice = Annotated[CardNotice | ThreadNotice | BusNotice, Field(discriminator="kind")]
