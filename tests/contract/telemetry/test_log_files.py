"""Logs from files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.adapters.telemetry.log_files import TAIL_BYTES, LogFilesSource
from tests.builders import CHECKOUT

T0 = datetime(2026, 11, 20, 14, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def test_lines_of_all_files_by_time(tmp_path: Path) -> None:
    (tmp_path / "checkout-1.log").write_text(
        "2026-11-20 14:02:01,250 WARNING call of payments failed\n  Traceback\n2026-11-20T14:02:03Z INFO ok\n"
    )
    (tmp_path / "web-12.log").write_text("2026-11-20 15:02:02+01:00 ERROR no\nno time here\n")
    reading = await LogFilesSource(tmp_path).tail(T0, T0 + HOUR, limit=10)
    assert [(line.service, line.instance, line.text) for line in reading.lines] == [
        ("checkout", "checkout-1", "WARNING call of payments failed"),
        ("web", "web-12", "ERROR no"),
        ("checkout", "checkout-1", "INFO ok"),
    ]
    assert reading.lines[0].at == T0 + timedelta(seconds=1.25)
    assert not reading.truncated


async def test_the_newest_within_the_limit_and_the_window(tmp_path: Path) -> None:
    rows = [f"2026-11-20T14:02:{second:02d}Z line {second}" for second in range(60)]
    (tmp_path / "checkout-1.log").write_text("\n".join(rows))
    source = LogFilesSource(tmp_path)
    reading = await source.tail(T0 + timedelta(seconds=10), T0 + timedelta(seconds=20), limit=3)
    assert [line.text for line in reading.lines] == ["line 17", "line 18", "line 19"]
    assert reading.truncated
    found = await source.search(CHECKOUT, "line 5", T0, T0 + HOUR, limit=100)
    assert [line.text for line in found.lines] == ["line 5", *(f"line 5{digit}" for digit in range(10))]


async def test_of_a_large_file_the_end_is_read(tmp_path: Path) -> None:
    row = "2026-11-20T14:02:00Z " + "x" * 200 + "\n"
    count = 2 * TAIL_BYTES // len(row)
    (tmp_path / "checkout-1.log").write_text(row * count + "2026-11-20T14:02:01Z the end\n")
    reading = await LogFilesSource(tmp_path).tail(T0, T0 + HOUR, limit=count)
    assert count / 3 < len(reading.lines) < count * 2 / 3
    assert reading.lines[-1].text == "the end"


async def test_a_folder_that_is_gone_is_a_failure_in_the_reading(tmp_path: Path) -> None:
    reading = await LogFilesSource(tmp_path / "gone").tail(T0, T0 + HOUR, limit=1)
    assert [failure.reason for failure in reading.failures] == [f"{tmp_path / 'gone'} is no folder"]
