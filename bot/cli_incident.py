"""`sre-bot dry-run INC-42`: what its plan would do, call by call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import IncidentId, incident_label, parse_incident_label

if TYPE_CHECKING:
    from bot.config import Settings

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def add_commands(main: click.Group, settings: Callable[[], Settings], run: Run) -> None:
    """Adds the command to ``main``; what it needs is imported inside it, so that ``--help`` answers at once."""

    @main.command("dry-run")
    @click.argument("incident")
    def dry_run(incident: str) -> None:
        """Show what the plan of INCIDENT (INC-42) would send to its target, what it could hurt, and what guards say."""
        incident_id = parse_incident_label(incident)
        if incident_id is None:
            raise click.UsageError(f"{incident} is no incident: write INC-42 or 42")
        run(_dry_run(settings(), incident_id))


async def _dry_run(settings: Settings, incident_id: IncidentId) -> None:
    from bot.catalogue import CatalogueFile
    from bot.wiring import loop_settings_of, store_of
    from bot.wiring.targets import registry_of
    from pipeline.stages.dry_run import dry_run

    catalogue = CatalogueFile(settings.telemetry.catalogue).current()
    targets = registry_of(settings)
    try:
        async with store_of(settings) as store:
            async with store.begin() as uow:
                case = await uow.incidents.case(incident_id)
            if case is None:
                raise ConfigurationError(f"{incident_label(incident_id)} is not known here")
            click.echo(await dry_run(case, store, targets, loop_settings_of(settings, catalogue)))
    finally:
        await targets.close()
