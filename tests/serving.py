"""A small HTTP server of a test's own, on a free port of the loopback."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serving(add: Callable[[web.Application], None]) -> AsyncIterator[str]:
    """The URL of an application to which ``add`` added its routes; gone when the block ends."""
    app = web.Application(client_max_size=1_000_000)
    add(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
