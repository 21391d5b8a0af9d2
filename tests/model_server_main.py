"""Both makers' APIs on this machine, with the model of ``tests.model_brain`` behind them, to try the bot with by hand.

    .venv/bin/python -m tests.model_server_main --anthropic-port 8801 --openai-port 8802

and in another terminal:

    ANTHROPIC_API_KEY=x ANTHROPIC_BASE_URL=http://127.0.0.1:8801 \\
    OPENAI_API_KEY=x OPENAI_BASE_URL=http://127.0.0.1:8802/v1 \\
    .venv/bin/sre-bot demo --headless --fault memory-leak --decide approve --json

``SRE_MODEL_PROVIDER=openai SRE_MODEL=gpt-6-luna SRE_REVIEWER=claude-sonnet-5-5`` makes the OpenAI side the author.
One line is printed for each request; a request that the real API would refuse is answered 400 here too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import Any

from aiohttp import web

from tests.contract.llm.anthropic_server import AnthropicServer
from tests.contract.llm.openai_server import CompletionsServer
from tests.contract.llm.suite import ModelServer, Say, Step
from tests.model_brain import Thinking, neutral


class Loud(Thinking):
    """Prints a line for each request."""

    def step(self, asked: dict[str, Any]) -> Step:
        step, read = super().step(asked), neutral(asked)
        did = ", ".join(name for name, _ in step.calls) or step.text[:60] if isinstance(step, Say) else "…"
        print(f"{asked['model']}: {len(read.first)} characters, {len(read.results)} results → {did}", flush=True)
        return step


class Anthropic(Loud, AnthropicServer):
    """Claude's API."""


class OpenAi(Loud, CompletionsServer):
    """What the bot speaks to an ``OPENAI_BASE_URL`` of one's own."""


async def serve(server: ModelServer, port: int) -> web.AppRunner:
    """Serves on the loopback interface until the runner is cleaned up."""
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_post(server.path, server._handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def main(anthropic_port: int, openai_port: int) -> None:
    runners = [await serve(Anthropic(), anthropic_port), await serve(OpenAi(), openai_port)]
    print(f"ANTHROPIC_BASE_URL=http://127.0.0.1:{anthropic_port}")
    print(f"OPENAI_BASE_URL=http://127.0.0.1:{openai_port}/v1", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        for runner in runners:
            await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Local servers of both makers' wire formats, with one scripted model.")
    parser.add_argument("--anthropic-port", type=int, default=8801)
    parser.add_argument("--openai-port", type=int, default=8802)
    chosen = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(chosen.anthropic_port, chosen.openai_port))
