"""`sre-bot outbox …` and `sre-bot locks …`: what could not be sent, and who holds what."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from pipeline.domain.ids import OutboxId, incident_label
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.trail import SYSTEM

if TYPE_CHECKING:
    from bot.config import Settings

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def add_commands(main: click.Group, settings: Callable[[], Settings], run: Run) -> None:
    """Adds the commands to ``main``; what they need is imported inside them, so that ``--help`` answers at once."""

    @main.group()
    def outbox() -> None:
        """What is to be told to Slack, the pager and the bus."""

    @outbox.command("list")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
    def dead_letters(as_json: bool) -> None:
        """List what was set aside because it could not be sent, with the reason."""
        run(_list(settings(), as_json))

    @outbox.command()
    @click.argument("number", type=click.IntRange(1), required=False)
    @click.option("--all", "every", is_flag=True, help="All that was set aside.")
    def replay(number: int | None, every: bool) -> None:
        """Send one row that was set aside again (its NUMBER is in the list), or all."""
        if (number is None) is not every:
            raise click.UsageError("name the NUMBER of one row, or --all")
        sys.exit(run(_replay(settings(), None if number is None else OutboxId(number))))

    @main.group()
    def locks() -> None:
        """Locks on what is acted on, shared with other agents."""

    @locks.command()
    @click.argument("resource")
    def show(resource: str) -> None:
        """Say who holds RESOURCE (platform/namespace/name), and whether it rests."""
        run(_show(settings(), resource))

    @locks.command("break")
    @click.argument("resource")
    def break_lock(resource: str) -> None:
        """Take the lock on RESOURCE away from whoever holds it; an action of theirs stops at its next call."""
        run(_break(settings(), resource))


async def _list(settings: Settings, as_json: bool) -> None:
    from bot.wiring import store_of

    async with store_of(settings) as store, store.begin() as uow:
        rows = await uow.outbox.dead_letters()
    if as_json:
        facts = [
            {
                "number": one.id,
                "incident": incident_label(one.incident_id) if one.incident_id is not None else None,
                "kind": one.kind,
                "attempts": one.attempts,
                "error": one.error,
                "created_at": one.created_at.isoformat(),
            }
            for one in rows
        ]
        click.echo(json.dumps(facts))
        return
    for one in rows:
        label = incident_label(one.incident_id) if one.incident_id is not None else "-"
        click.echo(f"{one.id:>8}  {label:<8} {one.kind:<7} {one.created_at:%Y-%m-%d %H:%M:%S}  {one.error}")
    click.echo(f"{len(rows)} set aside" + ("; `sre-bot outbox replay NUMBER` sends one again" if rows else ""))


async def _replay(settings: Settings, number: OutboxId | None) -> int:
    from bot.wiring import store_of

    async with store_of(settings) as store, store.begin() as uow:
        count = await uow.outbox.replay(number)
        said = f"{count} rows of the outbox set to be sent again at the command line"
        await uow.trace.add(SYSTEM, TraceEntry(TraceKind.NOTE, said, {"row": number, "rows": count}))
    if number is not None and not count:
        click.echo(f"sre-bot: row {number} is not set aside; `sre-bot outbox list` shows what is", err=True)
        return 2
    click.echo(f"{count} to be sent again by the bot that runs")
    return 0


async def _show(settings: Settings, resource: str) -> None:
    from bot.wiring import locks_beside

    async with locks_beside(settings) as locks:
        holder, rest_s = await locks.holder(resource), await locks.resting(resource)
    held = f"held by {holder.name} (priority {holder.priority})" if holder else "free"
    click.echo(f"{resource}: {held}" + (f"; rests {rest_s:.0f} s more" if rest_s else ""))


async def _break(settings: Settings, resource: str) -> None:
    from bot.wiring import locks_beside, store_of

    async with locks_beside(settings) as locks, store_of(settings) as store:
        holder = await locks.break_(resource)
        if holder is not None:
            said = f"lock on {resource} taken from {holder.name} at the command line"
            async with store.begin() as uow:
                await uow.trace.add(SYSTEM, TraceEntry(TraceKind.LOCK, said, {"resource": resource}))
    click.echo(f"{resource}: " + (f"taken from {holder.name}" if holder else "was free"))
