"""The composition root: the only place that knows which adapter stands behind which port."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import SecretStr

from bot.anchoring import AnchorKeeper
from bot.catalogue import CatalogueFile
from bot.config import Settings, StoreSettings
from bot.demo.launch import RATE_WINDOW_S, Parts
from bot.embedded.directory import EmbeddedError
from bot.embedded.redis import EmbeddedRedis
from bot.intake import Door
from bot.paging import PagePublisher
from bot.redacting import clean_entry, redact
from bot.relay import Relay
from bot.runtime import Runtime, Stages
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app, http_handler, start_socket
from bot.slack.client import BotIdentity, identify, make_client, permalink
from bot.slack.publisher import SlackPublisher
from bot.web import Web
from bot.wiring.database import TRIGGERS_ONLY, Database, anchor_file, database_of, prepared, server_of
from bot.wiring.knowledge import knowledge_of
from bot.wiring.models import authors_of
from bot.wiring.paging import pager_of
from bot.wiring.stages import diagnosing_of
from bot.wiring.targets import registry_of, survey
from bot.wiring.telemetry import sources_of
from executors.guardrails.facts import GuardrailLimits
from executors.ledger import Ledger
from executors.recovery import Recovery
from executors.rollback import order_rollback
from executors.runner import Runner
from migrations.roles import Protection
from pipeline.adapters.postgres.audit import PostgresTrailArchive
from pipeline.adapters.postgres.clock import DatabaseClock
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.bus import RedisBus
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.adapters.telemetry.scrape import ScrapeSource
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.approval import default_rules
from pipeline.domain.canary import CanarySettings
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.phase import Phase
from pipeline.domain.verification import VerificationSettings
from pipeline.ports.locks import Locks
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.store import Store
from pipeline.stages.answer import Answerer
from pipeline.stages.decide import Decider
from pipeline.stages.desk import Desk
from pipeline.stages.intake import Intake
from pipeline.stages.reconsider import Reconsiderer
from pipeline.stages.remind import Reminder
from pipeline.stages.replicas import ReplicaWatch
from pipeline.stages.revise import Reviser
from pipeline.stages.settings import LoopSettings
from pipeline.stages.survey import Surveyor
from pipeline.stages.verify import Verifier

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
    catalogue_file = CatalogueFile(settings.telemetry.catalogue)
    catalogue = catalogue_file.current()
    loop_settings = loop_settings_of(settings, catalogue)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    async with AsyncExitStack() as stack:
        sources = sources_of(settings)
        stack.push_async_callback(sources.close)
        database, redis_url = await _servers(settings, stack, fallbacks)
        if database.protection is Protection.TRIGGERS:
            fallbacks.append(TRIGGERS_ONLY)
        pool = Pool(database.url)
        stack.push_async_callback(pool.close)
        clock = DatabaseClock(pool)
        await clock.ask()
        pager = pager_of(settings.guard, fallbacks)
        store: Store = PostgresStore(pool, clean_entry, paging=pager is not None)
        async with store.begin() as uow:
            if await uow.control.phase() is None:
                await uow.control.set_phase(Phase(settings.guard.initial_phase), "first start", "configuration")
        bus, locks = RedisBus(redis_url), locks_of(settings, redis_url)
        stack.push_async_callback(bus.close)
        stack.push_async_callback(locks.close)
        targets = registry_of(settings)
        stack.push_async_callback(targets.close)

        knowledge = knowledge_of(settings.knowledge, pool, database.report, fallbacks)
        stack.push_async_callback(knowledge.close)
        authors = authors_of(settings.model, redact, knowledge.fit, fallbacks)
        for one in {authors.author, authors.rules, *((authors.reviewer,) if authors.reviewer else ())}:
            stack.push_async_callback(one.close)

        stages = diagnosing_of(
            settings, loop_settings, store, sources, targets, catalogue_file, knowledge.retrieval, authors, clock
        )
        reviser = Reviser(store, targets, catalogue, stages.proposer, loop_settings)
        answerer = Answerer(store, stages.investigator, stages.diagnoser, authors, reviser, clock)
        decider = Decider(store, targets, catalogue_file, clock, loop_settings)
        ledger = Ledger(store, clock)
        runner = Runner(store, targets, locks, ledger, loop_settings, worker=worker)
        desk = Desk(
            store,
            targets,
            catalogue,
            stages.detector,
            stages.investigator,
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
        pages = None
        if pager is not None:
            stack.push_async_callback(pager.close)
            pages = PagePublisher(store, pager, partial(permalink, client), redact)
        relay = Relay(store, publisher, bus, worker=worker, lease_s=settings.runtime.lease_s, pages=pages)

        runtime = Runtime(
            store,
            bus,
            clock,
            Stages(
                observer=stages.observer,
                detector=stages.detector,
                correlator=stages.correlator,
                diagnoser=stages.diagnoser,
                verifier=Verifier(store, order_rollback, clock, loop_settings.verification),
                decider=decider,
                reminder=Reminder(store, decider, loop_settings),
                reconsiderer=Reconsiderer(
                    store, clock, rest_s=min(loop_settings.limits.rest_s, loop_settings.limits.cooldown_s)
                ),
                replicas=ReplicaWatch(store, targets, catalogue),
                runner=runner,
                recovery=Recovery(store, targets, runner, ledger, loop_settings, worker=worker),
                relay=relay,
                intake=Intake(store, bus, redact, worker=worker),
            ),
            worker=worker,
            interval_s=settings.telemetry.interval_s,
            lease_s=settings.runtime.lease_s,
            samples_keep_s=settings.store.samples_keep_s,
            anchors=AnchorKeeper(
                store,
                PostgresTrailArchive(pool),
                anchor_file(settings.store),
                interval_s=settings.store.anchor_interval_s,
            ),
        )
        # A token that Slack refuses ends the start; a Slack that is away does not: the loop runs meanwhile.
        known = await _asked(identify(client), "SLACK_BOT_TOKEN")
        runtime.start()
        stack.push_async_callback(runtime.stop)
        reading = asyncio.create_task(_reread(catalogue_file, settings.telemetry.interval_s), name="read the catalogue")
        stack.callback(reading.cancel)
        right = asyncio.create_task(clock.keep_right(), name="keep the clock right")
        stack.callback(right.cancel)
        learning = asyncio.create_task(_quietly(knowledge.learn()), name="learn runbooks")
        stack.callback(learning.cancel)
        surveying = asyncio.create_task(survey(Surveyor(targets, catalogue)), name="survey the targets")
        stack.callback(surveying.cancel)
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
        web = Web(
            desk,
            http_handler(app, desk, _plain(signing_secret)) if app_token is None else None,
            Door(bus, _plain(settings.runtime.intake_token)),
        )
        url = await web.start(settings.runtime.host, settings.runtime.port)
        stack.push_async_callback(web.stop)
        if app_token is not None:
            socket_token = app_token.get_secret_value()
            handler = await _patiently(lambda: start_socket(app, socket_token), "SLACK_APP_TOKEN")
            stack.push_async_callback(handler.close_async)

        yield Bot(url, tuple(fallbacks), "Socket Mode" if app_token is not None else f"{url}/slack/events")


def loop_settings_of(settings: Settings, catalogue: Catalogue) -> LoopSettings:
    """The stages' settings out of the configuration tree; ``catalogue`` may change its content while they last."""
    guard = settings.guard
    return LoopSettings(
        detection=DetectionSettings(**settings.detection.model_dump()),
        verification=VerificationSettings(
            hold_s=settings.verification.hold_s, deadline_s=settings.verification.deadline_s
        ),
        limits=GuardrailLimits(
            max_share=guard.max_share,
            max_callers=guard.max_callers,
            max_tier1_callers=guard.max_tier1_callers,
            cooldown_s=guard.cooldown_s,
            rest_s=guard.rest_s,
            max_actions_target_hour=guard.max_actions_target_hour,
            max_actions_hour=guard.max_actions_hour,
            max_concurrent=guard.max_concurrent,
            ineffective_s=guard.ineffective_s,
            max_reversals=guard.max_reversals,
        ),
        catalogue=catalogue,
        canary=CanarySettings(watch_s=guard.canary_watch_s),
        batch_share=guard.batch_share,
        approval_ttl_s=guard.approval_ttl_s,
        approvals=default_rules(
            guard.approvals_severe,
            settings.slack.approvers,
            [settings.slack.approver_group] if settings.slack.approver_group else [],
        ),
        remind_after_s=guard.remind_after_s,
        escalate_after_s=guard.escalate_after_s,
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


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[Store]:
    """The same as a store."""
    async with database_of(settings) as (pool, _):
        yield PostgresStore(pool, clean_entry)


async def open_store(database_url: str) -> tuple[Store, Callable[[], Awaitable[None]]]:
    """A migrated store and what closes it, for the command line and the demo."""
    pool = Pool((await prepared(database_url, StoreSettings())).url, max_size=4)
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
            database, redis_url = await _servers(local, stack, [])
        except BaseException:
            await stack.aclose()
            raise
        return database.url, redis_url, stack.aclose

    def scrape(path: Path) -> MetricsSource:
        return ScrapeSource(sd_file=path, window_s=RATE_WINDOW_S)

    return Parts(servers=servers, open_store=open_store, scrape=scrape)


async def _servers(settings: Settings, stack: AsyncExitStack, fallbacks: list[str]) -> tuple[Database, str]:
    """The migrated database and Redis' URL; embedded servers are started where none is configured."""
    data_dir, redis = settings.store.data_dir, settings.store.redis_url
    url, login = await server_of(settings.store, stack, beside=False)
    if login is not None:
        fallbacks.append(f"no DATABASE_URL: an embedded PostgreSQL in {data_dir}")
    database = await prepared(url, settings.store, login)
    try:
        if redis is None:
            embedded = EmbeddedRedis(data_dir)
            redis = SecretStr(await embedded.start())
            stack.push_async_callback(embedded.stop)
            fallbacks.append(f"no REDIS_URL: an embedded Redis in {data_dir}")
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from error
    return database, redis.get_secret_value()


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


@asynccontextmanager
async def locks_beside(settings: Settings) -> AsyncIterator[Locks]:
    """The locks for a command: the configured ones, or those of the bot that runs here.

    Raises ConfigurationError with what to do.
    """
    redis = settings.store.redis_url
    try:
        url = redis.get_secret_value() if redis else await asyncio.to_thread(_redis_beside, settings.store.data_dir)
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from error
    if url is None and settings.store.etcd_url is None:
        raise ConfigurationError(f"no bot runs on {settings.store.data_dir}: its locks are gone with it")
    locks = locks_of(settings, url or "")
    try:
        yield locks
    finally:
        await locks.close()


def _redis_beside(data_dir: Path) -> str | None:
    return EmbeddedRedis(data_dir).url_beside()


async def _reread(catalogue_file: CatalogueFile, every_s: float) -> None:
    """Freezes and rules count in every replica, also in one that seldom wins a reading of telemetry."""
    while True:
        await asyncio.sleep(every_s)
        catalogue_file.current()


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
