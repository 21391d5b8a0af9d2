"""The command line. What a command needs is imported inside it, so that ``--help`` answers at once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bot.cli_audit import add_audit_commands
from bot.cli_incident import add_commands as add_incident
from bot.cli_knowledge import add_commands
from bot.cli_operations import add_commands as add_operations
from bot.cli_targets import add_commands as add_targets
from bot.config import Settings, load, variables
from pipeline.domain.errors import ConfigurationError, SreBotError
from pipeline.domain.ids import IncidentId, SlackUserId, parse_incident_label

if TYPE_CHECKING:
    from pipeline.ports.store import Store

Decision = Literal["approve", "reject", "ignore"]
FAULTS = ("memory-leak", "slow", "bad-deploy", "disk-fill", "cert-expiry", "wrong-fix")
PAGE_PORT = 8080
ROOMY = "/var/tmp"  # noqa: S108 # nosec B108
"""Where a temporary PostgreSQL has room; /tmp is often memory."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """sre-bot: detect → diagnose → approve → guard → execute → verify, in Slack."""


@main.command()
def run() -> None:
    """Run the bot until Ctrl-C or SIGTERM."""
    from bot.redacting import log_to_stderr

    settings = _settings()
    log_to_stderr(settings.runtime.log_level, "%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    _run(_bot(settings))


@main.command()
@click.option("--port", default=PAGE_PORT, show_default=True, help="Port of the local Slack page; 0 takes a free one.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where everything is kept.  [default: SRE_DATA_DIR; with --headless a temporary folder, removed at the end]",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="Bots side by side on one database; kill -9 any of them.",
)
@click.option("--headless", is_flag=True, help="Without a page to look at: one fault, one decision, one report.")
@click.option("--fault", type=click.Choice(FAULTS), default="memory-leak", show_default=True)
@click.option("--decide", type=click.Choice(["approve", "reject", "ignore"]), default="approve", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the headless report as one JSON object.")
@click.option("--limit", "limit_s", default=230.0, show_default=True, help="Seconds the headless run may take.")
def demo(
    port: int,
    data_dir: Path | None,
    replicas: int,
    headless: bool,
    fault: str,
    decide: Decision,
    as_json: bool,
    limit_s: float,
) -> None:
    """Run everything on this machine: a local Slack, sample services with faults, and the bot."""
    settings = _settings()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if not headless:
        _run(_demo(settings, data_dir or settings.store.data_dir, port, replicas))
        return
    own = data_dir is None
    where = Path(tempfile.mkdtemp(prefix="sre-bot-", dir=ROOMY)) if data_dir is None else data_dir
    try:
        where.chmod(0o755) if own else None
        ok = _run(_headless(settings, where, fault, decide, replicas, as_json=as_json, limit_s=limit_s))
    finally:
        if own:
            shutil.rmtree(where, ignore_errors=True)
    sys.exit(0 if ok else 1)


@main.command()
@click.argument("name", type=click.Choice(FAULTS))
@click.argument("state", type=click.Choice(["on", "off"]), default="on")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Of the running demo.  [default: SRE_DATA_DIR]")
def fault(name: str, state: str, data_dir: Path | None) -> None:
    """Switch a fault of the running demo on or off."""
    where = (data_dir or _settings().store.data_dir) / "demo.json"
    try:
        world_url = json.loads(where.read_text())["world"]
    except (OSError, ValueError, KeyError):
        raise _Failure(f"no demo runs in {where.parent}: start one with `sre-bot demo`") from None

    from bot.demo.world.client import WorldClient

    async def switch() -> None:
        async with WorldClient(world_url) as world:
            view = await world.set_fault(name, state == "on")
            click.echo(f"{view.name} is on: {view.description}" if view.active else f"{view.name} is off")

    _run(switch())


@main.command()
def config() -> None:
    """List every setting: variable, unit, default, and why it is there."""
    for group, _, variable, info in variables():
        default = "" if info.default in (None, "", ()) else f" = {info.default}"
        click.echo(f"{variable.name}{default}  [{variable.unit}]  ({group}) {variable.why}")


@main.command()
def doctor() -> None:
    """Check everything the bot stands on, and say what to do about what is wrong."""
    from bot.doctor import examine

    settings = _settings()

    async def look() -> bool:
        well = True
        async for finding in examine(settings):
            sign = {"ok": "✅", "note": "ℹ️ ", "wrong": "❌"}[finding.state]
            click.echo(f"{sign} {finding.what}: {finding.said}")
            well = well and finding.state != "wrong"
        return well

    sys.exit(0 if _run(look()) else 1)


@main.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--kind", default="generic", show_default=True, help="latency, errors, traffic, memory, disk or generic.")
@click.option("--period-s", type=float, help="Seconds between samples.  [default: as in the data]")
@click.option("--out", type=click.Path(path_type=Path), help="CSV with a score a row; a folder for several series.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of values, flags and scores; a folder for several.")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV of start,end rows, or a folder of them.")
@click.option("--capacity", is_flag=True, help="Foresee when the series meets --limit: eta_s and page for each row.")
@click.option("--limit", type=float, help="With --capacity: the value at which it is full (or run down).")
@click.option("--falling/--rising", default=None, help="The side of --limit.  [default: where the series begins]")
@click.option("--prometheus", "query", help="Take the series of this query instead of files, with --start and --end.")
@click.option("--start", help="ISO 8601 or epoch seconds.")
@click.option("--end", help="ISO 8601 or epoch seconds.")
@click.option("--step", default=60.0, show_default=True, help="Seconds between the samples Prometheus is asked for.")
def backtest(
    files: tuple[Path, ...],
    query: str | None,
    start: str | None,
    end: str | None,
    step: float,
    **options: Any,
) -> None:
    """Run the detectors over history and say how they would have paged."""
    from bot.backtest import Options, backtest_query
    from bot.backtest import backtest as run_backtest

    chosen = Options(**options)
    if query is None and (start is not None or end is not None):
        raise _Failure("--start and --end go with --prometheus QUERY")
    if query is None:
        sys.exit(run_backtest(files, chosen, click.echo, _complain))
    if files or start is None or end is None:
        raise _Failure("--prometheus QUERY goes with --start and --end, and without files")

    async def ask(expression: str, since: str, until: str) -> int:
        from bot.wiring.telemetry import open_history

        async with open_history(_settings()) as query_range:
            return await backtest_query(expression, since, until, step, chosen, query_range, click.echo, _complain)

    sys.exit(_run(ask(query, start, end)))


@main.command("rank")
@click.option("--baseline", type=click.Path(path_type=Path), required=True, help="Folder of <service>.csv, before.")
@click.option("--window", type=click.Path(path_type=Path), required=True, help="The same, during the incident.")
@click.option("--graph", type=click.Path(path_type=Path), help="Who calls whom: CSV with the columns caller,callee.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rank_services(baseline: Path, window: Path, graph: Path | None, as_json: bool) -> None:
    """Rank services and their metrics by how likely each is the root cause."""
    from bot.rank import rank_command

    sys.exit(rank_command(baseline, window, graph, as_json))


@main.command()
@click.argument("scope")
@click.argument("reason")
def kill(scope: str, reason: str) -> None:
    """Engage the kill switch straight in the database, when Slack is away.

    SCOPE is all, env:ENVIRONMENT or a service.
    """
    from bot.catalogue import CatalogueFile
    from pipeline.stages.switches import engage, scope_of

    async def stop(store: Store) -> None:
        catalogue = CatalogueFile(_settings().telemetry.catalogue).current()
        async with store.begin() as uow:
            seen = {row.key.service for row in await uow.telemetry.load_baselines()}
            known = await scope_of(scope, uow, catalogue, seen)
        await engage(store, known, reason, SlackUserId("command line"))
        click.echo(f"Kill switch ON for {known}. Release it in Slack: /sre resume {known} <reason>")

    _run(_with_store(stop))


@main.command()
@click.argument("incident")
def trace(incident: str) -> None:
    """Print the trail of INCIDENT (INC-42; 0 for the bot as a whole) as JSON lines."""
    incident_id = parse_incident_label(incident)
    if incident_id is None:
        raise _Failure(f"{incident} is no incident: write INC-42 or 42")

    async def show(store: Store) -> None:
        async with store.begin() as uow:
            entries = await uow.trace.read(incident_id)
            broken = await uow.trace.first_broken(incident_id)
        if not entries and incident_id != IncidentId(0):
            raise _Failure(f"{incident} is not known here")
        for stored in entries:
            line = {"seq": stored.seq, "at": stored.at.isoformat(), "kind": stored.entry.kind.value}
            click.echo(json.dumps({**line, "summary": stored.entry.summary, "data": dict(stored.entry.data)}))
        if broken is not None:
            raise _Failure(f"the chain is broken at entry {broken}: the trail was changed")
        click.echo(f"{len(entries)} entries, the chain holds", err=True)

    _run(_with_store(show))


async def _bot(settings: Settings) -> None:
    from bot.wiring import running_bot

    async with running_bot(settings) as bot:
        click.echo(f"sre-bot runs: health on {bot.url}/healthz, Slack over {bot.slack}", err=True)
        for fallback in bot.fallbacks:
            click.echo(f"  fallback: {fallback}", err=True)
        await _until_stopped()
        click.echo("stopping: work in hand is finished first", err=True)


async def _demo(settings: Settings, data_dir: Path, port: int, replicas: int) -> None:
    from bot.demo.launch import running_demo
    from bot.wiring import demo_parts

    async with running_demo(
        demo_parts(settings), data_dir, port=port, overrides={}, say=_say, replicas=replicas
    ) as running:
        _say("ready.")
        click.echo(
            f"""
  Open  {running.page_url}

  Try   1. switch on “memory leak” in the right-hand panel or with
           .venv/bin/sre-bot fault memory-leak on --data-dir {running.data_dir}
        2. within two minutes a card appears in #incidents: read it, press Approve
        3. watch the thread: evidence, steps, verification with a chart
        4. type /sre status, /sre kill all testing, /sre help; be Gil and press Approve

  Ctrl-C stops everything. Logs and data: {running.data_dir}
"""
        )
        await _until_stopped()
        _say("stopping")


async def _headless(
    settings: Settings,
    data_dir: Path,
    fault: str,
    decide: Decision,
    replicas: int,
    *,
    as_json: bool,
    limit_s: float,
) -> bool:
    from bot.demo.headless import run_headless
    from bot.demo.launch import running_demo
    from bot.wiring import demo_parts

    overrides = {"SRE_APPROVAL_TTL_S": "20"} if decide == "ignore" else {}
    async with running_demo(
        demo_parts(settings), data_dir, port=0, overrides=overrides, say=_say, replicas=replicas
    ) as running:
        report, ok = await run_headless(running, fault, decide, limit_s=limit_s, say=_say)
    if as_json:
        click.echo(json.dumps(report))
    else:
        shown = ("incident", "severity", "decision", "incident_state", "outcome", "error")
        click.echo("\n".join(f"{name}: {report[name]}" for name in shown if report.get(name) is not None))
    return ok


async def _with_store(work: Any) -> None:
    from bot.wiring import store_of

    async with store_of(_settings()) as store:
        await work(store)


async def _until_stopped() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _settings() -> Settings:
    try:
        return load()
    except ConfigurationError as error:
        raise _Failure(str(error)) from None


def _settings_beside() -> Settings:
    """As ``_settings``; where none says what may be acted on and a demo runs in the data folder, as it was told."""
    settings = _settings()
    if settings.telemetry.catalogue is not None:
        return settings
    try:
        demo = json.loads((settings.store.data_dir / "demo.json").read_text())
        os.kill(demo["pid"], 0)
        return load({**demo["settings"], **os.environ})
    except (OSError, ValueError, KeyError, ConfigurationError):
        return settings


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            return asyncio.run(_stoppable(work))
    except SreBotError as error:
        raise _Failure(str(error)) from None


async def _stoppable(work: Coroutine[Any, Any, Any]) -> Any:
    """SIGTERM ends ``work`` as Ctrl-C does: what was started is stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _say(text: str) -> None:
    click.echo(f"sre-bot: {text}", err=True)


def _complain(text: str) -> None:
    for line in text.splitlines():
        click.echo(f"sre-bot: {line}", err=True)


class _Failure(click.ClickException):
    """One line a mistake, and exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        del file
        _complain(self.message)


add_commands(main, _settings, _run, _complain)
add_operations(main, _settings, _run)
add_incident(main, _settings_beside, _run)
add_targets(main, _settings_beside, _run)
add_audit_commands(main, _settings, _run, _complain)

if __name__ == "__main__":
    main()
