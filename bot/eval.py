"""`sre-bot eval`: recorded cases through the real pipeline, and a table of what came of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from bot.eval_cases import RecordedCase, case_folders, read_case, shipped_cases
from bot.eval_files import read_text
from bot.eval_runner import Bench, run_case
from bot.eval_score import CaseResult, Report, Totals, score, totals
from bot.whole_file import write_whole
from pipeline.domain.errors import ConfigurationError, SreBotError

Say = Callable[[str], None]
AT_ONCE = 3
"""Cases side by side: most of the time each waits for the database or for a model."""
WRONG_INPUT = 2
BELOW_GATE = 1
Price = tuple[float, float]


class Workbench(Protocol):
    """The pipeline, ready to be set up for one case after another."""

    @property
    def model(self) -> str:
        """Who diagnoses: ``rules`` or a model's id."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What is done without, in a line each."""
        ...

    def bench(self, case: RecordedCase) -> AbstractAsyncContextManager[Bench]:
        """The stages for ``case`` over a database of its own, gone when the block ends."""
        ...


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What the command line says. ``folder`` None: the cases that are shipped.

    ``only``: ids, or parts of them. ``price``: ``IN/OUT``, USD for a million tokens. ``min_top1``: the share of root
    causes that must be right. ``baseline``: a file that an earlier ``--out`` wrote; the run must not be worse.
    """

    folder: Path | None = None
    only: tuple[str, ...] = ()
    as_json: bool = False
    out: Path | None = None
    baseline: Path | None = None
    min_top1: float | None = None
    price: str = ""
    jobs: int = AT_ONCE


async def evaluate(
    options: EvalOptions,
    workbench: Callable[[], AbstractAsyncContextManager[Workbench]],
    say: Say,
    complain: Say,
) -> int:
    """Runs the cases and says how they went. The exit code: 0; 1 when a gate was missed; 2 when something was wrong.

    A case that cannot be read or run is told by ``complain``, a line a mistake, and does not stop the others.
    """
    try:
        if options.min_top1 is not None and not 0 <= options.min_top1 <= 1:
            raise ConfigurationError(f"--min-top1 {options.min_top1:g}: write a share of the cases, 0 to 1, as 0.9")
        price = _price(options.price)
        before = _report(options.baseline) if options.baseline is not None else None
        folders = _chosen(case_folders(options.folder or shipped_cases()), options.only)
    except SreBotError as error:
        complain(str(error))
        return WRONG_INPUT
    cases, broken = _read(folders, complain)
    results: list[CaseResult] = []
    model = ""
    if cases:
        async with workbench() as work:
            model = work.model
            for note in work.notes:
                complain(note)
            turn = asyncio.Semaphore(max(options.jobs, 1))
            found = await asyncio.gather(*(_run(case, work, price, turn, complain) for case in cases))
        results = [one for one in found if one is not None]
    report = Report(model=model, totals=totals(results), cases=tuple(results))
    if options.out is not None:
        _write(options.out, report)
    if options.as_json:
        say(report.model_dump_json())
    else:
        for line in table(report):
            say(line)
    missed = _missed(report, options.min_top1, before)
    for line in (*(comparison(before, report) if before is not None else ()), *missed):
        (complain if options.as_json else say)(line)
    if broken or len(results) < len(cases):
        return WRONG_INPUT
    return BELOW_GATE if missed else 0


def _write(path: Path, report: Report) -> None:
    text = report.model_dump_json(indent=1) + "\n"

    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    write_whole(path, write)


def _chosen(folders: Sequence[Path], only: Sequence[str]) -> list[Path]:
    chosen = [path for path in folders if not only or any(part in path.name for part in only)]
    if not chosen:
        raise ConfigurationError(f"--only {' '.join(only)}: there is no such case; the first is {folders[0].name}")
    return chosen


def _read(folders: Sequence[Path], complain: Say) -> tuple[list[RecordedCase], int]:
    cases: dict[str, RecordedCase] = {}
    broken = 0
    for folder in folders:
        try:
            case = read_case(folder)
            if case.id in cases:
                raise ConfigurationError(f"{folder}: the id {case.id} is that of {cases[case.id].folder} already")
            cases[case.id] = case
        except SreBotError as error:
            broken += 1
            complain(str(error))
    return list(cases.values()), broken


async def _run(
    case: RecordedCase, work: Workbench, price: Price | None, turn: asyncio.Semaphore, complain: Say
) -> CaseResult | None:
    async with turn:
        try:
            async with work.bench(case) as bench:
                return score(case, await run_case(case, bench), work.model, price)
        except SreBotError as error:
            complain(f"{case.folder}: not run to the end: {error}")
            return None


def _price(text: str) -> Price | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text.strip())
    if found is None:
        raise ConfigurationError(f"--price {text}: write IN/OUT, USD for a million tokens sent and written, as 3/15")
    return float(found[1]), float(found[2])


def _report(path: Path) -> Report:
    try:
        return Report.model_validate_json(read_text(path))
    except ValidationError as error:
        raise ConfigurationError(
            f"{path}: not what `sre-bot eval --out` wrote: {error.errors()[0]['msg'][:120]}"
        ) from error


def _missed(report: Report, min_top1: float | None, before: Report | None) -> list[str]:
    """The gates that were missed, a line each."""
    missed = []
    right, of = report.totals.top1
    if min_top1 is not None and (not of or right / of < min_top1):
        missed.append(f"--min-top1 {min_top1:g} missed: {right} of {of} root causes are right")
    if before is not None:
        missed += [f"worse than the baseline: {what}" for what in worse(before, report)]
    return missed


def worse(before: Report, now: Report) -> list[str]:
    """What got worse over the cases that both runs have; a model has to be at least as good as the rules."""
    old, new = _shared(before, now)
    higher = {"root cause": "top1", "category": "category", "conclusion": "conclusion", "checked path": "path"}
    found = [name for name, field in higher.items() if getattr(new, field)[0] < getattr(old, field)[0]]
    lower = {"forbidden claims": "forbidden", "Approve offered wrongly": "offered_wrongly"}
    found += [name for name, field in lower.items() if getattr(new, field) > getattr(old, field)]
    return found + (["false alarms"] if new.false_alarms[0] > old.false_alarms[0] else [])


def _shared(before: Report, now: Report) -> tuple[Totals, Totals]:
    both = {one.id for one in before.cases} & {one.id for one in now.cases}
    return (
        totals([one for one in before.cases if one.id in both]),
        totals([one for one in now.cases if one.id in both]),
    )


def comparison(before: Report, now: Report) -> list[str]:
    """Two runs side by side, and the cases that went differently."""
    old, new = _shared(before, now)
    lines = [f"against {before.model} ({old.cases} cases that both have):"]
    was, is_ = _figures(old), _figures(new)
    lines += [f"  {name:<24}{was[name]:>14}  →{is_[name]:>14}" for name in was]
    told = {one.id: one for one in before.cases}
    for one in now.cases:
        earlier = told.get(one.id)
        if earlier is not None and earlier.right != one.right:
            lines.append(f"  {one.id}: {'now right' if one.right else 'now wrong'}: {earlier.got} → {one.got}")
    return lines


def table(report: Report) -> list[str]:
    """A row a case, and the totals."""
    cells = [_row(one) for one in report.cases]
    rows = [list(cells[0]), *(list(row.values()) for row in cells)] if cells else []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"{report.model or 'nobody'} over {report.totals.cases} cases:"]
    return [*lines, *(f"  {name:<24}{value:>14}" for name, value in _figures(report.totals).items())]


def _row(one: CaseResult) -> dict[str, str]:
    """The cells by their heading."""
    return {
        "case": one.id,
        "ok": "yes" if one.right else "NO",
        "concl.": _mark(one.conclusion_right),
        "categ.": _mark(one.category_right),
        "root": _mark(one.top1),
        "top-3": _mark(one.top3),
        "evid.": f"{one.evidence_found}/{one.evidence_wanted}" if one.evidence_wanted else "-",
        "path": _mark(one.path_holds),
        "approve": _approve(one),
        "wrong": str(len(one.forbidden)) if one.forbidden else "ALARM" if one.false_alarm else "-",
        "inc.": str(one.incidents),
        "tokens": f"{one.tokens_in}+{one.tokens_out}" if one.tokens_in or one.tokens_out else "-",
        "USD": "?" if one.cost_usd is None else f"{one.cost_usd:.4f}" if one.cost_usd else "-",
        "s": f"{one.seconds:.1f}",
        "answer": one.got if one.right else f"{one.got} (expected: {one.expected})",
    }


def _approve(one: CaseResult) -> str:
    if one.offered:
        return "WRONG" if one.offered_wrongly else "yes"
    return "missing" if one.should_offer else "-"


def _mark(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "NO"


def _figures(found: Totals) -> dict[str, str]:
    def share(part: tuple[int, int]) -> str:
        return f"{part[0]}/{part[1]} {part[0] / part[1]:.2f}" if part[1] else "-"

    return {
        "nothing wrong": share((found.right, found.cases)),
        "conclusion right": share(found.conclusion),
        "category right": share(found.category),
        "root cause first": share(found.top1),
        "root cause in three": share(found.top3),
        "evidence cited": share(found.evidence),
        "checked path": share(found.path),
        "severity right": share(found.severity),
        "Approve where due": share(found.offered),
        "Approve where not due": str(found.offered_wrongly),
        "forbidden claims": str(found.forbidden),
        "false alarms": share(found.false_alarms),
        "model gave no answer": str(found.fell_back),
        "tokens": f"{found.tokens_in}+{found.tokens_out}",
        "USD": "unknown" if found.cost_usd is None else f"{found.cost_usd:.4f}",
        "seconds": f"{found.seconds:.1f}",
    }
