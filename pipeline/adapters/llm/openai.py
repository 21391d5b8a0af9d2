"""OpenAI's models, and any server that speaks one of OpenAI's two wire formats, through the OpenAI SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import BaseModel

from pipeline.adapters.llm import openai_completions, openai_responses
from pipeline.adapters.llm.api_errors import status_error, tried_again, unreachable, unreadable
from pipeline.adapters.llm.chat import ChatModel, Conversation, ModelTurn
from pipeline.adapters.llm.models import DEFAULT_OPENAI
from pipeline.adapters.llm.openai_wire import Asked, Effort, Takes
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.model import OnText
from pipeline.ports.toolbox import ToolSpec

DEFAULT_BASE_URL = "https://api.openai.com/v1"

Api = Literal["auto", "responses", "completions"]
"""``auto``: Responses for OpenAI and Azure, Chat Completions for every other server; few of those speak the newer one.

At OpenAI, GPT-6 calls functions over Chat Completions only with its reasoning switched off.
"""


class OpenAiModel(ChatModel):
    """``timeout_s`` bounds one attempt's silence only: whoever asks puts a deadline around the whole.

    ``max_retries``: how often more a request is tried that the API could not take just then, where the wait is short.

    A server that does not take a JSON schema is asked for a JSON object, then for plain text with the schema in words;
    the same for parameters that it names in a 400. What it took is remembered.
    """

    def __init__(
        self,
        api_key: str,
        *,
        model: str = DEFAULT_OPENAI,
        base_url: str = "",
        api: Api = "auto",
        effort: Effort | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 1,
    ) -> None:
        self._model = model
        self._key = api_key
        host = urlsplit(base_url or DEFAULT_BASE_URL).hostname or ""
        own = host == "api.openai.com" or host.endswith((".openai.com", ".openai.azure.com"))
        self._api = "the OpenAI API" if own else f"the model server at {host}"
        self.speaks = ("responses" if own else "completions") if api == "auto" else api
        self._takes = Takes(effort=effort, tokens_key="max_completion_tokens" if own else "max_tokens")
        self._max_retries = max_retries
        # A server of one's own often wants no key; the SDK does.
        self._client = openai.AsyncOpenAI(
            api_key=api_key or "none",
            base_url=base_url or DEFAULT_BASE_URL,
            max_retries=0,
            timeout=timeout_s,
        )

    @property
    def name(self) -> str:
        return self._model

    async def turn(
        self,
        system: str,
        conversation: Conversation,
        *,
        tools: Sequence[ToolSpec] = (),
        may_call: bool = True,
        schema: type[BaseModel] | None = None,
        on_text: OnText | None = None,
    ) -> ModelTurn:
        asked = Asked(self._model, self._api, system, conversation, tools, may_call, schema)

        async def ask(telling: OnText | None) -> ModelTurn:
            return await self._turn(asked, telling)

        return await tried_again(ask, on_text, self._max_retries)

    async def close(self) -> None:
        await self._client.close()

    async def _turn(self, asked: Asked, on_text: OnText | None) -> ModelTurn:
        ask = openai_responses.ask if self.speaks == "responses" else openai_completions.ask
        takes = self._takes
        while True:
            try:
                turn = await ask(self._client, asked, takes, on_text)
            except openai.APIStatusError as error:
                less = takes.less(error, schema=asked.schema is not None)
                if less is None:
                    raise self._refused(error) from error
                takes = less
            except openai.APITimeoutError as error:
                raise TemporaryError(f"{self._api} was silent for too long") from error
            except (openai.APIConnectionError, httpx2.TransportError) as error:
                raise unreachable(self._api, error) from error
            except (openai.OpenAIError, json.JSONDecodeError, UnicodeDecodeError) as error:
                raise unreadable(self._api, self._said(error)) from error
            # The SDK hands on whatever came with a 200, a proxy's page too, without checking its form.
            except (AttributeError, TypeError, IndexError, KeyError, ValueError) as error:
                raise unreadable(self._api, "no answer of a model in it") from error
            else:
                self._takes = takes
                return turn

    def _refused(self, error: openai.APIStatusError) -> PermanentError | TemporaryError:
        headers, said = error.response.headers, self._said(error)
        return status_error(self._api, "OPENAI_API_KEY", self._model, error.status_code, headers, said)

    def _said(self, error: Exception) -> str:
        said = str(error) or type(error).__name__
        if isinstance(error, openai.APIError) and (code := error.code or error.type):
            said = f"{said} ({code})"
        return said.replace(self._key, "…") if self._key else said
