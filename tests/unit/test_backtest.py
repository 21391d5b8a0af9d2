"""`sre-bot backtest`: rows in, rows out, what is said, and what wrong input gets."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bot.backtest import Options, backtest, backtest_query

START = 1_750_000_000
MINUTES = 3000
SPIKE = slice(2500, 2530)


@dataclass
class Heard:
    """What was said, and what was complained of."""

    said: list[str] = field(default_factory=list)
    complained: list[str] = field(default_factory=list)

    def run(self, files: Sequence[Path], options: Options) -> int:
        return backtest(files, options, self.said.append, self.complained.append)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def wave() -> list[float]:
    rng = np.random.default_rng(5)
    values = 100.0 + rng.normal(0.0, 1.0, MINUTES)
    values[SPIKE] += 80.0
    return [round(value, 3) for value in values.tolist()]


def write(path: Path, values: Sequence[object], *, iso: bool = False, header: str = "timestamp,value") -> Path:
    stamps: list[object] = [START + 60 * n for n in range(len(values))]
    if iso:
        stamps = [datetime.fromtimestamp(int(str(at)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in stamps]
    lines = [header, *(f"{at},{value}" for at, value in zip(stamps, values, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_row_comes_back_as_it_was_with_its_score(tmp_path: Path, heard: Heard) -> None:
    values = wave()
    out = tmp_path / "scores.csv"
    assert heard.run([write(tmp_path / "a.csv", values, iso=True)], Options(out=out)) == 0
    scored = rows(out)
    assert out.read_text().splitlines()[0] == "timestamp,value,score,anomaly"
    assert [row["value"] for row in scored] == [str(value) for value in values]
    assert scored[0]["timestamp"] == datetime.fromtimestamp(START, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert all(0.0 <= float(row["score"]) <= 1.0 for row in scored)
    assert {row["anomaly"] for row in scored} == {"0", "1"}
    assert any(row["anomaly"] == "1" for row in scored[SPIKE])


def test_a_score_rests_on_earlier_rows_only(tmp_path: Path, heard: Heard) -> None:
    values = wave()
    heard.run([write(tmp_path / "a.csv", values)], Options(out=tmp_path / "whole.csv"))
    heard.run([write(tmp_path / "b.csv", values[:2510])], Options(out=tmp_path / "part.csv"))
    assert rows(tmp_path / "whole.csv")[:2510] == rows(tmp_path / "part.csv")


def test_pages_events_and_labels_are_told(tmp_path: Path, heard: Heard) -> None:
    labels = tmp_path / "labels.csv"
    begin, end = START + 60 * SPIKE.start, START + 60 * (SPIKE.stop - 1)
    labels.write_text(f"start,end\n{begin},{datetime.fromtimestamp(end, UTC).isoformat()}\n")
    assert heard.run([write(tmp_path / "a.csv", wave())], Options(labels=labels)) == 0
    told = "\n".join(heard.said)
    assert "3000 rows, 2.08 days, a sample every 60 s, generic" in told
    assert "a day" in told
    assert "peak score" in told
    assert "1 of 1 labelled events met" in told
    assert "recall 1.000" in told
    assert not heard.complained


def test_epoch_and_iso_gzip_other_columns_and_byte_order_mark_read_alike(tmp_path: Path, heard: Heard) -> None:
    values = wave()[:200]
    heard.run([write(tmp_path / "epoch.csv", values)], Options(out=tmp_path / "one.csv"))
    stamped = [f"{datetime.fromtimestamp(START + 60 * n, UTC).isoformat()}" for n in range(200)]
    lines = ["\ufeffhost,Value, Timestamp", *(f'"a,b",{value},{at}' for value, at in zip(values, stamped, strict=True))]
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress("\r\n".join(lines).encode()))
    heard.run([tmp_path / "other.csv.gz"], Options(out=tmp_path / "two.csv"))
    one, two = rows(tmp_path / "one.csv"), rows(tmp_path / "two.csv")
    assert [row["score"] for row in one] == [row["score"] for row in two]
    assert [row["timestamp"] for row in two] == stamped
    assert not heard.complained


def test_rows_without_value_and_late_rows_are_kept_and_counted(tmp_path: Path, heard: Heard) -> None:
    path = tmp_path / "a.csv"
    body = [(0, "1"), (60, ""), (120, "NaN"), (180, "inf"), (240, "2"), (240, "3"), (60, "4"), (300, "5")]
    path.write_text("timestamp,value\n" + "".join(f"{START + at},{value}\n" for at, value in body))
    assert heard.run([path], Options(out=tmp_path / "out.csv")) == 0
    scored = rows(tmp_path / "out.csv")
    assert [row["value"] for row in scored] == [value for _, value in body]
    assert [row["timestamp"] for row in scored] == [str(START + at) for at, _ in body]
    assert all(float(row["score"]) == 0 for row in scored), "too few rows to judge, or nothing to judge"
    assert all(row["anomaly"] == "0" for row in scored)
    assert "  rows not judged: 3 without a value, 1 with the time of the row before, 1 out of order" in heard.said


def test_several_files_go_to_a_folder_and_a_wrong_one_leaves_the_others(tmp_path: Path, heard: Heard) -> None:
    good = write(tmp_path / "good.csv", wave()[:300])
    bad = write(tmp_path / "bad.csv", ["x"])
    more = write(tmp_path / "more.csv", wave()[:300])
    assert heard.run([good, bad, more], Options(out=tmp_path / "scores")) == 2
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["good.csv", "more.csv"]
    assert heard.complained == [f"{bad}: line 2: 'x' is no number"]


def test_the_forecast_has_a_column_of_seconds_left_and_one_of_pages(tmp_path: Path, heard: Heard) -> None:
    values = [40.0 + 0.02 * n + 0.1 * (n % 3) for n in range(MINUTES)]
    out = tmp_path / "forecast.csv"
    assert heard.run([write(tmp_path / "disk.csv", values)], Options(capacity=True, limit=90.0, out=out)) == 0
    said = rows(out)
    assert list(said[0]) == ["timestamp", "value", "eta_s", "page", "eta_low_s", "eta_high_s"]
    assert len(said) == MINUTES
    assert said[0]["eta_s"] == ""
    breach = next(n for n, value in enumerate(values) if value >= 90.0)
    page = next(n for n, row in enumerate(said) if row["page"] == "1")
    assert page < breach
    assert abs(float(said[breach - 60]["eta_s"]) - 3600.0) < 1800.0
    assert float(said[breach]["eta_s"]) == 0.0
    assert any("1 of 1 breaches paged for" in line for line in heard.said)


def test_without_a_place_the_forecast_goes_to_the_output(
    tmp_path: Path, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert heard.run([write(tmp_path / "disk.csv", [1.0] * 50)], Options(capacity=True, limit=90.0)) == 0
    printed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["eta_s"] for row in printed] == [""] * 50
    assert not heard.said


def test_a_limit_below_is_told_by_where_the_series_begins(tmp_path: Path, heard: Heard) -> None:
    left = [400.0 - n for n in range(500)]
    path = write(tmp_path / "certificate.csv", left)
    assert heard.run([path], Options(capacity=True, limit=0.0, out=tmp_path / "out.csv")) == 0
    assert "(below)" in heard.said[0]
    pages = [row["page"] == "1" for row in rows(tmp_path / "out.csv")]
    assert 300 < pages.index(True) <= 400


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: the header must name the columns timestamp and value, found: nothing"),
        ("1,2\n3,4\n", "line 1: the header must name the columns timestamp and value, found: 1,2"),
        ("timestamp,value\n", "no rows under the header"),
        ("timestamp,value\n1,2\n\n2,abc\n", "line 4: 'abc' is no number"),
        ("timestamp,value\nyesterday,2\n", "line 2: 'yesterday' is neither an ISO 8601 time nor epoch seconds"),
        ("timestamp,value\nnan,2\n", "line 2: 'nan' is no time"),
        ("timestamp,value\n1750000000000,2\n", "line 2: '1750000000000' is no time in epoch seconds: give seconds,"),
        ("timestamp,value\n1750000000\n", "line 2: 1 cells where the header has 2"),
    ],
)
def test_wrong_files_get_one_line_and_leave_what_was_there(
    tmp_path: Path, heard: Heard, text: str, complaint: str
) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "out.csv"
    path.write_text(text)
    out.write_text("as it was")
    assert heard.run([path], Options(out=out)) == 2
    (line,) = heard.complained
    assert line.startswith(f"{path}: {complaint}")
    assert out.read_text() == "as it was"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.csv", "out.csv"]


def test_unreadable_files_get_one_line(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"timestamp,value\n" * 100)[:-9])
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "zero.csv").write_bytes(b"timestamp,value\n1\x00,2\n")
    names = ["none.csv", "cut.csv.gz", "image.csv", "zero.csv", "."]
    assert heard.run([tmp_path / name for name in names], Options()) == 2
    assert len(heard.complained) == len(names)
    assert all("\n" not in line for line in heard.complained)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"kind": "weather"}, "--kind weather is not known"),
        ({"period_s": 0.0}, "--period-s must be"),
        ({"capacity": True}, "--capacity needs --limit V"),
        ({"limit": 5.0}, "--limit goes with --capacity"),
        ({"capacity": True, "limit": float("nan")}, "--limit must be a finite number"),
        ({"out": Path("/nowhere/at/all/x.csv")}, "--out /nowhere/at/all/x.csv cannot be written"),
        ({"plot": Path("/nowhere/at/all/x.png")}, "--plot /nowhere/at/all/x.png cannot be written"),
        ({"labels": Path("/nowhere/labels.csv")}, "/nowhere/labels.csv cannot be read"),
    ],
)
def test_wrong_options_get_one_line(tmp_path: Path, heard: Heard, wrong: dict[str, object], complaint: str) -> None:
    path = write(tmp_path / "a.csv", [1, 2, 3])
    assert heard.run([path], replace(Options(), **wrong)) == 2  # type: ignore[arg-type]
    (line,) = heard.complained
    assert line.startswith(complaint)
    assert not heard.said


def test_results_never_replace_their_input_or_a_folder_by_a_file(tmp_path: Path, heard: Heard) -> None:
    one, two = write(tmp_path / "a.csv", [1, 2, 3]), write(tmp_path / "b.csv", [1, 2, 3])
    assert heard.run([one], Options(out=one)) == 2
    assert heard.run([one, two], Options(out=one)) == 2
    assert heard.run([one, two], Options(out=tmp_path)) == 2
    assert heard.run([], Options()) == 2
    assert len(heard.complained) == 4
    assert one.read_text().startswith("timestamp,value\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("start,end\n5\n", "line 2: a label is start,end"),
        ("9,5\n", "line 1: the label ends before"),
        ("a,b\n", "line 1: 'a'"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, heard: Heard, text: str, complaint: str) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    assert heard.run([write(tmp_path / "a.csv", [1, 2, 3])], Options(labels=labels)) == 2
    assert heard.complained[0].startswith(f"{labels}: {complaint}")


def test_a_picture_is_drawn(tmp_path: Path, heard: Heard) -> None:
    plot = tmp_path / "a.png"
    assert heard.run([write(tmp_path / "a.csv", wave())], Options(plot=plot)) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


async def test_each_series_of_a_query_is_a_file(tmp_path: Path, heard: Heard) -> None:
    asked: list[tuple[str, datetime, datetime, timedelta]] = []

    async def query_range(
        query: str, start: datetime, end: datetime, step: timedelta
    ) -> list[tuple[dict[str, str], np.ndarray, np.ndarray]]:
        asked.append((query, start, end, step))
        ts = np.arange(start.timestamp(), end.timestamp(), step.total_seconds())
        return [({"__name__": "up", "pod": pod}, ts, np.full(len(ts), 1.0)) for pod in ("a/b", "a c")]

    options = Options(out=tmp_path / "scores")
    said, complained = heard.said.append, heard.complained.append
    code = await backtest_query(
        "up", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", 60.0, options, query_range, said, complained
    )
    assert (code, heard.complained) == (0, [])
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert asked == [("up", at, at + timedelta(hours=1), timedelta(seconds=60))]
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["up-a_b.csv", "up-a_c.csv"]
    scored = rows(tmp_path / "scores" / "up-a_b.csv")
    assert (len(scored), scored[0]["timestamp"], scored[0]["value"]) == (60, "2026-01-01T00:00:00Z", "1.0")
    for start, end, step_s, complaint in (
        ("soon", "0", 60.0, "--start: 'soon'"),
        ("60", "0", 60.0, "--end must be later"),
        ("0", "60", 0.0, "--step must be"),
    ):
        assert await backtest_query("up", start, end, step_s, options, query_range, said, complained) == 2
        assert heard.complained[-1].startswith(complaint)


async def test_a_query_without_series_says_so(heard: Heard) -> None:
    async def query_range(*_: object) -> list[tuple[dict[str, str], np.ndarray, np.ndarray]]:
        return []

    code = await backtest_query(
        "up", "0", "60", 60.0, Options(), query_range, heard.said.append, heard.complained.append
    )
    assert (code, heard.complained) == (2, ["Prometheus has no series for up in that time"])


def test_one_time_in_the_future_costs_three_rows(tmp_path: Path, heard: Heard) -> None:
    times = [START + 60 * number for number in range(200)]
    times[100] = START + 60 * 10_000_000
    path = tmp_path / "a.csv"
    path.write_text("timestamp,value\n" + "".join(f"{at},{1 + at % 5}\n" for at in times))
    assert heard.run([path], Options(out=tmp_path / "out.csv")) == 0
    assert any("2 out of order" in line for line in heard.said)
