"""The composition root: the only place that knows which adapter stands behind which port."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from bot.catalogue import CatalogueFile
from bot.config import Settings
from bot.demo.launch import RATE_WINDOW_S, Parts
from bot.embedded.directory import EmbeddedError
from bot.embedded.postgres import EmbeddedPostgres
from bot.embedded.redis import EmbeddedRedis
from bot.redacting import REDACTOR, clean_entry, redact
from bot.relay import Relay
from bot.runtime import Runtime, Stages
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app, http_handler, start_socket
from bot.slack.client import BotIdentity, identify, make_client
from bot.slack.publisher import SlackPublisher
from bot.web import Web
from bot.wiring.knowledge import knowledge_of
from bot.wiring.models import authors_of
from bot.wiring.telemetry import sources_of
from executors.guardrails.facts import GuardrailLimits
from executors.ledger import Ledger
from executors.recovery import Recovery
from executors.rollback import order_rollback
from executors.runner import Runner
from executors.targets.local_process import LocalProcessTarget
from executors.targets.registry import Registry
from migrations.runner import MigrationError, MigrationReport, migrate
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.bus import RedisBus
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.adapters.telemetry.scrape import ScrapeSource
from pipeline.domain.anomaly import SENSITIVITY, DetectionSettings, Policy
from pipeline.domain.detection.logs import LogDetector, LogDetectorSettings
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.phase import Phase
from pipeline.domain.verification import VerificationSettings
from pipeline.ports.clock import SystemClock
from pipeline.ports.locks import Locks
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.store import Store
from pipeline.ports.targets import Target
from pipeline.stages.answer import Answerer
from pipeline.stages.correlate import Correlator
from pipeline.stages.decide import Decider
from pipeline.stages.desk import Desk
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.observe import Observer
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.revise import Reviser
from pipeline.stages.settings import LoopSettings
from pipeline.stages.toolbox import ToolLimits
from pipeline.stages.verify import Verifier
from pipeline.stages.witnesses import Witnesses

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class ClosableLocks(Locks, Protocol):
    """Locks with a connection of their own."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Bot:
    """What a start tells the person who started it."""

    url: str
    fallbacks: tuple[str, ...]
    slack: str


@asynccontextmanager
async def running_bot(settings: Settings) -> AsyncIterator[Bot]:
    """Builds and starts the whole bot; stops it when the block ends.

    Raises ConfigurationError with what to do when it cannot start.
    """
    if settings.slack.bot_token is None or not settings.slack.channel:
        raise ConfigurationError(
            "SLACK_BOT_TOKEN and SRE_SLACK_CHANNEL: needed, the bot lives in Slack; `sre-bot demo` needs neither"
        )
    fallbacks: list[str] = []
    clock = SystemClock()
    loop_settings = loop_settings_of(settings)
    catalogue_file = CatalogueFile(settings.telemetry.catalogue)
    catalogue = catalogue_file.current()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    async with AsyncExitStack() as stack:
        sources = sources_of(settings)
        stack.push_async_callback(sources.close)
        database_url, redis_url = await _servers(settings, stack, fallbacks)
        report = await migrated(database_url)
        pool = Pool(database_url)
        stack.push_async_callback(pool.close)
        store: Store = PostgresStore(pool, clean_entry)
        async with store.begin() as uow:
            if await uow.control.phase() is None:
                await uow.control.set_phase(Phase(settings.guard.initial_phase), "first start", "configuration")
        bus, locks = RedisBus(redis_url), locks_of(settings, redis_url)
        stack.push_async_callback(bus.close)
        stack.push_async_callback(locks.close)
        targets = registry_of(settings)
        stack.push_async_callback(targets.close)

        knowledge = knowledge_of(settings.knowledge, pool, report, fallbacks)
        stack.push_async_callback(knowledge.close)
        authors = authors_of(settings.model, redact, knowledge.fit, fallbacks)
        for one in {authors.author, authors.rules, *((authors.reviewer,) if authors.reviewer else ())}:
            stack.push_async_callback(one.close)

        policy = Policy(
            factor=lambda service, signal: SENSITIVITY[catalogue.sensitivity(service, signal)], muted=catalogue.muted
        )
        promised = {name: slo.objective for name in catalogue if (slo := catalogue[name].slo) is not None}
        zone = ZoneInfo(settings.telemetry.timezone)
        detector = Detector(store, loop_settings.detection, policy, promised, zone=zone)
        log_detector = LogDetector(LogDetectorSettings(warmup_s=settings.telemetry.log_warmup_s))
        witnesses = Witnesses(sources.traces, sources.activity, sources.logs)
        investigator = Investigator(
            Ports(store, targets, catalogue, witnesses, knowledge.retrieval),
            loop_settings.detection,
            ToolLimits(
                calls=settings.model.tool_calls,
                result_bytes=settings.model.tool_bytes,
                call_s=settings.model.tool_s,
            ),
            REDACTOR,
        )
        proposer = Proposer(store, catalogue, loop_settings)
        diagnoser = Diagnoser(
            store,
            investigator,
            knowledge.retrieval,
            authors,
            proposer,
            catalogue,
            clock,
            loop_settings,
            redact=redact,
        )
        reviser = Reviser(store, targets, catalogue, proposer, loop_settings)
        answerer = Answerer(store, investigator, diagnoser, authors, reviser, clock)
        decider = Decider(store, targets, clock, loop_settings)
        ledger = Ledger(store, clock)
        runner = Runner(store, targets, locks, ledger, loop_settings, worker=worker)
        desk = Desk(
            store,
            targets,
            catalogue,
            detector,
            investigator,
            authors,
            answerer,
            decider,
            clock,
            loop_settings,
            tuple(fallbacks),
            command=settings.slack.command,
        )

        app_token, signing_secret = settings.slack.app_token, settings.slack.signing_secret
        if app_token is None and signing_secret is None:
            raise ConfigurationError("SLACK_APP_TOKEN (Socket Mode) or SLACK_SIGNING_SECRET (HTTP): one is needed")
        client = make_client(settings.slack.bot_token.get_secret_value(), settings.slack.api_url)
        publisher = SlackPublisher(client, desk, store, settings.slack.channel)
        relay = Relay(store, publisher, bus, worker=worker, lease_s=settings.runtime.lease_s)

        runtime = Runtime(
            store,
            bus,
            clock,
            Stages(
                observer=Observer(
                    sources,
                    store,
                    log_detector,
                    detector.bank,
                    catalogue_file,
                    max_series=settings.telemetry.max_series,
                    redact=redact,
                ),
                detector=detector,
                correlator=Correlator(store, catalogue, loop_settings.detection),
                diagnoser=diagnoser,
                verifier=Verifier(store, order_rollback, clock, loop_settings.verification),
                decider=decider,
                runner=runner,
                recovery=Recovery(store, targets, runner, ledger, loop_settings, worker=worker),
                relay=relay,
            ),
            worker=worker,
            interval_s=settings.telemetry.interval_s,
            lease_s=settings.runtime.lease_s,
            samples_keep_s=settings.store.samples_keep_s,
        )
        # A token that Slack refuses ends the start; a Slack that is away does not: the loop runs meanwhile.
        known = await _asked(identify(client), "SLACK_BOT_TOKEN")
        runtime.start()
        stack.push_async_callback(runtime.stop)
        learning = asyncio.create_task(_quietly(knowledge.learn()), name="learn runbooks")
        stack.callback(learning.cancel)
        if known is None:
            known = await _patiently(lambda: identify(client), "SLACK_BOT_TOKEN")
        identity: BotIdentity = known
        access = Access(
            client,
            AccessPolicy(
                settings.slack.team_id or identity.team_id,
                frozenset(settings.slack.approvers),
                settings.slack.approver_group or None,
            ),
        )
        app = build_app(
            client=client,
            desk=desk,
            access=access,
            identity=identity,
            command=settings.slack.command,
            signing_secret=_plain(signing_secret),
        )
        web = Web(desk, http_handler(app, desk, _plain(signing_secret)) if app_token is None else None)
        url = await web.start(settings.runtime.host, settings.runtime.port)
        stack.push_async_callback(web.stop)
        if app_token is not None:
            socket_token = app_token.get_secret_value()
            handler = await _patiently(lambda: start_socket(app, socket_token), "SLACK_APP_TOKEN")
            stack.push_async_callback(handler.close_async)

        yield Bot(url, tuple(fallbacks), "Socket Mode" if app_token is not None else f"{url}/slack/events")


def loop_settings_of(settings: Settings) -> LoopSettings:
    """The stages' settings out of the configuration tree."""
    guard = settings.guard
    return LoopSettings(
        detection=DetectionSettings(**settings.detection.model_dump()),
        verification=VerificationSettings(
            hold_s=settings.verification.hold_s, deadline_s=settings.verification.deadline_s
        ),
        limits=GuardrailLimits(
            max_share=guard.max_share,
            max_callers=guard.max_callers,
            cooldown_s=guard.cooldown_s,
            max_actions_target_hour=guard.max_actions_target_hour,
            max_actions_hour=guard.max_actions_hour,
        ),
        approval_ttl_s=guard.approval_ttl_s,
        approvals_severe=guard.approvals_severe,
        resume_people=guard.resume_people,
        # The author bounds itself; this is for one that does not.
        model_deadline_s=settings.model.deadline_s + 2.0,
        review=settings.model.review,
        review_deadline_s=settings.model.review_deadline_s + 1.0,
        cache_ttl_s=settings.model.cache_s,
        tokens_day=settings.model.tokens_day,
        lease_s=settings.runtime.lease_s,
        settle_timeout_s=settings.runtime.settle_timeout_s,
    )


async def migrated(database_url: str) -> MigrationReport:
    """Brings the schema up to date. Raises ConfigurationError with what to do."""
    try:
        return await migrate(database_url)
    except MigrationError as error:
        raise ConfigurationError(f"DATABASE_URL: {error}") from error


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[tuple[Pool, MigrationReport]]:
    """The bot's migrated database for a command: the configured one, that of the bot that runs here, or a started one.

    Raises ConfigurationError with what to do.
    """
    async with AsyncExitStack() as stack:
        configured = settings.store.database_url
        try:
            embedded = EmbeddedPostgres(settings.store.data_dir)
            url = configured.get_secret_value() if configured else await asyncio.to_thread(embedded.url_beside)
            if url is None:
                url = await embedded.start()
                stack.push_async_callback(embedded.stop)
        except EmbeddedError as error:
            raise ConfigurationError(str(error)) from error
        report = await migrated(url)
        pool = Pool(url, max_size=4)
        stack.push_async_callback(pool.close)
        yield pool, report


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[Store]:
    """The same as a store."""
    async with database_of(settings) as (pool, _):
        yield PostgresStore(pool, clean_entry)


async def open_store(database_url: str) -> tuple[Store, Callable[[], Awaitable[None]]]:
    """A migrated store and what closes it, for the command line and the demo."""
    await migrated(database_url)
    pool = Pool(database_url, max_size=4)
    return PostgresStore(pool), pool.close


def open_bus(redis_url: str) -> RedisBus:
    """The bus alone; the caller closes it."""
    return RedisBus(redis_url)


def demo_parts(settings: Settings) -> Parts:
    """What the demo's launcher needs of the adapters."""

    async def servers(data_dir: Path) -> tuple[str, str, Callable[[], Awaitable[None]]]:
        stack = AsyncExitStack()
        local = settings.model_copy(update={"store": settings.store.model_copy(update={"data_dir": data_dir})})
        try:
            database_url, redis_url = await _servers(local, stack, [])
        except BaseException:
            await stack.aclose()
            raise
        return database_url, redis_url, stack.aclose

    def scrape(path: Path) -> MetricsSource:
        return ScrapeSource(sd_file=path, window_s=RATE_WINDOW_S)

    return Parts(servers=servers, open_store=open_store, scrape=scrape)


async def _servers(settings: Settings, stack: AsyncExitStack, fallbacks: list[str]) -> tuple[str, str]:
    """Database and Redis URL; embedded servers are started where none is configured."""
    data_dir = settings.store.data_dir
    database, redis = settings.store.database_url, settings.store.redis_url
    try:
        if database is None:
            postgres = EmbeddedPostgres(data_dir)
            database = SecretStr(await postgres.start())
            stack.push_async_callback(postgres.stop)
            fallbacks.append(f"no DATABASE_URL: an embedded PostgreSQL in {data_dir}")
        if redis is None:
            embedded = EmbeddedRedis(data_dir)
            redis = SecretStr(await embedded.start())
            stack.push_async_callback(embedded.stop)
            fallbacks.append(f"no REDIS_URL: an embedded Redis in {data_dir}")
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from error
    return database.get_secret_value(), redis.get_secret_value()


def locks_of(settings: Settings, redis_url: str) -> ClosableLocks:
    """Locks in etcd where one is set, else in Redis. Raises ConfigurationError with what to do."""
    if settings.store.etcd_url is None:
        return RedisLocks(redis_url)
    try:
        from pipeline.adapters.etcd.locks import EtcdLocks
    except ImportError as error:
        raise ConfigurationError(
            f"ETCD_URL: the etcd client is missing ({error.name}): pip install 'sre-bot[etcd]'"
        ) from error
    return EtcdLocks(settings.store.etcd_url.get_secret_value())


def registry_of(settings: Settings) -> Registry:
    """Every platform that is configured. Raises ConfigurationError."""
    targets: dict[str, Target] = {}
    if settings.targets.local_url:
        targets["local_process"] = LocalProcessTarget(settings.targets.local_url)
    if settings.targets.kubernetes_namespaces:
        try:
            from executors.targets.kubernetes import KubernetesTarget, configuration_for
        except ImportError as error:
            raise ConfigurationError(
                'SRE_KUBERNETES_NAMESPACES: the Kubernetes client is missing: pip install "sre-bot[kubernetes]"'
            ) from error
        configuration = configuration_for(settings.targets.kubernetes_context)
        targets["kubernetes"] = KubernetesTarget(configuration, namespaces=settings.targets.kubernetes_namespaces)
    return Registry(targets)


async def _asked(call: Awaitable[_Result], setting: str) -> _Result | None:
    """A first call to Slack: None when it is away. Raises ConfigurationError, naming the setting, when it refuses."""
    try:
        return await call
    except TemporaryError as error:
        log.warning("Slack is away at the start: %s", error)
        return None
    except PermanentError as error:
        raise ConfigurationError(f"{setting}: {error}") from error


async def _patiently(call: Callable[[], Awaitable[_Result]], setting: str) -> _Result:
    """Asks again and again, with growing pauses, for as long as Slack is away."""
    pause_s = 1.0
    while True:
        try:
            return await call()
        except TemporaryError as error:
            wait_s = error.retry_after_s or pause_s
            log.warning("Slack is away, asked again in %.0f s: %s", wait_s, error)
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, 15.0)
        except PermanentError as error:
            raise ConfigurationError(f"{setting}: {error}") from error


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except (TemporaryError, PermanentError) as error:
        log.warning("runbooks not taken in, the next start tries again: %s", error)


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
