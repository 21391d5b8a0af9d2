"""The files of the demo world: targets, settings and their repository, log volume, order book, certificates."""

import asyncio
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from bot.demo.world.ailments import LogBurst
from bot.demo.world.certificate import ensure_authority, issue_certificate, not_after
from bot.demo.world.config_file import ConfigError, ConfigFile
from bot.demo.world.config_repo import ConfigRepo, GitError
from bot.demo.world.log_volume import LogVolume, verbose_lines
from bot.demo.world.order_book import OrderBook
from bot.demo.world.spec import MIB, WorldPaths
from bot.demo.world.targets import Target, TargetsView, write_targets


def test_targets_are_taken_in_turn_and_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    view = TargetsView(path, "checkout")
    assert view.in_turn() == ()
    ports = {"checkout": 1, "web": 2, "payments": 3}
    write_targets(path, [Target(service, f"{service}-1", port) for service, port in ports.items()])
    assert view.in_turn() == ("127.0.0.1:1",)
    write_targets(path, [Target("checkout", f"checkout-{port}", port) for port in (7, 8, 9)])
    view.refresh()
    turns = [view.in_turn() for _ in range(3)]
    assert {turn[0] for turn in turns} == {"127.0.0.1:7", "127.0.0.1:8", "127.0.0.1:9"}
    assert all(len(set(turn)) == 3 for turn in turns)
    write_targets(path, [])
    view.refresh()
    assert view.in_turn() == ()


@pytest.mark.parametrize(
    "text",
    ["", "upstream_timeout_ms =", "upstream_timeout_ms = 0", "upstream_timeout_ms = true", "upstream_timeout_ms = 1.5"],
)
def test_settings_that_cannot_be_used_leave_the_last_good_ones(tmp_path: Path, text: str) -> None:
    path = tmp_path / "web.toml"
    path.write_text("upstream_timeout_ms = 250\n")
    config = ConfigFile(path)
    path.write_text(text)
    assert not config.refresh()
    assert config.upstream_timeout_s == 0.25
    with pytest.raises(ConfigError, match=r"web\.toml"):
        ConfigFile(path)
    path.write_text("upstream_timeout_ms = 500\n")
    assert config.refresh()
    assert config.upstream_timeout_s == 0.5


def test_the_log_volume_refuses_what_does_not_fit_and_follows_a_truncation(tmp_path: Path) -> None:
    volume = LogVolume(tmp_path / "logs", size_bytes=10_000)
    assert volume.append("x" * 9_700)
    assert not volume.append("x")
    assert volume.used_bytes() == 9_700
    volume.truncate()
    assert volume.append("after\n")
    assert volume.log_file.read_text() == "after\n"


def test_verbose_lines_are_whole_lines_of_about_the_size() -> None:
    text = verbose_lines(10_000)
    assert text.endswith("\n")
    assert 9_000 < len(text) <= 10_000


async def test_a_burst_does_not_fill_again_what_somebody_made_free(tmp_path: Path) -> None:
    volume = LogVolume(tmp_path / "logs", size_bytes=4 * MIB)
    burst = LogBurst(volume)
    burst.start()
    while volume.used_bytes() < 2 * MIB:
        await asyncio.sleep(0.01)
    volume.truncate()
    while burst.running:
        await asyncio.sleep(0.01)
    assert 0 < volume.used_bytes() <= 2 * MIB


def git(tree: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    command = ["git", "-C", str(tree), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


async def test_the_settings_are_pushed_again_when_another_push_came_first(tmp_path: Path) -> None:
    paths = WorldPaths(tmp_path / "world")
    repo = ConfigRepo(paths)
    await repo.ensure()
    await repo.commit_timeout("payments", 23, "lower it")
    bad = await repo.last_change("payments")
    git(tmp_path, "clone", "--quiet", str(paths.config_repo), "other")
    pushes = 0

    def somebody_is_faster(settings: Path) -> bool:
        nonlocal pushes
        assert settings.read_text().endswith("upstream_timeout_ms = 23\n")
        pushes += 1
        if pushes == 1:
            git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "--message", "another")
            git(tmp_path / "other", "push", "--quiet", "origin", "HEAD:main")
        return False

    await repo.revert_last("payments", unless=somebody_is_faster)
    assert pushes == 2
    assert f"This reverts commit {bad}" in git(paths.config_repo, "show", "--no-patch", "HEAD")
    assert git(paths.config_repo, "log", "-1", "--format=%s", "HEAD^") == "another"
    assert paths.config_file("payments").read_text().endswith("upstream_timeout_ms = 400\n")
    assert git(paths.config_repo, "status", "--porcelain") == ""
    head = git(paths.config_repo, "rev-parse", "HEAD")
    await repo.revert_last("payments", unless=lambda settings: "= 400" in settings.read_text())
    with pytest.raises(GitError, match="commit"):
        await repo.commit_timeout("payments", 400, "as it is")
    assert git(paths.config_repo, "rev-parse", "HEAD") == head


async def test_a_start_makes_the_repository_take_pushes_again(tmp_path: Path) -> None:
    paths = WorldPaths(tmp_path / "world")
    await ConfigRepo(paths).ensure()
    head = git(paths.config_repo, "rev-parse", "HEAD")
    git(paths.config_repo, "config", "--unset", "receive.denyCurrentBranch")
    paths.config_file("web").write_text("torn")
    (paths.config_repo / ".git" / "index.lock").touch()
    repo = ConfigRepo(paths)
    await repo.ensure()
    assert git(paths.config_repo, "rev-parse", "HEAD") == head
    assert git(paths.config_repo, "status", "--porcelain") == ""
    await repo.commit_timeout("web", 7000, "a little less")
    assert ConfigFile(paths.config_file("web")).upstream_timeout_s == 7


async def test_one_at_a_time_works_with_the_order_book_while_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "order-book.lock"
    first, second = OrderBook(path), OrderBook(path)
    async with first.turn(), second.turn():
        path.touch()
    done: list[str] = []

    async def other() -> None:
        async with second.turn():
            done.append("other")

    async with first.turn():
        waiting = asyncio.create_task(other())
        await until_waits_for(path)
        done.append("first")
    await waiting
    assert done == ["first", "other"]


async def until_waits_for(path: Path) -> None:
    """Until somebody waits for the lock of a file, as the kernel shows it: an arrow before the one who waits."""
    inode = f":{path.stat().st_ino} "
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        await asyncio.sleep(0.01)


def test_certificates_are_issued_by_an_authority_that_stays(tmp_path: Path) -> None:
    authority, web = tmp_path / "authority.pem", tmp_path / "web.pem"
    ensure_authority(authority)
    made = authority.read_bytes()
    ensure_authority(authority)
    assert authority.read_bytes() == made
    assert os.stat(authority).st_mode & 0o777 == 0o600
    issuer = x509.load_pem_x509_certificate(made)
    for days in (90, 2):
        issue_certificate(authority, web, timedelta(days=days))
        issued = x509.load_pem_x509_certificate(web.read_bytes())
        issued.verify_directly_issued_by(issuer)
        assert timedelta(days=days - 1) < not_after(web) - datetime.now(UTC) <= timedelta(days=days)
        assert issued.not_valid_after_utc - issued.not_valid_before_utc == timedelta(days=90)
        assert issuer.not_valid_before_utc < issued.not_valid_before_utc
        names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["web.demo.internal"]
    authority.write_text("nothing")
    with pytest.raises(ValueError, match="PEM"):
        issue_certificate(authority, web, timedelta(days=90))
