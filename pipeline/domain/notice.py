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
    REMINDER = "reminder"
    VERIFICATION = "verification"
    SUMMARY = "summary"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1


class CardNotice(_Stored):
    """Draw the incident's card anew from what the database says at that moment."""

    kind: Literal["card"] = "card"


class ThreadNotice(_Stored):
    """Post one part into the incident's thread; ``text`` (plain, unescaped) only with ``LINE`` and ``REMINDER``.

    A reminder's text is all ours: in it people and groups are called by ``<@U…>`` and ``<!subteam^S…>``.
    """

    kind: Literal["thread"] = "thread"
    part: ThreadPart
    text: str = ""


class BusNotice(_Stored):
    """Tell other replicas and agents."""

    kind: Literal["bus"] = "bus"
    topic: str
    fields: dict[str, str]


PageEvent = Literal["trigger", "acknowledge", "resolve"]


class PagerNotice(_Stored):
    """Tell the pager how an incident of ours stands; the rest of what it shows is read where it is sent.

    ``dedup_key`` is the same for all of one incident; ``reason`` says in plain text why somebody is called.
    """

    kind: Literal["pager"] = "pager"
    event: PageEvent
    dedup_key: str
    reason: str = ""


Notice = Annotated[CardNotice | ThreadNotice | BusNotice | PagerNotice, Field(discriminator="kind")]
