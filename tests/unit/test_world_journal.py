from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.demo.world.journal import Journal, JournalError
from bot.demo.world.messages import JournalEntry


def scale(journal: Journal, to: int, fence: int = 1, service: str = "checkout") -> JournalEntry:
    detail = {"from": journal.replicas(service), "to": to}
    return journal.record(service=service, kind="scale", execution_id="X", step=1, fence=fence, detail=detail)


def test_state_is_read_off_the_entries_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    scale(journal, 4, fence=7)
    detail = {"instance": "checkout-1", "old_uid": "a", "new_uid": "b"}
    journal.record(service="checkout", kind="restart", execution_id="Y", step=2, fence=3, detail=detail)
    again = Journal(tmp_path)
    assert again.entries() == journal.entries()
    assert (again.replicas("checkout"), again.generation("checkout"), again.highest_fence("checkout")) == (4, 2, 7)
    assert (again.replicas("payments"), again.generation("payments"), again.highest_fence("payments")) == (2, 1, 0)
    assert again.uid("checkout") == journal.uid("checkout")
    assert [entry.execution_id for entry in again.entries(execution_id="Y")] == ["Y"]


def test_a_half_written_last_line_was_never_acknowledged(tmp_path: Path) -> None:
    scale(Journal(tmp_path), 3)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    journal = Journal(tmp_path)
    assert journal.replicas("checkout") == 3
    assert scale(journal, 5).seq == 2
    assert Journal(tmp_path).replicas("checkout") == 5


@pytest.mark.parametrize("damage", [b"{}\n", b"garbage\n"])
def test_damage_inside_stops_the_start(tmp_path: Path, damage: bytes) -> None:
    scale(Journal(tmp_path), 3)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(damage + path.read_bytes())
    with pytest.raises(JournalError, match="line 1 is damaged"):
        Journal(tmp_path)


def test_a_lost_line_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    scale(journal, 3)
    scale(journal, 4)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(JournalError, match="line 1 does not follow"):
        Journal(tmp_path)


def test_replicas_one_hour_ago_counts_what_was_wanted_then(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.replicas_1h_ago("checkout") == 2
    now = datetime.now(UTC)
    entries = [(timedelta(hours=3), 3), (timedelta(minutes=61), 5), (timedelta(minutes=59), 6)]
    lines = [
        JournalEntry(
            seq=number,
            at=now - age,
            service="checkout",
            kind="scale",
            execution_id="X",
            step=1,
            fence=1,
            detail={"to": to},
        ).model_dump_json()
        for number, (age, to) in enumerate(entries, start=1)
    ]
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + "\n")
    journal = Journal(tmp_path)
    assert (journal.replicas("checkout"), journal.replicas_1h_ago("checkout")) == (6, 5)
