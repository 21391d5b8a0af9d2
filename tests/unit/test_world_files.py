"""The files of the demo world: targets, settings, log volume."""

from pathlib import Path

import pytest

from bot.demo.world.config_file import ConfigError, ConfigFile
from bot.demo.world.log_volume import LogVolume, verbose_lines
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
