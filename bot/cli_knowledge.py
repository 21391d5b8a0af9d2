"""`sre-bot kb …` and `sre-bot eval`: what is known, whether it is found, and how good diagnoses are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bot.config import Settings

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def add_commands(
    main: click.Group, settings: Callable[[], Settings], run: Run, complain: Callable[[str], None]
) -> None:
    """Adds the commands to ``main``; what they need is imported inside them, so that ``--help`` answers at once."""

    @main.group()
    def kb() -> None:
        """The knowledge base: runbooks and post-mortems."""

    @kb.command()
    @click.argument("paths", nargs=-1, required=True)
    def ingest(paths: tuple[str, ...]) -> None:
        """Take in documents: Markdown, HTML, PDF and text of each PATH.

        A PATH is a folder or file; a git repository (git@host:path, ssh://, file://, a URL that ends in .git or begins
        with git+, github.com/OWNER/REPO; #BRANCH or #BRANCH:FOLDER may follow); or the URL of a page. What did not
        change is left alone; what is gone is forgotten, but not all of it at once: `kb forget` does that.
        """
        from bot.kb import ingest_command
        from bot.wiring.knowledge import knowledge_parts

        async def take_in() -> int:
            async with knowledge_parts(settings()) as (parts, _):
                return await ingest_command(paths, parts, click.echo, complain)

        sys.exit(run(take_in()))

    @kb.command()
    @click.argument("collections", nargs=-1, required=True)
    def forget(collections: tuple[str, ...]) -> None:
        """Forget every document of each of COLLECTIONS, as `kb list` names them first."""
        from bot.kb import forget_command
        from bot.wiring.knowledge import knowledge_parts

        async def let_go() -> int:
            async with knowledge_parts(settings()) as (parts, _):
                return await forget_command(collections, parts, click.echo, complain)

        sys.exit(run(let_go()))

    @kb.command("list")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
    def list_documents(as_json: bool) -> None:
        """List the documents that are known."""
        from bot.kb import list_command
        from bot.wiring.knowledge import knowledge_parts

        async def show() -> int:
            async with knowledge_parts(settings()) as (parts, _):
                return await list_command(parts, as_json, click.echo)

        sys.exit(run(show()))

    @kb.command()
    @click.argument("text")
    @click.option(
        "-k", "limit", type=click.IntRange(1), default=5, show_default=True, help="At most so many documents."
    )
    @click.option("--alert", "alerts", multiple=True, help="Name of an alert: its own runbook comes first.")
    @click.option("--service", "services", multiple=True, help="Only documents about this service, or about any.")
    @click.option("--platform", default="", help="Only those for this platform, or for any.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def search(text: str, limit: int, as_json: bool, **wanted: Any) -> None:
        """Search as a diagnosis does."""
        from bot.kb_search import search_command
        from bot.wiring.knowledge import knowledge_parts
        from pipeline.ports.knowledge import KnowledgeQuery

        if not text.strip() and not wanted["alerts"]:
            complain("an empty TEXT: write what to look for, or name an --alert")
            sys.exit(2)

        async def look() -> int:
            async with knowledge_parts(settings()) as (_, base):
                return await search_command(
                    base.retrieval, KnowledgeQuery(text, **wanted), limit=limit, as_json=as_json
                )

        sys.exit(run(look()))

    @kb.command("eval")
    @click.option("--docs", type=click.Path(path_type=Path), required=True, help="Folder of documents.")
    @click.option("--queries", type=click.Path(path_type=Path), required=True, help="JSON lines: id, query, relevant.")
    @click.option("--words-only", is_flag=True, help="Without the embedding model.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def evaluate_search(docs: Path, queries: Path, words_only: bool, as_json: bool) -> None:
        """Say how well the search finds known answers: recall, MRR, nDCG, seconds. Needs no database.

        A line of QUERIES is {"id": …, "query": …, "relevant": [file names]}; "alert", "kind", "services" and
        "platform" may be given too, and an empty list says that no document answers it.
        """
        from bot.kb_search import eval_command
        from bot.wiring.knowledge import eval_kit

        async def measure() -> int:
            async with eval_kit(settings().knowledge, words_only=words_only) as kit:
                return await eval_command(docs, queries, kit, as_json=as_json)

        sys.exit(run(measure()))

    @main.command("eval")
    @click.argument("folder", required=False, type=click.Path(path_type=Path))
    @click.option("--model", default="rules", show_default=True, help="rules, anthropic, openai, or a model's id.")
    @click.option("--only", multiple=True, help="Run these cases (a part of the id will do); may be given again.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("--out", type=click.Path(path_type=Path), help="Write the result as JSON, for --baseline.")
    @click.option("--baseline", type=click.Path(path_type=Path), help="Compare with an earlier --out; worse: exit 1.")
    @click.option("--min-top1", type=float, help="Share of root causes that must be right, else exit 1.")
    @click.option("--price", default="", help="IN/OUT, USD for a million tokens sent and written, as 3/15.")
    @click.option("--embed", is_flag=True, help="Search runbooks by meaning too.")
    @click.option("--record", help="Write a case of a stored incident (INC-42) below FOLDER, and run nothing.")
    @click.option("--jobs", default=3, show_default=True, help="Cases side by side.")
    def evaluate(folder: Path | None, model: str, embed: bool, record: str | None, **options: Any) -> None:
        """Run recorded cases (FOLDER, or those that are shipped) through the pipeline: how good are the diagnoses?"""
        if record is not None:
            sys.exit(run(_record(record, folder or Path(), settings())))
        from bot.eval import EvalOptions
        from bot.eval import evaluate as run_cases
        from bot.wiring.evaluation import eval_bench

        chosen, given = EvalOptions(folder=folder, **options), settings()
        sys.exit(run(run_cases(chosen, lambda: eval_bench(given, model, embed=embed), click.echo, complain)))


async def _record(incident: str, folder: Path, settings: Settings) -> int:
    from bot.catalogue import load_catalogue
    from bot.eval_record import record_incident
    from bot.wiring import store_of
    from pipeline.domain.errors import ConfigurationError
    from pipeline.domain.ids import parse_incident_label

    incident_id = parse_incident_label(incident)
    if incident_id is None:
        raise ConfigurationError(f"--record {incident}: write INC-42 or 42")
    async with store_of(settings) as store:
        place = await record_incident(store, incident_id, folder, load_catalogue(settings.telemetry.catalogue))
    click.echo(f"{place}: look it over before it leaves this machine")
    return 0
