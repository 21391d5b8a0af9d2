"""Everything that ``sre-bot demo`` starts, in order, and stops, in the opposite order."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.demo.children import Child, start_world
from bot.demo.slack.manifest import DEFAULT_MANIFEST, read_manifest
from bot.demo.slack.server import LocalSlack
from bot.demo.warmup import warm_up
from pipeline.domain.errors import ConfigurationError
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.store import Store

CHANNEL = "C0INCIDENTS"
APPROVERS = ("U0ALICE", "U0BOB")
CATALOGUE = Path(__file__).with_name("services.yaml")
MANIFEST = Path(__file__).parents[2] / "manifest.yml"
ACTS_ON = (
    "SRE_CATALOGUE",
    "SRE_LOCAL_TARGET_URL",
    "SRE_GIT_REPOSITORIES",
    "SRE_CERTIFICATE_FOLDERS",
    "SRE_CERTIFICATE_AUTHORITY",
    "SRE_TRUNCATE_FOLDERS",
)
RATE_WINDOW_S = 15.0
STEADY_S = 10.0
"""A bot that ran this long is started again at once; one that ends sooner waits twice as long each time."""
LONGEST_PAUSE_S = 15.0

TUNING = {
    "SRE_INITIAL_PHASE": "assist",
    "SRE_INTERVAL_S": "2",
    "SRE_RATE_WINDOW_S": str(RATE_WINDOW_S),
    "SRE_MEMORY_SUSTAIN_S": "10",
    "SRE_LATENCY_SUSTAIN_S": "12",
    "SRE_LATENCY_MIN_EFFECT_S": "0.5",
    "SRE_ERROR_SUSTAIN_S": "12",
    "SRE_DISK_SUSTAIN_S": "10",
    "SRE_CLEAR_AFTER_S": "20",
    "SRE_VERIFY_HOLD_S": "14",
    "SRE_VERIFY_DEADLINE_S": "90",
    "SRE_COOLDOWN_S": "60",
    "SRE_REST_S": "5",
    "SRE_CANARY_WATCH_S": "8",
    "SRE_INEFFECTIVE_S": "300",
    "SRE_REMIND_AFTER_S": "60,180",
    "SRE_ESCALATE_AFTER_S": "300",
    "SRE_MAX_ACTIONS_TARGET_HOUR": "10",
    "SRE_LEASE_S": "6",
    "SRE_LOG_WARMUP_S": "10",
    "SRE_ROLLOUT_GRACE_S": "4",
    "SRE_TRAFFIC_SURGE_SHARE": "9",  # the load surge is there for what it does to checkout
    "SRE_HTTP_PORT": "0",
}
"""A demo is short: minutes of the defaults become seconds. Anything set in the environment wins."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root hands in: the demo itself knows no adapter."""

    servers: Callable[[Path], Awaitable[tuple[str, str, Callable[[], Awaitable[None]]]]]
    """Database and Redis URL for a data directory, and what stops them."""
    open_store: Callable[[str], Awaitable[tuple[Store, Callable[[], Awaitable[None]]]]]
    scrape: Callable[[Path], MetricsSource]


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo."""

    page_url: str
    world_url: str
    store: Store
    data_dir: Path


@asynccontextmanager
async def running_demo(
    parts: Parts,
    data_dir: Path,
    *,
    port: int,
    overrides: Mapping[str, str],
    say: Callable[[str], None],
    replicas: int = 1,
) -> AsyncIterator[Demo]:
    """Starts servers, services, the local Slack and ``replicas`` of the bot; stops them when the block ends."""
    await asyncio.to_thread(_make, data_dir)
    async with AsyncExitStack() as stack:
        say("starting PostgreSQL and Redis")
        database_url, redis_url, stop_servers = await parts.servers(data_dir)
        stack.push_async_callback(stop_servers)
        store, close_store = await parts.open_store(database_url)
        stack.push_async_callback(close_store)
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        say("starting the sample services: web → checkout → payments, and a worker")
        world, world_url = await start_world(data_dir, environ)
        stack.push_async_callback(world.stop)
        tokens = {
            "SLACK_BOT_TOKEN": f"xoxb-local-{secrets.token_hex(8)}",
            "SLACK_APP_TOKEN": f"xapp-local-{secrets.token_hex(8)}",
            "SLACK_SIGNING_SECRET": secrets.token_hex(16),
        }
        slack = await _start_slack(data_dir, tokens, world_url, port)
        stack.push_async_callback(slack.stop)
        targets_file = data_dir / "world" / "targets.json"
        source = parts.scrape(targets_file)
        stack.push_async_callback(source.close)
        series = await warm_up(source, store, window_s=RATE_WINDOW_S, say=say)
        if series:
            say(f"baselines of {series} series have a generated history (cards say so)")
        bot_environ = {
            **TUNING,
            **environ,
            **tokens,
            **overrides,
            "SLACK_API_URL": slack.api_url,
            "SRE_SLACK_CHANNEL": CHANNEL,
            "SRE_APPROVERS": ",".join(APPROVERS),
            "SRE_SCRAPE_FILE": str(targets_file),
            "SRE_CATALOGUE": environ.get("SRE_CATALOGUE", str(CATALOGUE)),
            "SRE_LOCAL_TARGET_URL": world_url,
            "SRE_CHANGES_REPO": str(data_dir / "world" / "config-repo"),
            "SRE_GIT_REPOSITORIES": f"config-repo={(data_dir / 'world' / 'config-repo').absolute()}",
            "SRE_CERTIFICATE_FOLDERS": f"certs={(data_dir / 'world' / 'certs').absolute()}",
            "SRE_CERTIFICATE_AUTHORITY": str((data_dir / "world" / "certs" / "authority.pem").absolute()),
            "SRE_TRUNCATE_FOLDERS": f"logs={(data_dir / 'world' / 'logs').absolute()}",
            "SRE_LOG_FOLDER": str(data_dir / "world" / "stderr"),
            "SRE_DATA_DIR": str(data_dir),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
        }
        say("starting the bot" if replicas == 1 else f"starting {replicas} replicas of the bot")
        pids = []
        for number in range(1, replicas + 1):
            name = "bot" if number == 1 else f"bot-{number}"
            keeper = _Keeper(bot_environ, data_dir / f"{name}.log", say)
            await keeper.start()
            stack.push_async_callback(keeper.stop)
            pids.append(keeper.pid)
        # For the commands of a person beside the demo: where it acts, and no secret.
        acts_on = {name: bot_environ[name] for name in ACTS_ON}
        running = {
            "pid": os.getpid(),
            "page": slack.base_url,
            "world": world_url,
            "bot_pids": pids,
            "settings": acts_on,
        }
        await asyncio.to_thread((data_dir / "demo.json").write_text, json.dumps(running))
        yield Demo(slack.base_url, world_url, store, data_dir)


class _Keeper:
    """Keeps one bot process running: a bot that dies is started again and finds its work in the database."""

    def __init__(self, environ: Mapping[str, str], log: Path, say: Callable[[str], None]) -> None:
        self._environ = environ
        self._log = log
        self._say = say
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._starts = 0

    @property
    def pid(self) -> int:
        return self._child.process.pid if self._child else 0

    async def start(self) -> None:
        await self._launch()
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._child is not None:
            await self._child.stop()

    async def _launch(self) -> None:
        self._child = await Child.start([sys.executable, "-m", "bot", "run"], environ=self._environ, log=self._log)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._child is not None:
            started = loop.time()
            code = await self._child.process.wait()
            self._starts = self._starts + 1 if loop.time() - started < STEADY_S else 0
            pause_s = min(2.0**self._starts - 1, LONGEST_PAUSE_S)
            self._say(
                f"the bot ended (exit {code}; its words are in {self._log}) and is started again in {pause_s:.0f} s"
            )
            await asyncio.sleep(pause_s)
            await self._launch()


async def _start_slack(data_dir: Path, tokens: Mapping[str, str], world_url: str, port: int) -> LocalSlack:
    slack = LocalSlack(
        data_dir=data_dir / "slack",
        bot_token=tokens["SLACK_BOT_TOKEN"],
        app_token=tokens["SLACK_APP_TOKEN"],
        signing_secret=tokens["SLACK_SIGNING_SECRET"],
        world_url=world_url,
        manifest=read_manifest(MANIFEST) if MANIFEST.exists() else DEFAULT_MANIFEST,
    )
    try:
        await slack.start(port=port)
    except OSError as error:
        raise ConfigurationError(
            f"the page cannot be served on port {port} ({error.strerror or error}); "
            "stop what uses it, or choose another: sre-bot demo --port 0 takes a free one"
        ) from error
    return slack


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        probe = data_dir / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"SRE_DATA_DIR: {data_dir} is not writable ({error.strerror or error}); choose another folder"
        ) from error
