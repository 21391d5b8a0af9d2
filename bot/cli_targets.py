"""`sre-bot targets` and `sre-bot targets check`: what can be acted on, and whether the account may."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bot.config import Settings
    from pipeline.domain.capability import RightCheck
    from pipeline.stages.survey import Surveyed

Run = Callable[[Coroutine[Any, Any, Any]], Any]

_MARK = {True: "✅", False: "⛔", None: "❔"}


def add_commands(main: click.Group, settings: Callable[[], Settings], run: Run) -> None:
    """Adds the commands to ``main``; what they need is imported inside them, so that ``--help`` answers at once."""

    @main.group(invoke_without_command=True)
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a target.")
    @click.pass_context
    def targets(context: click.Context, as_json: bool) -> None:
        """List what the catalogue lets the bot act on: each with its uid, and what may be done to it."""
        if context.invoked_subcommand is None:
            run(_list(settings(), as_json))

    @targets.command("check")
    def check() -> None:
        """Prove that the bot's accounts hold every right they need, without acting. Ends with 1 when one is missing."""
        if not run(_check(settings())):
            raise SystemExit(1)


async def _surveyed(settings: Settings, *, rights: bool) -> Sequence[Surveyed]:
    from bot.catalogue import CatalogueFile
    from bot.wiring.targets import registry_of
    from pipeline.stages.survey import Surveyor

    registry = registry_of(settings)
    try:
        found = await Surveyor(registry, CatalogueFile(settings.telemetry.catalogue).current()).find(rights=rights)
    finally:
        await registry.close()
    if not found:
        click.echo("The catalogue (SRE_CATALOGUE) names no target: every action is left to people.", err=True)
    return found


async def _list(settings: Settings, as_json: bool) -> None:
    for one in await _surveyed(settings, rights=False):
        click.echo(json.dumps(_as_json(one)) if as_json else "\n".join(_lines(one)))


def _title(one: Surveyed) -> str:
    where = f"{one.address.platform} {one.address.namespace}/{one.address.name}"
    return f"{one.service} · {one.role.value} · {where}"


def _lines(one: Surveyed) -> list[str]:
    if one.state is None:
        return [f"⛔ {_title(one)}: {one.problem}"]
    lines = [f"{'⛔' if one.problem else '✅'} {_title(one)} · uid {one.state.ref.uid}"]
    lines += [f"     {one.problem}"] if one.problem else []
    for offer in one.declared.offers:
        undone = "can be undone" if offer.reverses else "cannot be undone"
        why_not = one.state.refuses.get(offer.kind, "")
        not_now = f"; not now: {why_not}" if why_not else ""
        lines.append(
            f"     {offer.kind.replace('_', ' ')} ({undone}; refused once changed: {offer.guarded_by}{not_now})"
        )
    lines.append(f"     reads {'; '.join(one.declared.observes)}")
    return lines


def _as_json(one: Surveyed) -> dict[str, object]:
    return {
        "service": one.service,
        "role": one.role.value,
        "platform": one.address.platform,
        "namespace": one.address.namespace,
        "name": one.address.name,
        "uid": one.state.ref.uid if one.state else None,
        "problem": one.problem,
        "generation": one.state.generation if one.state else None,
        "offers": [
            {
                "kind": offer.kind,
                "reverses": offer.reverses,
                "rights": list(offer.rights),
                "refused_now": one.state.refuses.get(offer.kind, "") if one.state else one.problem,
            }
            for offer in one.declared.offers
        ],
        "privileges": one.declared.privileges,
    }


async def _check(settings: Settings) -> bool:
    """Whether nothing is missing."""
    found = await _surveyed(settings, rights=True)
    for one in found:
        if one.state is None:
            click.echo(f"⛔ {_title(one)}: {one.problem}")
            continue
        click.echo(f"{'⛔' if one.missing or one.problem else '✅'} {_title(one)}")
        if one.problem:
            click.echo(f"     {one.problem}")
        for right in one.rights:
            click.echo(f"     {_right(right)}")
        if one.missing and one.declared.privileges:
            click.echo(f"     executors/targets/{one.declared.privileges} grants what is needed, and no more")
    return bool(found) and not any(one.problem or one.missing for one in found)


def _right(right: RightCheck) -> str:
    return f"{_MARK[right.held]} {right.right}" + (f": {right.said}" if right.said else "")
