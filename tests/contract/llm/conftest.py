"""A running server of each wire format; what uses ``server`` runs against all three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache

import httpcore2
import pytest

from tests.contract.llm.anthropic_server import AnthropicServer
from tests.contract.llm.openai_server import CompletionsServer, ResponsesServer
from tests.contract.llm.suite import ModelServer

WIRES: dict[str, Callable[[], ModelServer]] = {
    "anthropic": AnthropicServer,
    "responses": ResponsesServer,
    "completions": CompletionsServer,
}


@pytest.fixture(autouse=True, scope="session")
def _one_certificate_store() -> Iterator[None]:
    """It takes 60 ms to load for every client, and nothing here speaks TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture(params=list(WIRES))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ModelServer]:
    async with WIRES[request.param]().running() as running:
        yield running


@pytest.fixture
async def anthropic_server() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer().running() as running:
        yield running


@pytest.fixture
async def responses_server() -> AsyncIterator[ResponsesServer]:
    async with ResponsesServer().running() as running:
        yield running


@pytest.fixture
async def completions_server() -> AsyncIterator[CompletionsServer]:
    async with CompletionsServer().running() as running:
        yield running
