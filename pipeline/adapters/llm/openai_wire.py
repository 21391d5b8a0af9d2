"""What both wire formats of OpenAI's share: what a server was found to accept, and the form of a request's parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import openai
from pydantic import BaseModel

from pipeline.adapters.llm.chat import Conversation
from pipeline.adapters.llm.strict_schema import strict_schema
from pipeline.ports.toolbox import ToolSpec

MAX_TOKENS = 8000
"""Room for the reasoning of the model as well; a hypothesis takes about 1,000."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Format = Literal["json_schema", "json_object", "text"]
TokensKey = Literal["max_tokens", "max_completion_tokens"]

_LOWER: dict[Format, Format] = {"json_schema": "json_object", "json_object": "text"}


@dataclass(frozen=True, slots=True)
class Takes:
    """What the server accepts, as far as it has said; servers of the same wire format differ in this."""

    format: Format = "json_schema"
    effort: Effort | None = None
    tokens_key: TokensKey = "max_tokens"
    stream_usage: bool = True

    def less(self, error: openai.APIStatusError, *, schema: bool) -> Takes | None:
        """What to try after ``error``: the parameter it names left out, else a weaker form of answer; None: give up."""
        said = f"{error} {error.body}".lower()
        names_form = "response_format" in said or "json_schema" in said or "json_object" in said
        if error.status_code not in (400, 422) and not (error.status_code >= 500 and names_form):
            return None
        if "max_completion_tokens" in said and self.tokens_key == "max_tokens":
            return replace(self, tokens_key="max_completion_tokens")
        if "stream_options" in said and self.stream_usage:
            return replace(self, stream_usage=False)
        if self.effort is not None and ("reasoning" in said or "effort" in said):
            return replace(self, effort=None)
        if not schema or self.format == "text" or "context" in said:
            return None
        return replace(self, format=_LOWER[self.format])


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn to be had; see ``ChatModel.turn``."""

    model: str
    api: str
    """What the server is called in an error."""
    system: str
    conversation: Conversation
    tools: Sequence[ToolSpec]
    may_call: bool
    schema: type[BaseModel] | None

    def instructions(self, takes: Takes) -> str:
        """The form of the answer stands there in words where the server cannot be given it."""
        if self.schema is None or takes.format == "json_schema":
            return self.system
        form = json.dumps(strict_schema(self.schema), ensure_ascii=False)
        return f"{self.system}\n\nThe JSON object has this schema, and nothing is written around it:\n{form}"
