"""Every secret setting with a value of its own, everything behind it wrong: none of them is in what the bot says."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bot.config import Settings, load, variables
from bot.doctor import examine
from bot.redacting import RedactingFormatter
from bot.wiring import locks_of, open_bus
from bot.wiring.models import authors_of
from bot.wiring.paging import pager_of
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import ConfigurationError, SreBotError

NOWHERE = "127.0.0.1:1"
URLS = {
    "DATABASE_URL": f"postgresql://bot:{{}}@{NOWHERE}/sre",
    "MIGRATION_DATABASE_URL": f"postgresql://owner:{{}}@{NOWHERE}/sre",
    "REDIS_URL": f"redis://:{{}}@{NOWHERE}/0",
    "ETCD_URL": f"http://root:{{}}@{NOWHERE}",
}
ADDRESSES = {
    "SLACK_API_URL": f"http://{NOWHERE}/api/",
    "ANTHROPIC_BASE_URL": f"http://{NOWHERE}",
    "OPENAI_BASE_URL": f"http://{NOWHERE}/v1",
    "PAGERDUTY_URL": f"http://{NOWHERE}/v2/enqueue",
    "PROMETHEUS_URL": f"http://{NOWHERE}",
    "PROMETHEUS_USER": "bot",
    "SRE_SLACK_CHANNEL": "C0INCIDENTS",
    "SRE_LOG_LEVEL": "DEBUG",
}
SECRETS = [variable.name for _, _, variable, info in variables() if "SecretStr" in str(info.annotation)]


def canary(name: str) -> str:
    """Not like any issuer's tokens: what hides it must be the care with settings, and not the redactor's patterns."""
    return f"canary-{name.lower().replace('_', '-')}-q7w8"


def environment() -> dict[str, str]:
    made = {name: URLS.get(name, "{}").format(canary(name)) for name in SECRETS}
    return {**made, **ADDRESSES}


def leaked(text: str) -> list[str]:
    return [name for name in SECRETS if canary(name) in text]


@pytest.fixture
def settings() -> Settings:
    return load(environment(), env_file=None)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """All that is logged, of every library, as the bot writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(name)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def test_settings_show_no_secret(settings: Settings) -> None:
    assert len(SECRETS) >= 10
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())]
    assert leaked("".join(shown)) == []
    assert settings.store.database_url is not None
    assert canary("DATABASE_URL") in settings.store.database_url.get_secret_value(), "else nothing was tried"


def test_a_wrong_setting_is_told_without_the_secrets() -> None:
    wrong: Mapping[str, str] = {**environment(), "SRE_LEASE_S": "soon", "SRE_INTAKE_TOKEN": "canary-short"}
    with pytest.raises(ConfigurationError) as refused:
        load(wrong, env_file=None)
    assert "SRE_LEASE_S" in str(refused.value)
    assert "SRE_INTAKE_TOKEN" in str(refused.value)
    assert leaked(str(refused.value)) == []
    assert "canary-short" not in str(refused.value)


async def test_clients_and_their_errors_show_no_secret(settings: Settings, lines: io.StringIO) -> None:
    told: list[str] = []
    assert settings.store.database_url is not None
    assert settings.store.redis_url is not None
    pool = Pool(settings.store.database_url.get_secret_value())
    bus = open_bus(settings.store.redis_url.get_secret_value())
    locks = locks_of(settings, settings.store.redis_url.get_secret_value())
    pager = pager_of(settings.guard, told)
    authors = authors_of(settings.model, str, None, told)
    for part in (pool, bus, locks, pager, authors, authors.author, authors.reviewer):
        told += [repr(part), str(part)]
    for call in (pool.open(), bus.publish("wake", {"incident": "INC-1"}), locks.acquire("x", holder="us", ttl_s=1.0)):
        try:
            async with asyncio.timeout(5.0):
                await call
        except (SreBotError, TimeoutError) as error:
            told += [repr(error), str(error), repr(error.__cause__)]
    async for finding in examine(settings):
        told.append(finding.said)
    await asyncio.gather(pool.close(), bus.close(), locks.close(), return_exceptions=True)
    told.append(lines.getvalue())
    assert any("cannot be reached" in one or "not reachable" in one for one in told), "else nothing was tried"
    assert leaked("\n".join(told)) == []


def test_a_start_with_everything_wrong_tells_no_secret(tmp_path: Path) -> None:
    # Of two ways to log in only one is taken, and the start would end there.
    startable = {name: value for name, value in environment().items() if name not in ("PROMETHEUS_TOKEN", "ETCD_URL")}
    started = subprocess.run(
        [sys.executable, "-m", "bot", "run"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SRE_DATA_DIR": str(tmp_path), **startable},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = started.stdout + started.stderr
    assert started.returncode != 0
    assert "database" in said.lower(), said
    assert leaked(said) == []
