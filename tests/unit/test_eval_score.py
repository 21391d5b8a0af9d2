"""What a run is worth, and when it is worse than another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bot.__main__ import main
from bot.eval import EvalOptions, comparison, evaluate, table, worse
from bot.eval_cases import RecordedCase
from bot.eval_forms import Expected
from bot.eval_runner import Run, Told, tokens
from bot.eval_score import CaseResult, Report, score, totals
from pipeline.domain.diagnosis import Category, Conclusion
from pipeline.domain.ids import ServiceName
from pipeline.domain.recording import Recording
from pipeline.domain.telemetry import Signal
from tests.builders import make_evidence

T0 = datetime(2026, 10, 14, 10, 40, tzinfo=UTC)
TOLD = Told(
    label="INC-1",
    service="checkout",
    root="checkout",
    category=Category.MEMORY,
    conclusion=Conclusion.CAUSE,
    cause="Memory of checkout-1 grows: probably a leak.",
    said=("Memory of checkout-1 grows: probably a leak.", "Traffic is as usual."),
    cited=(),
    path_holds=True,
    path_problem="",
    confidence=0.8,
    severity="SEV2",
    offered=True,
    why_not_offered="",
    folded=False,
    suspects=("checkout", "web", "payments", "worker"),
    source="rules",
    tokens_in=1000,
    tokens_out=100,
)


def scored(*told: Told, price: tuple[float, float] | None = None, **expected: Any) -> CaseResult:
    said = {"conclusion": "cause", "category": "memory", "service": "checkout", **expected}
    case = RecordedCase(
        "case", Path("case"), "", None, T0, T0, 30.0, {}, {}, Recording(),
        Expected.model_validate({name: value for name, value in said.items() if value is not None}),
    )  # fmt: skip
    return score(case, Run(told, 2.0, 1.0), "rules", price)


HEALTHY: dict[str, Any] = {"conclusion": "healthy", "category": None, "service": None}
UNSURE: dict[str, Any] = {"conclusion": "insufficient_evidence", "category": None}


def test_a_right_answer_is_right_in_everything() -> None:
    result = scored(TOLD, price=(3.0, 15.0))
    assert result.right
    assert (result.category_right, result.top1, result.top3, result.path_holds) == (True, True, True, True)
    assert (result.offered, result.should_offer, result.offered_wrongly) == (True, True, False)
    assert result.got == result.expected == "memory at checkout"
    assert result.cost_usd == pytest.approx((1000 * 3 + 100 * 15) / 1e6)


def test_tokens_without_a_price_have_no_known_cost_and_none_cost_nothing() -> None:
    assert scored(TOLD).cost_usd is None
    assert scored(replace(TOLD, tokens_in=0, tokens_out=0)).cost_usd == 0.0


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (replace(TOLD, category=Category.DISK), {"category_right": False, "top1": True}),
        (replace(TOLD, root="web", suspects=("web", "checkout")), {"top1": False, "top3": True}),
        (replace(TOLD, root="web", suspects=("web", "a", "b", "checkout")), {"top1": False, "top3": False}),
        (replace(TOLD, conclusion=Conclusion.INSUFFICIENT_EVIDENCE), {"conclusion_right": False}),
        (replace(TOLD, conclusion=None), {"conclusion_right": False, "got": "not diagnosed"}),
        (replace(TOLD, said=("The deploy broke it.",)), {"forbidden": ("(?i)DEPLOY",)}),
        (replace(TOLD, folded=True), {"conclusion_right": False, "got": "no incident", "incidents": 0}),
    ],
)
def test_each_fault_is_found(told: Told, wrong: dict[str, object]) -> None:
    result = scored(told, forbidden=["(?i)DEPLOY"])
    assert not result.right
    assert {name: getattr(result, name) for name in wrong} == wrong


def test_an_acceptable_answer_is_right_too() -> None:
    told = replace(TOLD, root="web", category=Category.SATURATION, suspects=("web",))
    result = scored(told, acceptable={"services": ["web"], "categories": ["saturation"]})
    assert (result.category_right, result.top1, result.top3) == (True, True, True)


def test_two_causes_need_two_incidents() -> None:
    also = [{"service": "worker", "category": "disk"}]
    second = replace(TOLD, label="INC-2", service="worker", root="worker", category=Category.DISK)
    both = scored(TOLD, second, also=also)
    assert (both.right, both.top3, both.got) == (True, True, "memory at checkout + disk at worker")
    one = scored(TOLD, also=also)
    assert (one.top1, one.category_right) == (False, False)


def test_a_healthy_case_is_right_without_an_incident_or_with_one_found_healthy() -> None:
    assert scored(**HEALTHY).right
    healthy = replace(TOLD, conclusion=Conclusion.HEALTHY, category=Category.UNKNOWN, offered=False)
    assert scored(healthy, **HEALTHY).right
    for alarm in (TOLD, replace(healthy, offered=True), replace(healthy, conclusion=None)):
        assert scored(alarm, **HEALTHY).false_alarm
    assert scored(replace(TOLD, folded=True), **HEALTHY).false_alarm  # it was shown before it was folded


def test_not_enough_evidence_is_an_answer_and_offers_nothing() -> None:
    unsure = replace(TOLD, conclusion=Conclusion.INSUFFICIENT_EVIDENCE, category=Category.UNKNOWN, offered=False)
    assert scored(unsure, **UNSURE).right
    assert not scored(TOLD, **UNSURE).right
    assert scored(replace(unsure, offered=True), **UNSURE).offered_wrongly
    assert not scored(**UNSURE).right
    assert scored(TOLD, **UNSURE, approve="either", acceptable={"categories": ["memory"]}).right


def test_evidence_counts_when_it_is_cited() -> None:
    memory = replace(
        make_evidence(1), service=ServiceName("checkout"), signal=Signal.MEMORY_RATIO, subject="checkout-1"
    )
    change = replace(make_evidence(2), kind="change", statement="checkout: deployment sha256:77aa0 “x” at 10:00:00 UTC")
    line = replace(
        make_evidence(3), kind="log", statement="logs of checkout: 3 lines “OOMKilled <*>” since 10:00:00 UTC"
    )
    wanted = [
        {"series": "checkout/memory_ratio/checkout-1"},
        {"series": "checkout/memory_ratio"},
        {"series": "checkout/memory_ratio/checkout-2"},
        {"change": "sha256:77aa01c2"},
        {"log": "oomkilled"},
        {"kind": "trace"},
    ]
    result = scored(replace(TOLD, cited=(memory, change, line)), evidence=wanted)
    assert (result.evidence_found, result.evidence_wanted) == (4, 6)


def test_severity_is_that_of_the_worst_incident() -> None:
    other = replace(TOLD, label="INC-2", severity="SEV1")
    assert scored(TOLD, other, severity=["SEV1"]).severity_right
    assert scored(TOLD, severity=["SEV1"]).severity_right is False
    assert scored(TOLD).severity_right is None


def test_what_is_proven_is_looked_at_first_then_what_is_worst() -> None:
    unproven = replace(TOLD, label="INC-1", root="web", severity="SEV1", path_holds=False, suspects=("web",))
    proven = replace(TOLD, label="INC-2", severity="SEV3")
    assert scored(unproven, proven).top1
    worst = replace(TOLD, label="INC-3", root="worker", severity="SEV1", suspects=("worker",))
    assert scored(proven, worst, service="ledger").said == worst.cause


def report(*results: CaseResult, model: str = "rules") -> Report:
    return Report(model=model, totals=totals(results), cases=results)


def test_a_run_is_worse_when_it_finds_less_or_says_what_it_must_not() -> None:
    good, bad = scored(TOLD), scored(replace(TOLD, root="web", suspects=("web",), path_holds=False))
    assert worse(report(good), report(good)) == []
    assert worse(report(bad), report(good)) == []
    assert worse(report(good), report(bad)) == ["root cause", "checked path"]
    alarm, quiet = scored(TOLD, **HEALTHY), scored(**HEALTHY)
    assert worse(report(quiet), report(alarm)) == ["conclusion", "Approve offered wrongly", "false alarms"]
    others = good.model_copy(update={"id": "another"})
    assert worse(report(good, others), report(good)) == []  # only what both have is compared


def test_the_comparison_names_what_went_differently() -> None:
    good, bad = scored(TOLD), scored(replace(TOLD, root="web", suspects=("web",)))
    lines = comparison(report(bad), report(good, model="gpt-6-luna"))
    assert lines[0] == "against rules (1 cases that both have):"
    assert "  case: now right: memory at web → memory at checkout" in lines


def test_the_table_has_a_row_a_case_and_the_totals() -> None:
    lines = table(report(scored(TOLD), scored(TOLD, **HEALTHY)))
    assert lines[0].split()[:9] == ["case", "ok", "concl.", "categ.", "root", "top-3", "evid.", "path", "approve"]
    assert lines[1].split()[:9] == ["case", "yes", "yes", "yes", "yes", "yes", "-", "yes", "yes"]
    assert "WRONG" in lines[2]
    assert "ALARM" in lines[2]
    assert any(line.split() == ["root", "cause", "first", "1/1", "1.00"] for line in lines)
    assert table(report())[-1].split()[0] == "seconds"


def test_tokens_are_read_from_the_exchange() -> None:
    assert tokens({"usage": {"input_tokens": 7, "output_tokens": 2}}, "input_tokens") == 7
    assert tokens({"usage": {"input_tokens": None}}, "input_tokens") == 0
    assert tokens({"usage": "many"}, "input_tokens") == 0
    assert tokens({}, "input_tokens") == 0


def test_an_answer_of_another_than_the_model_asked_is_counted() -> None:
    assert not scored(TOLD).fell_back
    assert not scored(replace(TOLD, source="")).fell_back
    assert totals([scored(replace(TOLD, source="gpt-6-luna"))]).fell_back == 1


@asynccontextmanager
async def nobody() -> AsyncIterator[Any]:
    pytest.fail("nothing is to be run")
    yield


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (EvalOptions(folder=Path("/nowhere")), "/nowhere is no folder"),
        (EvalOptions(only=("no-such-case",)), "--only no-such-case: there is no such case"),
        (EvalOptions(min_top1=7.0), "--min-top1 7: write a share of the cases, 0 to 1"),
        (EvalOptions(min_top1=float("nan")), "--min-top1 nan: write a share"),
        (EvalOptions(price="cheap"), "--price cheap: write IN/OUT"),
        (EvalOptions(baseline=Path("/nowhere.json")), "/nowhere.json: cannot be read"),
        (EvalOptions(baseline=Path(__file__)), "not what `sre-bot eval --out` wrote"),
    ],
)
async def test_wrong_options_stop_before_anything_is_run(options: EvalOptions, said: str) -> None:
    complaints: list[str] = []
    assert await evaluate(options, nobody, pytest.fail, complaints.append) == 2
    assert said in complaints[0]


def test_every_mistake_of_a_case_is_a_line_of_the_bot(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "case.yaml").write_text("title: half\n")
    result = CliRunner().invoke(main, ["eval", str(tmp_path)])
    lines = result.stderr.splitlines()
    assert result.exit_code == 2
    assert len(lines) > 1
    assert all(line.startswith(f"sre-bot: {tmp_path}/broken/case.yaml") for line in lines)
