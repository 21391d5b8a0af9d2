"""`sre-bot audit …`: anchor the trail, check it, and hand out an incident for an auditor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bot.config import Settings
    from pipeline.domain.ids import IncidentId

Run = Callable[[Coroutine[Any, Any, Any]], Any]
_ANCHORS = click.option(
    "--anchors",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File of anchors; may be given again.  [default: SRE_ANCHOR_FILE]",
)


def add_audit_commands(
    main: click.Group, settings: Callable[[], Settings], run: Run, complain: Callable[[str], None]
) -> None:
    """Adds the group to ``main``; what it needs is imported inside, so that ``--help`` answers at once."""

    @main.group()
    def audit() -> None:
        """The trail: append-only, chained by hash, anchored outside the database."""

    @audit.command("anchor")
    def add_anchor() -> None:
        """Write what the heads of all chains are to the file of anchors, now."""
        from bot.wiring.database import audit_parts

        async def work() -> None:
            async with audit_parts(settings()) as parts:
                anchor = await parts.keeper.anchor()
            click.echo(f"anchor {anchor.number}: {len(anchor.chains)} chains changed since the last, in {parts.path}")

        run(work())

    @audit.command()
    @click.argument("incident", required=False)
    @_ANCHORS
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def verify(incident: str | None, anchors: tuple[Path, ...], as_json: bool) -> None:
        """Check every chain, or that of INCIDENT (INC-42; 0: the bot as a whole), tail, decisions and anchors included.

        Exit code 1 when something was changed, with the first bad entry of each chain.
        """
        from bot.anchoring import read_anchors
        from bot.audit import verify as check
        from bot.wiring.database import audit_parts

        async def work() -> int:
            asked = _incident(incident) if incident is not None else None
            async with audit_parts(settings()) as parts:
                logs = [read_anchors(path) for path in anchors or (parts.path,)]
                report = await check(parts.archive, logs, asked)
            click.echo(report.as_json() if as_json else "\n".join(report.lines()))
            return 0 if report.ok else 1

        sys.exit(run(work()))

    @audit.command("export")
    @click.argument("incident")
    @_ANCHORS
    @click.option("--output", type=click.Path(path_type=Path), help="Where to write.  [default: standard output]")
    def hand_out(incident: str, anchors: tuple[Path, ...], output: Path | None) -> None:
        """Write all of INCIDENT as one JSON file that can be checked without the bot; it says how.

        Exit code 1 when the trail does not hold; the file is written all the same.
        """
        from bot.anchoring import read_anchors
        from bot.audit import export
        from bot.redacting import REDACTOR
        from bot.wiring.database import audit_parts

        async def work() -> int:
            asked = _incident(incident)
            async with audit_parts(settings()) as parts:
                logs = [read_anchors(path) for path in anchors or (parts.path,)]
                text, defect = await export(parts.archive, logs, asked, REDACTOR.json)
            if output is None:
                click.echo(text)
            else:
                await asyncio.to_thread(output.write_text, text + "\n", encoding="utf-8")
            if defect is not None:
                complain(defect.describe())
            return 0 if defect is None else 1

        sys.exit(run(work()))


def _incident(text: str) -> IncidentId:
    from pipeline.domain.errors import ConfigurationError
    from pipeline.domain.ids import parse_incident_label

    incident_id = parse_incident_label(text)
    if incident_id is None:
        raise ConfigurationError(f"{text} is no incident: write INC-42 or 42")
    return incident_id
