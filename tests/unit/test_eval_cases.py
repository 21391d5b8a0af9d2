"""The format of a recorded case: what is read, and what is said of what cannot be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.eval_cases import RecordedCase, case_folders, read_case, shipped_cases
from pipeline.adapters.telemetry.recorded import (
    RecordedActivity,
    RecordedChanges,
    RecordedLogs,
    RecordedMetrics,
    RecordedTopology,
    RecordedTraces,
)
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal
from tests.make_cases import write_all

NOW = datetime(2026, 10, 14, 10, 40, tzinfo=UTC)
CASE = """\
title: A leak
now: 2026-10-14T10:40:00Z
begin: 2026-10-14T10:38:00Z
services:
  checkout: {tier: 1, target: {platform: kubernetes, namespace: shop, name: checkout}}
expected:
  conclusion: cause
  category: memory
  service: checkout
  evidence:
    - series: checkout/memory_ratio/checkout-1
    - change: abc
    - log: killed
"""
WIDE = """\
at,checkout/traffic,checkout/memory_ratio/checkout-1
2026-10-14T10:36:00Z,12,0.5
2026-10-14T10:38:00Z,,0.8
2026-10-14T10:39:00Z,13,0.9
"""
LONG = """\
service,signal,instance,at,value
checkout,memory_ratio,checkout-1,2026-10-14T10:39:00Z,0.9
checkout,memory_ratio,checkout-1,2026-10-14T10:38:00Z,0.8
checkout,memory_ratio,checkout-1,2026-10-14T10:36:00Z,0.5
checkout,traffic,,2026-10-14T10:36:00Z,12
checkout,traffic,,2026-10-14T10:39:00Z,13
"""
LINE = (
    '{"at": "2026-10-14T10:39:00Z", "service": "checkout", "text": "replica {n} killed", "every_s": 20,'
    ' "until": "2026-10-14T10:39:50Z"}\n'
)
FILES = {
    "case.yaml": CASE,
    "metrics.csv": WIDE,
    "edges.csv": "caller,callee\nweb,checkout\n",
    "changes.json": '[{"service": "checkout", "at": "2026-10-14T10:37:00Z", "kind": "deployment",\n'
    ' "revision": "abc", "title": "x"}]',
    "logs.jsonl": LINE,
    "traces.json": '[{"trace_id": "t", "spans": [{"span_id": "a", "service": "checkout", "operation": "GET /",'
    ' "started_at": "2026-10-14T10:39:00Z", "duration_s": 0.2, "error": true}]}]',
    "activity.json": '[{"kind": "process", "service": "checkout", "at": "2026-10-14T10:39:00Z", "statement": "oom",'
    ' "value": 1}]',
    "target.json": '{"checkout": {"replicas": 2, "replicas_1h_ago": 3}}',
}

Write = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Writes a sound case, with some files replaced (None: left out)."""

    def write(**files: str | None) -> Path:
        folder = tmp_path / "leak"
        folder.mkdir(exist_ok=True)
        for name, text in {**FILES, **{name.replace("__", "."): text for name, text in files.items()}}.items():
            if text is not None:
                (folder / name).write_text(text)
        return folder

    return write


def mistakes(folder: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        read_case(folder)
    return [line.removeprefix(f"{folder}/") for line in str(error.value).splitlines()]


def test_everything_of_a_case_is_read(written: Write) -> None:
    case = read_case(written())
    assert (case.id, case.begin, case.now) == ("leak", NOW - timedelta(minutes=2), NOW)
    assert [(sample.key.signal, sample.value) for sample in case.recording.samples][:2] == [
        (Signal.TRAFFIC, 12.0),
        (Signal.MEMORY_RATIO, 0.5),
    ]
    assert len(case.recording.samples) == 5
    assert [line.text for line in case.recording.lines or ()] == [f"replica {n} killed" for n in (1, 2, 3)]
    assert [at.second for at in case.moments()] == [30, 0, 30, 0]
    assert case.targets[ServiceName("checkout")].replicas_1h_ago == 3


def test_a_row_a_value_says_the_same_as_a_column_a_series_and_may_be_packed(written: Write, tmp_path: Path) -> None:
    wide = read_case(written()).recording.samples
    folder = written(metrics__csv=LONG)
    told = read_case(folder).recording.samples
    assert {(one.key, one.at, one.value) for one in told} == {(one.key, one.at, one.value) for one in wide}
    assert [one.at for one in told] == [one.at for one in wide]
    (folder / "metrics.csv").unlink()
    (folder / "metrics.csv.gz").write_bytes(gzip.compress(LONG.encode()))
    assert read_case(folder).recording.samples == told


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("case.yaml", CASE.replace("memory\n", "leak\n"), ["case.yaml, line 8: expected.category: input should be"]),
        ("case.yaml", CASE.replace("tier: 1", "tear: 1"), ["case.yaml, line 5: services.checkout.tear: extra inputs"]),
        ("case.yaml", CASE + "title: again\n", ["case.yaml, line 14: title stands twice"]),
        ("case.yaml", "title: [\n", ["case.yaml, line 2: no YAML"]),
        ("case.yaml", "", ["case.yaml, line 1: input should be"]),
        ("case.yaml", CASE.replace("10:40:00Z", "10:40:00"), ["case.yaml, line 2: now: input should have timezone"]),
        ("case.yaml", CASE.replace("10:38:00Z", "10:45:00Z"), ["case.yaml: begin must be earlier than now"]),
        ("case.yaml", CASE.replace("service: checkout\n", "service: chekout\n"), ["no service chekout is in"]),
        ("case.yaml", CASE.replace("change: abc", "change: abd"), ["changes.json has no change abd"]),
        ("case.yaml", CASE.replace("log: killed", "log: oom"), ["no line of logs.jsonl contains 'oom'"]),
        ("case.yaml", CASE.replace("ratio/checkout-1", "ratio/checkout-9"), ["metrics.csv has no series checkout/mem"]),
        ("case.yaml", CASE + "  forbidden: ['a(']\n", ["14: expected.forbidden.[1]: 'a(' is no regular"]),
        ("metrics.csv", "time,value\n", ["metrics.csv, line 1: the header is service,signal,instance,at,value, or"]),
        ("metrics.csv", "at,checkout/mem\n", ["metrics.csv, line 1: 'checkout/mem' is no series: write service"]),
        ("metrics.csv", WIDE + "2026-10-14T10:40:00Z,1\n", ["metrics.csv, line 5: 2 cells, the header has 3"]),
        ("metrics.csv", WIDE + "soon,1,1\n", ["metrics.csv, line 5: 'soon' is neither an ISO 8601 time nor"]),
        ("metrics.csv", WIDE + "2026-10-14T10:39:30Z,many,1\n", ["metrics.csv, line 5: 'many' is no number"]),
        ("metrics.csv", WIDE + "2026-10-14T10:39:00Z,1,1\n", ["metrics.csv, line 5: a second row for 2026-10-14"]),
        ("metrics.csv", LONG + LONG.splitlines()[1], ["line 7: checkout/memory_ratio/checkout-1 has two values at"]),
        ("metrics.csv", WIDE.replace("10:39", "10:37"), ["metrics.csv has no sample between begin and now"]),
        ("edges.csv", "from,to\n", ["edges.csv, line 1: the header is caller,callee or caller,callee,calls_per_s"]),
        ("edges.csv", "caller,callee,calls_per_s\nweb,checkout,often\n", ["edges.csv, line 2: 'often' is no number"]),
        ("changes.json", '[\n {"service": "a"}]', ["line 2: [1].at: field required", "kind", "rev", "title"]),
        ("changes.json", "[{]", ["changes.json, line 1: no JSON: expecting property name"]),
        ("changes.json", '[{"at": 1, "at": 2}]', ["changes.json: cannot be read: at stands twice in one object"]),
        ("logs.jsonl", LINE + "killed\n", ["logs.jsonl, line 2: invalid JSON"]),
        ("logs.jsonl", LINE.replace("20,", "20, \"n\": 1,"), ["logs.jsonl, line 1: n: extra inputs"]),
        ("logs.jsonl", LINE.replace("10:39:50", "10:30:50"), ["every_s and until go"]),
        ("logs.jsonl", LINE.replace("14T10:39:50Z", "24T10:39:50Z").replace("20,", "0.1,"), ["more than 200000"]),
        ("traces.json", '[{"trace_id": "t", "spans": []}]', ["traces.json, line 1: [1].spans: tuple should have"]),
        ("target.json", '{"checkout": {"replicas": -1}}', ["target.json, line 1: checkout.replicas: input should"]),
        ("notes.txt", "x", ["notes.txt: no file of a case; there are"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_a_line(written: Write, name: str, text: str, said: list[str]) -> None:
    told = mistakes(written(**{name.replace(".", "__"): text}))
    assert len(told) >= len(said)
    for line, part in zip(told, said, strict=False):
        assert part in line


def test_mistakes_of_every_file_are_told_at_once_but_not_hundreds(written: Write) -> None:
    rows = "".join(f"later,{n},{n}\n" for n in range(300))
    told = mistakes(written(metrics__csv=WIDE + rows, target__json="{"))
    assert len(told) == 11
    assert "and 291 more mistakes" in told[-1]


def test_bytes_that_are_no_text_and_folders_that_hold_no_case(written: Write, tmp_path: Path) -> None:
    folder = written()
    (folder / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    assert "no text in UTF-8" in mistakes(folder)[0]
    with pytest.raises(ConfigurationError, match="is missing"):
        read_case(tmp_path)
    with pytest.raises(ConfigurationError, match="is no folder"):
        case_folders(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no case"):
        case_folders(tmp_path / "empty")


def test_a_missing_source_is_not_one_that_is_down(written: Write) -> None:
    case = read_case(
        written(
            case__yaml=CASE.replace("    - change: abc\n    - log: killed\n", "") + "down: {logs: 'refused'}\n",
            changes__json=None,
            logs__jsonl=None,
        )
    )
    assert not case.recording.has("changes")
    assert case.recording.has("logs")
    assert case.recording.has("traces")


async def test_what_was_recorded_is_told_through_the_ports(written: Write) -> None:
    case = read_case(written())
    told, early, late = case.recording, NOW - timedelta(minutes=5), NOW + timedelta(seconds=1)
    checkout = ServiceName("checkout")
    metrics = RecordedMetrics(told, case.begin)
    assert [sample.value for sample in (await metrics.read(NOW)).samples] == [13.0, 0.9]
    assert not (await metrics.read(NOW)).samples  # each is told once
    assert [edge.callee for edge in (await RecordedTopology(told).edges(early, NOW)).edges] == [checkout]
    assert len((await RecordedChanges(told).changes(early, NOW)).changes) == 1
    assert not (await RecordedChanges(told).changes(NOW, late)).changes
    logs = RecordedLogs(told)
    reading = await logs.tail(early, NOW, limit=2)
    assert ([line.text for line in reading.lines], reading.truncated) == (
        ["replica 2 killed", "replica 3 killed"],
        True,
    )
    assert len((await logs.search(checkout, "3", early, NOW, limit=9)).lines) == 1
    assert not (await logs.search(ServiceName("web"), "", early, NOW, limit=9)).lines
    assert len((await RecordedTraces(told).search(checkout, early, NOW, limit=3, errors_only=True)).traces) == 1
    assert not (await RecordedTraces(told).search(ServiceName("web"), early, NOW, limit=3)).traces
    assert [one.statement for one in (await RecordedActivity(told).activity(checkout, early, NOW)).activities] == [
        "oom"
    ]


async def test_a_part_that_is_down_fails_with_its_reason(written: Write) -> None:
    down = "down: {metrics: a, topology: b, changes: c, logs: d, traces: e, activity: f}\n"
    told = read_case(written(case__yaml=CASE + down)).recording
    checkout, early = ServiceName("checkout"), NOW - timedelta(minutes=5)
    readings = [
        await RecordedMetrics(told, early).read(NOW),
        await RecordedTopology(told).edges(early, NOW),
        await RecordedChanges(told).changes(early, NOW),
        await RecordedLogs(told).tail(early, NOW, limit=9),
        await RecordedTraces(told).search(checkout, early, NOW, limit=9),
        await RecordedActivity(told).activity(checkout, early, NOW),
    ]
    assert [reading.failures[0].reason for reading in readings] == ["a", "b", "c", "d", "e", "f"]
    assert not any(getattr(reading, "samples", ()) or getattr(reading, "lines", ()) for reading in readings)


@pytest.fixture(scope="module")
def shipped() -> list[RecordedCase]:
    return [read_case(folder) for folder in case_folders(shipped_cases())]


def test_the_shipped_cases_are_sound_many_and_small(shipped: list[RecordedCase]) -> None:
    expected = [case.expected for case in shipped]
    assert len(shipped) >= 40
    assert sum(one.conclusion.value == "healthy" for one in expected) >= 8
    assert sum(one.conclusion.value == "insufficient_evidence" for one in expected) >= 4
    assert {one.category.value for one in expected if one.category} == {
        "memory",
        "saturation",
        "bad_change",
        "disk",
        "certificate",
    }
    size = sum(file.stat().st_size for file in shipped_cases().rglob("*") if file.is_file())
    assert size < 1_500_000


def test_the_shipped_cases_are_those_that_are_made(tmp_path: Path) -> None:
    names = write_all(tmp_path)
    kept = shipped_cases()
    assert sorted(names) == sorted(folder.name for folder in case_folders(kept))
    for name in names[::6]:
        for file in (tmp_path / name).iterdir():
            assert file.read_bytes() == (kept / name / file.name).read_bytes(), f"{name}/{file.name}"


def test_json_with_tabs_is_json(written: Write) -> None:
    changes = json.dumps(json.loads(FILES["changes.json"]), indent="\t")
    assert read_case(written(changes__json=changes)).recording.changes
