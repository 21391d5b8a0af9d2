"""Bad input at the command line: one clear line that says what to do, and exit 2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bot.__main__ import main

SECRET = "s3cret-password"
AWAY = f"postgresql://sre:{SECRET}@127.0.0.1:1/sre"
SLACK = {"SLACK_BOT_TOKEN": "xoxb-1", "SRE_SLACK_CHANNEL": "C1"}
SOURCE = {"PROMETHEUS_URL": "http://127.0.0.1:1"}


def sre_bot(*arguments: str, cwd: Path, **environ: str) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SRE_", "SLACK_"))}
    done = subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, **environ},
        check=False,
        timeout=120,
    )
    return done.returncode, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["run"], {"SRE_LATENCY_SIGMA": "4"}, "SRE_LATENCY_SIGMA: no such setting; did you mean SRE_LATENCY_SIGMAS?"),
        (["run"], {"SRE_INTERVAL_S": "soon"}, "SRE_INTERVAL_S: input should be a valid number"),
        (["run"], {}, "SLACK_BOT_TOKEN and SRE_SLACK_CHANNEL: needed"),
        (["run"], {**SLACK, **SOURCE, "DATABASE_URL": AWAY, "REDIS_URL": "redis://127.0.0.1:1"}, "127.0.0.1:1/sre"),
        (["run"], SLACK, "PROMETHEUS_URL, SRE_SCRAPE_FILE, "),
        (["trace", "INC-1"], {"DATABASE_URL": AWAY}, "127.0.0.1:1/sre"),
        (["trace", "nonsense"], {"DATABASE_URL": AWAY}, "write INC-42 or 42"),
        (["fault", "memory-leak"], {}, "no demo runs"),
        (["demo", "--data-dir", "/proc/nowhere"], {}, "/proc/nowhere is not writable"),
    ],
)
def test_one_line_and_exit_2(arguments: list[str], environ: dict[str, str], said: str, tmp_path: Path) -> None:
    code, output = sre_bot(*arguments, cwd=tmp_path, **environ)
    assert code == 2, output
    assert said in output
    assert "Traceback" not in output
    assert SECRET not in output


def test_a_wrong_env_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SLACK_BOT_TOKN=x\n")
    code, output = sre_bot("run", cwd=tmp_path)
    assert code == 2
    assert "SLACK_BOT_TOKN: no such setting; did you mean SLACK_BOT_TOKEN?" in output


def test_a_taken_port_ends_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = sre_bot("demo", "--port", str(port), "--data-dir", str(tmp_path / "demo"), cwd=tmp_path)
    assert code == 2, output
    assert f"port {port}" in output
    assert "--port 0 takes a free one" in output


def test_a_refused_token_says_what_to_do(database_dsn: str, redis_url: str, tmp_path: Path) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b'{"ok": false, "error": "invalid_auth"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    scrape = tmp_path / "targets.json"
    scrape.write_text("[]")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as slack:
        threading.Thread(target=slack.serve_forever, daemon=True).start()
        environ = {
            **SLACK,
            "DATABASE_URL": database_dsn,
            "REDIS_URL": redis_url,
            "SLACK_API_URL": f"http://127.0.0.1:{slack.server_port}/api/",
            "SLACK_APP_TOKEN": "xapp-1",
            "SRE_SCRAPE_FILE": str(scrape),
        }
        code, output = sre_bot("run", cwd=tmp_path, **environ)
        slack.shutdown()
    assert code == 2, output
    assert "SLACK_BOT_TOKEN: Slack refused auth.test: invalid_auth; the bot token is wrong" in output


def test_doctor_finds_everything_wrong_at_once(tmp_path: Path) -> None:
    code, output = sre_bot("doctor", cwd=tmp_path, DATABASE_URL=AWAY, REDIS_URL="redis://127.0.0.1:1")
    assert code == 1, output
    for said in ("✅ packages", "❌ database", "❌ redis", "❌ slack", "nobody is paged", "❌ telemetry", "catalogue"):
        assert said in output
    assert SECRET not in output


def test_the_trail_is_anchored_checked_and_handed_out(
    tmp_path: Path, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: four starts of Python would say no more."""
    monkeypatch.chdir(tmp_path)
    anchors = tmp_path / "anchors.jsonl"

    def audit(*arguments: str) -> Result:
        environ = {"DATABASE_URL": database_dsn, "SRE_ANCHOR_FILE": str(anchors)}
        return CliRunner().invoke(main, ["audit", *arguments], env=environ)

    assert "anchor 1: 0 chains changed since the last" in audit("anchor").output
    checked = audit("verify")
    assert (checked.exit_code, checked.output) == (
        0,
        "checked 1 chains, 1 entries, 0 decisions, 1 anchors: the trail holds\n",
    )
    anchors.unlink()
    checked = audit("verify", "0", "--json")
    assert (checked.exit_code, json.loads(checked.output)["defects"][0]["fault"]) == (1, "anchor file")
    handed_out = audit("export", "INC-5")
    assert (handed_out.exit_code, "INC-5 is not known here" in handed_out.output) == (2, True)
    assert audit("verify", "nonsense").exit_code == 2


def test_config_lists_every_setting_with_its_reason(tmp_path: Path) -> None:
    code, output = sre_bot("config", cwd=tmp_path)
    assert code == 0
    assert "SRE_MEMORY_RATIO = 0.85  [ratio]" in output
