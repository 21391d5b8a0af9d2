"""What `sre-bot eval` runs a case with: the real stages and store, sources and targets from the case's folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bot.config import Settings
from bot.config_model import ModelSettings
from bot.embedded.directory import EmbeddedError
from bot.embedded.postgres import EmbeddedPostgres
from bot.eval_cases import RecordedCase
from bot.eval_runner import Bench, RecordedClock
from bot.eval_target import RecordedTargets
from bot.redacting import clean_entry, redact
from bot.wiring import loop_settings_of
from bot.wiring.database import migrated
from bot.wiring.knowledge import fit_by, knowledge_of, prose_of
from bot.wiring.models import authors_of
from bot.wiring.stages import diagnosing_of
from migrations.runner import MigrationReport
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.scratch import ScratchDatabases
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.telemetry.recorded import (
    RecordedActivity,
    RecordedChanges,
    RecordedLogs,
    RecordedMetrics,
    RecordedTopology,
    RecordedTraces,
)
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import ConfigurationError
from pipeline.ports.catalogue import CatalogueSource
from pipeline.ports.store import Store
from pipeline.stages.diagnose import Authors
from pipeline.stages.observe import Sources


class _Fixed(CatalogueSource):
    """A catalogue that nobody edits."""

    problem = ""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def current(self) -> Catalogue:
        return self._catalogue


class EvalBench:
    """Sets the pipeline up for one case after another, each over a copy of one migrated and filled database."""

    def __init__(
        self,
        settings: Settings,
        databases: ScratchDatabases,
        schema: MigrationReport,
        authors: Authors,
        *,
        embed: bool,
        notes: Sequence[str],
    ) -> None:
        self._settings = settings
        self._schema = schema
        self._databases = databases
        self._authors = authors
        self._embed = embed
        self.model = authors.author.name
        self.notes = tuple(notes)

    @asynccontextmanager
    async def bench(self, case: RecordedCase) -> AsyncIterator[Bench]:
        """The stages for ``case`` over a database of its own, gone when the block ends."""
        async with AsyncExitStack() as stack:
            scratch = await stack.enter_async_context(self._databases.copy())
            pool = Pool(scratch.dsn, max_size=4)
            stack.push_async_callback(pool.close)
            store: Store = PostgresStore(pool, clean_entry)
            knowledge = knowledge_of(self._settings.knowledge, pool, self._schema, [], words_only=not self._embed)
            stack.push_async_callback(knowledge.close)
            catalogue = Catalogue(case.services)
            loop_settings = loop_settings_of(self._settings, catalogue)
            clock = RecordedClock(case.begin)
            sources = sources_of_case(case)
            targets = RecordedTargets(case.services, case.targets)
            stages = diagnosing_of(
                self._settings,
                loop_settings,
                store,
                sources,
                targets,
                _Fixed(catalogue),
                knowledge.retrieval,
                self._authors,
                clock,
            )
            yield Bench(
                store=store,
                clock=clock,
                set_store_clock=scratch.set_clock,
                logs=stages.logs,
                observer=stages.observer,
                detector=stages.detector,
                correlator=stages.correlator,
                diagnoser=stages.diagnoser,
            )


def sources_of_case(case: RecordedCase) -> Sources:
    """The sources that the case has; one that was not recorded is not set up."""
    told = case.recording
    return Sources(
        metrics=(RecordedMetrics(told, case.begin),),
        topology=(RecordedTopology(told),) if told.has("topology") else (),
        logs=(RecordedLogs(told),) if told.has("logs") else (),
        changes=(RecordedChanges(told),) if told.has("changes") else (),
        traces=(RecordedTraces(told),) if told.has("traces") else (),
        activity=(RecordedActivity(told),) if told.has("activity") else (),
    )


def with_model(settings: Settings, model: str) -> Settings:
    """``settings`` with ``model``: rules, anthropic, openai, or a model's id; empty leaves them as they are."""
    if not model:
        return settings
    told = {"provider": model} if model in ("rules", "anthropic", "openai") else {"name": model, "provider": "auto"}
    return settings.model_copy(update={"model": ModelSettings.model_validate({**settings.model.model_dump(), **told})})


@asynccontextmanager
async def eval_bench(settings: Settings, model: str, *, embed: bool) -> AsyncIterator[EvalBench]:
    """A server, one database of it migrated and filled with the runbooks, and who diagnoses.

    ``embed``: runbooks are searched by meaning too, which takes the embedding model's time. Raises ConfigurationError
    when ``model`` cannot be had: an evaluation must not quietly be that of the rules engine.
    """
    settings = with_model(settings, model)
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        authors = authors_of(settings.model, redact, fit_by(prose_of(settings.knowledge, notes)), notes)
        for one in {authors.author, authors.rules, *((authors.reviewer,) if authors.reviewer else ())}:
            stack.push_async_callback(one.close)
        if model not in ("", "rules") and authors.author is authors.rules:
            raise ConfigurationError(f"--model {model}: {notes[0] if notes else 'it cannot be had'}")
        databases = ScratchDatabases(await _server(settings, stack))
        schemas: list[MigrationReport] = []

        async def prepare(dsn: str) -> None:
            report = await migrated(dsn)
            schemas.append(report)
            pool = Pool(dsn, max_size=2)
            knowledge = knowledge_of(settings.knowledge, pool, report, notes, words_only=not embed)
            try:
                await knowledge.learn()
            finally:
                await knowledge.close()
                await pool.close()

        await stack.enter_async_context(databases.template(prepare))
        told = [] if model == "rules" else notes  # what was asked for is no fallback
        yield EvalBench(settings, databases, schemas[0], authors, embed=embed, notes=list(dict.fromkeys(told)))


async def _server(settings: Settings, stack: AsyncExitStack) -> str:
    """The URL of a server on which databases can be made: the configured one, or an embedded one for this run alone."""
    if settings.store.database_url is not None:
        return settings.store.database_url.get_secret_value()
    place = _folder()
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    postgres = EmbeddedPostgres(place)
    try:
        url = await postgres.start()
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from error
    stack.push_async_callback(postgres.stop)
    return url


def _folder() -> Path:
    place = Path(tempfile.mkdtemp(prefix="sre-bot-eval-", dir="/var/tmp"))  # nosec B108
    place.chmod(0o755)  # PostgreSQL does not run as root: its account has to get in
    return place
