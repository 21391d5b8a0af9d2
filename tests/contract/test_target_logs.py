"""What is the logs' own: room, time, rotation, links, writers, and what the record proves."""

from __future__ import annotations

import fcntl
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from executors.targets import log_files, log_truncation_copy
from executors.targets.log_files import LogFilesTarget
from executors.targets.log_truncation import Permit, read_entries
from executors.targets.log_truncation_copy import pack_tail
from pipeline.domain.action import CordonAction, LogFile, SetCordon, TruncateAction, TruncateLog
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef
from tests.contract.targets.places import intent_for
from tests.contract.targets.stand_log_files import LogFilesStand, log_files_stand, log_lines
from tests.contract.targets.stand_pod_logs import PodLogsStand, pod_logs_stand
from tests.pod_exec_server import LOGS

MIB = 1 << 20

Stands = LogFilesStand | PodLogsStand


@pytest.fixture
async def files() -> AsyncIterator[LogFilesStand]:
    async with log_files_stand() as stand:
        yield stand


@pytest.fixture(params=[log_files_stand, pod_logs_stand], ids=["log_files", "pod_logs"])
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stands]:
    async with request.param() as opened:
        yield opened


async def _planned(stand: Stands) -> tuple[TargetRef, TruncateLog, Intent]:
    ref = await stand.target.resolve(stand.address)
    state = await stand.target.observe(ref)
    return ref, TruncateLog(file=state.files[0]), intent_for(state)


def _copies(log: Path) -> list[Path]:
    return sorted(log.parent.glob(f"{log.name}.*.sre-bot*"))


def _leftovers(log: Path) -> list[Path]:
    return [*_copies(log), *log.parent.glob(".*.part*")]


def _room(monkeypatch: pytest.MonkeyPatch, free: int, *, elsewhere: int = 0) -> None:
    """So much is free beside the log (an open folder there), and in the folder for copies (a path)."""

    def told(folder: Path | int) -> int:
        where = Path(f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder).resolve()
        return free if where.parent.name == "logs" else elsewhere

    monkeypatch.setattr(log_truncation_copy, "free_bytes", told)
    monkeypatch.setattr(log_files, "free_bytes", told)


async def test_all_of_a_log_is_kept_and_its_disk_given_back(stand: Stands) -> None:
    held = log_lines(3 * MIB)
    stand.log.write_bytes(held)
    stand.log.chmod(0o640)
    inode = stand.log.stat().st_ino
    stand.log.with_name(".service.log.of-a-crash.sre-bot.gz.part").write_bytes(b"half")
    with stand.log.open("ab") as writer:
        ref, wish, intent = await _planned(stand)
        said = await stand.target.apply(ref, wish, intent)
        writer.write(b"and on it goes\n")
    assert stand.log.read_bytes() == b"and on it goes\n"
    assert stand.log.stat().st_ino == inode
    (copy,) = _copies(stand.log)
    assert gzip.decompress(copy.read_bytes()) == held
    assert copy.stat().st_mode & 0o777 == 0o640
    used = sum(path.stat().st_size for path in stand.log.parent.iterdir())
    assert used < len(held) / 3
    assert "all of it is kept" in said
    assert "2.6 MiB freed" in said or "2.5 MiB freed" in said
    assert "does not append" not in said
    assert _leftovers(stand.log) == [copy]


async def test_a_writer_that_does_not_append_is_named(stand: Stands) -> None:
    with stand.log.open("r+b") as log, subprocess.Popen(["sleep", "60"], stdout=log) as holder:
        try:
            ref, wish, intent = await _planned(stand)
            said = await stand.target.apply(ref, wish, intent)
        finally:
            holder.kill()
    # Both of us hold it open like that, and the first one that is found is named.
    assert any(f"process {pid} does not append" in said for pid in (holder.pid, os.getpid()))


async def test_a_disk_that_fills_again_at_once_is_told_by_the_next_look(stand: Stands) -> None:
    ref, wish, intent = await _planned(stand)
    await stand.target.apply(ref, wish, intent)
    stand.log.write_bytes(log_lines(900_000))
    assert await stand.target.find(ref, wish, intent) is Finding.APPLIED
    assert await stand.target.settled(ref, wish)
    state = await stand.target.observe(ref)
    assert state.files[0].size_bytes >= 900_000
    assert state.generation == intent.generation, "ordinary logging changes nothing that is wanted"


async def test_what_was_emptied_meanwhile_is_left_alone(stand: Stands) -> None:
    ref, wish, intent = await _planned(stand)
    os.truncate(stand.log, 5)
    with pytest.raises(PreconditionFailed, match="smaller than planned"):
        await stand.target.apply(ref, wish, intent)
    assert stand.log.stat().st_size == 5
    assert not _leftovers(stand.log)


async def test_a_log_that_vanished_is_told(stand: Stands) -> None:
    ref, wish, intent = await _planned(stand)
    stand.log.unlink()
    with pytest.raises(PreconditionFailed, match="gone"):
        await stand.target.apply(ref, wish, intent)
    assert await stand.target.settled(ref, wish)


@pytest.mark.parametrize("planted", ["file", "folder", "second name"])
async def test_links_lead_nowhere(stand: Stands, planted: str, tmp_path: Path) -> None:
    ref, wish, intent = await _planned(stand)
    secret = tmp_path / "service.log"
    secret.write_bytes(log_lines(500_000))
    if planted == "file":
        stand.log.unlink()
        stand.log.symlink_to(secret)
    elif planted == "folder":
        deeper = stand.log.parent.parent if isinstance(stand, LogFilesStand) else stand.log.parent
        (deeper / "worker-9").symlink_to(tmp_path)
        found = secret.stat()
        prefix = stand.root if isinstance(stand, LogFilesStand) else Path(LOGS)
        uid = wish.file.uid.rpartition("/")[0]
        inode = f"{found.st_dev}:{found.st_ino}"
        planted_file = {"path": f"{prefix}/worker-9/service.log", "uid": f"{uid}/{inode}" if uid else inode}
        wish = TruncateLog(file=wish.file.model_copy(update=planted_file))
    else:
        os.link(stand.log, stand.log.with_name("other"))
    with pytest.raises(PreconditionFailed):
        await stand.target.apply(ref, wish, intent)
    assert secret.stat().st_size >= 500_000
    state = await stand.target.observe(ref)
    assert wish.file.path not in {file.path for file in state.files}


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd.log", "{root}/worker-1/notes.txt", "{root}/worker-1/../x.log", "{root}-other/worker-1/a.log"],
)
async def test_only_logs_below_the_allowed_folders(stand: Stands, path: str) -> None:
    ref, wish, intent = await _planned(stand)
    root = stand.root if isinstance(stand, LogFilesStand) else LOGS
    # Past the checks of the value itself: the adapter looks again.
    other = LogFile.model_construct(
        path=path.format(root=root), uid=wish.file.uid, size_bytes=1, instance=wish.file.instance
    )
    with pytest.raises(PermanentError):
        await stand.target.apply(ref, TruncateLog.model_construct(file=other), intent)
    assert stand.writes() == 0


async def test_a_later_claim_shuts_an_earlier_one_out(stand: Stands) -> None:
    ref, wish, intent = await _planned(stand)
    await stand.target.apply(ref, wish, intent)
    stand.log.write_bytes(log_lines(400_000))
    earlier = Intent(intent.execution_id, intent.step + 1, intent.fence - 1, intent.generation)
    with pytest.raises(PreconditionFailed, match="fence"):
        await stand.target.apply(ref, wish, earlier)
    assert stand.log.stat().st_size >= 400_000


async def test_other_operations_are_refused(stand: Stands) -> None:
    ref, _, intent = await _planned(stand)
    with pytest.raises(PermanentError, match="set cordon"):
        await stand.target.apply(ref, SetCordon(cordoned=True), intent)
    with pytest.raises(PermanentError, match="cordon"):
        stand.target.command(ref, CordonAction(cordoned=True))


async def test_another_folder_or_namespace_is_refused(stand: Stands) -> None:
    with pytest.raises(PermanentError, match="allowed: "):
        await stand.target.resolve(stand.address.model_copy(update={"namespace": "elsewhere"}))


async def test_only_logs_are_listed_and_nothing_in_a_name_is_run(stand: Stands) -> None:
    names = ["empty.log", ".hidden.log", "notes.txt", "old.log.gz", "$(touch pwned).log", "a b.log", "two\nlines.log"]
    for name in names:
        stand.log.with_name(name).write_bytes(b"" if name == "empty.log" else b"something\n")
    stand.log.with_name("trace.log.12").write_bytes(b"something\n")
    state = await stand.target.observe(await stand.target.resolve(stand.address))
    listed = {Path(file.path).name for file in state.files}
    assert "trace.log.12" in listed
    assert not listed & set(names)
    assert [file.size_bytes for file in state.files] == sorted((one.size_bytes for one in state.files), reverse=True)
    assert not list(stand.log.parent.rglob("pwned"))


async def test_the_command_by_hand_does_the_same(files: LogFilesStand) -> None:
    held = files.log.read_bytes()
    ref, wish, _ = await _planned(files)
    line = files.target.command(ref, TruncateAction(files=(wish.file,)))
    subprocess.run(["sh", "-c", line], check=True)
    assert files.log.read_bytes() == b""
    (copy,) = files.log.parent.glob("service.log.*.gz")
    assert gzip.decompress(copy.read_bytes()) == held


@pytest.mark.parametrize("free_mib", [1, 30])
async def test_as_much_of_the_newest_is_kept_as_there_is_room_for(
    files: LogFilesStand, monkeypatch: pytest.MonkeyPatch, free_mib: int
) -> None:
    held = log_lines(6 * MIB)
    files.log.write_bytes(held)
    _room(monkeypatch, free_mib * MIB)
    ref, wish, intent = await _planned(files)
    said = await files.target.apply(ref, wish, intent)
    (copy,) = _copies(files.log)
    kept = gzip.decompress(copy.read_bytes())
    assert held.endswith(kept)
    assert copy.stat().st_size <= free_mib * MIB // 2
    assert (len(kept) == len(held)) is (free_mib == 30)
    if free_mib == 1:
        assert f"kept the newest {len(kept) / MIB:.1f} of 6.0 MiB" in said
        assert "what is older is gone: there was no room for more" in said


async def test_without_room_for_a_copy_nothing_is_emptied(
    files: LogFilesStand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ref, wish, intent = await _planned(files)
    before = await files.facts()
    _room(monkeypatch, 100, elsewhere=10 * MIB)
    with pytest.raises(PermanentError, match="make a little room by hand, or set SRE_TRUNCATE_COPIES"):
        await files.target.apply(ref, wish, intent)
    assert await files.facts() == before
    elsewhere = LogFilesTarget({"logs": files.root}, copies=tmp_path / "copies")
    held = files.log.read_bytes()
    assert str(tmp_path / "copies" / "worker-1-service.log.") in await elsewhere.apply(ref, wish, intent)
    assert [gzip.decompress(copy.read_bytes()) for copy in tmp_path.glob("copies/*.gz")] == [held]
    assert not (files.root / ".sre-bot" / "journal.jsonl").exists(), "nothing is written to the disk that is full"
    assert await elsewhere.find(ref, wish, intent) is Finding.APPLIED


async def test_an_enormous_log_full_of_holes_takes_no_longer(files: LogFilesStand) -> None:
    newest = log_lines(70_000)
    with files.log.open("r+b") as log:
        log.seek(10 * 1024 * MIB)
        log.write(newest)
    ref, wish, intent = await _planned(files)
    assert wish.file.size_bytes > 10 * 1024 * MIB
    await files.target.apply(ref, wish, intent)
    (copy,) = _copies(files.log)
    assert gzip.decompress(copy.read_bytes()).endswith(newest)


def test_without_time_the_newest_stretch_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_bytes(log_lines(3 * MIB))
    with log.open("rb") as opened:
        tail = pack_tail(opened.fileno(), 3 * MIB, room_bytes=MIB, until=time.monotonic() - 1)
    assert (tail.start, tail.end, tail.why_not_all) == (2 * MIB, 3 * MIB, "there was no time for more")


def _meanwhile(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Does ``what`` right after the copy was made."""
    made = log_truncation_copy.Copy.make

    def make(self: log_truncation_copy.Copy, log: int, *, until: float) -> None:
        made(self, log, until=until)
        what()

    monkeypatch.setattr(log_truncation_copy.Copy, "make", make)


async def test_what_is_written_while_it_is_copied_is_kept_too(
    files: LogFilesStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, late = files.log.read_bytes(), b"the last line\n" * 9
    ref, wish, intent = await _planned(files)
    with files.log.open("ab", buffering=0) as writer:
        _meanwhile(monkeypatch, lambda: writer.write(late))
        await files.target.apply(ref, wish, intent)
    (copy,) = _copies(files.log)
    assert gzip.decompress(copy.read_bytes()) == held + late


async def test_a_rotation_while_it_is_copied_stops_it(files: LogFilesStand, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, wish, intent = await _planned(files)
    rotated = files.log.with_name("service.log.3")
    _meanwhile(monkeypatch, lambda: files.log.rename(rotated))
    with pytest.raises(PreconditionFailed):
        await files.target.apply(ref, wish, intent)
    assert rotated.stat().st_size >= wish.file.size_bytes
    assert not _leftovers(files.log)


async def test_whoever_gave_up_takes_no_effect_any_more(files: LogFilesStand, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, wish, intent = await _planned(files)
    before = await files.facts()
    impatient = LogFilesTarget({"logs": files.root}, timeout_s=0.2)
    gone = threading.Event()
    _meanwhile(monkeypatch, lambda: gone.wait(60))
    with pytest.raises(TemporaryError, match="nothing was emptied"):
        await impatient.apply(ref, wish, intent)
    with pytest.raises(TemporaryError, match="right now"):
        await files.target.find(ref, wish, intent)
    gone.set()
    with (files.root / ".sre-bot" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the thread has it until it is done
    assert await files.facts() == before
    assert await impatient.find(ref, wish, intent) is Finding.NOT_APPLIED


def test_a_permit_ends_with_its_time_and_with_its_owner() -> None:
    assert Permit(60).begin()
    assert not Permit(0).begin()
    withdrawn = Permit(60)
    assert withdrawn.withdraw()
    assert not withdrawn.begin()
    begun = Permit(60)
    begun.begin()
    assert not begun.withdraw()


_KILLED = """
import asyncio, os, pathlib, signal, sys
from executors.targets.log_files import LogFilesTarget
from pipeline.domain.action import TruncateLog
from pipeline.domain.execution import Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import TargetRef
root, when, ref, wish, execution, fence, generation = sys.argv[1:]
real = os.ftruncate
def ftruncate(fd, length):
    if when == "after":
        real(fd, length)
    os.kill(os.getpid(), signal.SIGKILL)
os.ftruncate = ftruncate
intent = Intent(ExecutionId(int(execution)), 1, int(fence), generation)
target = LogFilesTarget({"logs": pathlib.Path(root)}, timeout_s=60)
asyncio.run(target.apply(TargetRef.model_validate_json(ref), TruncateLog.model_validate_json(wish), intent))
"""


@pytest.mark.parametrize(("when", "finding"), [("before", Finding.NOT_APPLIED), ("after", Finding.APPLIED)])
async def test_a_bot_that_is_killed_at_the_truncation(files: LogFilesStand, when: str, finding: Finding) -> None:
    ref, wish, intent = await _planned(files)
    words = [str(files.root), when, ref.model_dump_json(), wish.model_dump_json()]
    words += [str(intent.execution_id), str(intent.fence), intent.generation]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *words], check=False)
    assert killed.returncode == -signal.SIGKILL
    with files.log.open("ab") as writer:
        writer.write(b"it goes on\n")
    assert await files.target.find(ref, wish, intent) is finding
    if finding is Finding.NOT_APPLIED:
        again = Intent(intent.execution_id, intent.step, intent.fence + 1, intent.generation)
        await files.target.apply(ref, wish, again)
        assert files.log.stat().st_size == 0
        assert await files.target.find(ref, wish, again) is Finding.APPLIED


async def test_a_line_that_a_crash_cut_off_hides_no_other(files: LogFilesStand) -> None:
    ref, wish, intent = await _planned(files)
    own = files.root / ".sre-bot"
    own.mkdir()
    (own / "journal.jsonl").write_text('{"phase": "began", "execution": 1')
    await files.target.apply(ref, wish, intent)
    assert [entry.phase for entry in read_entries((own / "journal.jsonl").read_text())] == ["began", "done"]
    assert await files.target.find(ref, wish, intent) is Finding.APPLIED


async def test_a_rehearsal_opens_and_leaves_alone(files: LogFilesStand) -> None:
    ref, wish, intent = await _planned(files)
    before = await files.facts()
    assert "can be opened for writing" in await files.target.rehearse(ref, wish, intent.generation)
    await files.deny()
    with pytest.raises(PermanentError, match="needs the right to read and write there"):
        await files.target.rehearse(ref, wish, intent.generation)
    checked = {one.right: one for one in await files.target.check(ref)}
    assert checked["read and write the log files"].held is False
    assert str(files.log) in checked["read and write the log files"].said
    assert await files.facts() == before
