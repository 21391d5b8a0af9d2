"""One way to reach Redis: bounded waits, few retries, and errors of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, DataError, RedisError

from pipeline.domain.errors import ConfigurationError, TemporaryError

KEY_PREFIX = "sre:"
"""Before every key of ours: other agents share the server."""

ANSWER_TIMEOUT_S = 5.0
"""A healthy Redis answers in milliseconds; longer means that it is stopped, swapping or cut off."""
_RETRIES = 2
"""Enough for a connection that a restarted server had dropped; a server that is away is the caller's to wait for."""


def connect(url: str) -> Redis:
    """A client with its own pool; connects when first used. Raises ConfigurationError for an unusable URL."""
    try:
        client: Redis = Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="replace",  # other agents write here too; their bad byte must not stop a listener
            # ``answering`` bounds the wait: with a socket time-out of its own the client sends through
            # asyncio.wait_for, which before Python 3.12 now and then swallows a cancellation.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), _RETRIES),
        )
    except ValueError as error:
        raise ConfigurationError("REDIS_URL must be redis://, rediss:// or unix:// followed by an address") from error
    return client


@asynccontextmanager
async def answering(client: Redis) -> AsyncIterator[None]:
    """Bounds the calls inside, retries included, and turns what they raise into a TemporaryError of one line."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            yield
    except DataError:  # a value Redis cannot hold: the caller's mistake, never cured by waiting
        raise
    except AuthenticationError as error:
        raise TemporaryError(f"Redis at {_address(client)} refused the password or user") from error
    except TimeoutError as error:
        raise TemporaryError(f"Redis at {_address(client)} gave no answer within {ANSWER_TIMEOUT_S:g} s") from error
    except (RedisError, OSError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise TemporaryError(f"Redis at {_address(client)}: {said}") from error


def _address(client: Redis) -> str:
    options = client.connection_pool.connection_kwargs
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
