"""Changes out of a real git repository."""

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.adapters.telemetry.git_changes import GitChanges
from pipeline.domain.changes import OURS
from pipeline.domain.errors import ConfigurationError
from tests.builders import CHECKOUT, WEB

T0 = datetime(2026, 11, 20, 14, 2, tzinfo=UTC)


def git(repository: Path, *arguments: str, at: datetime = T0) -> str:
    stamp = at.isoformat()
    who = {
        "GIT_AUTHOR_NAME": "Ann",
        "GIT_AUTHOR_EMAIL": "a@x",
        "GIT_COMMITTER_NAME": "CI",
        "GIT_COMMITTER_EMAIL": "c@x",
    }
    environ = {"PATH": os.environ["PATH"], "GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp, **who}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=repository, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(repository: Path, message: str, *files: str, at: datetime) -> str:
    for file in files:
        path = repository / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(message)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message, at=at)
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    return tmp_path


async def test_a_commit_is_a_change_of_each_service_it_touches(repository: Path) -> None:
    commit(repository, "first", "services/checkout.toml", at=T0 - timedelta(hours=2))
    both = commit(repository, "pool: 20 → 40", "services/checkout/values.yaml", "services/web.toml", "README.md", at=T0)
    commit(repository, "words only", "docs/a.md", at=T0 + timedelta(minutes=1))
    source = GitChanges(repository)
    reading = await source.changes(T0 - timedelta(hours=1), T0 + timedelta(hours=1))
    assert reading.failures == ()
    assert [(one.service, one.revision, one.at, one.title, one.author) for one in reading.changes] == [
        (CHECKOUT, both, T0, "pool: 20 → 40", "Ann"),
        (WEB, both, T0, "pool: 20 → 40", "Ann"),
    ]
    assert "configuration " + both[:12] + " “pool: 20 → 40” by Ann at 14:02:00 UTC" == reading.changes[0].describe()


async def test_what_the_bot_took_back_is_known_as_its_own(repository: Path) -> None:
    commit(repository, 'Revert "pool"\n\nSre-Bot-Execution: 12', "services/checkout.toml", at=T0)
    commit(repository, "pool: 40", "services/checkout.toml", at=T0 + timedelta(minutes=1))
    reading = await GitChanges(repository).changes(T0 - timedelta(hours=1), T0 + timedelta(hours=1))
    assert {change.title: change.author for change in reading.changes} == {'Revert "pool"': OURS, "pool: 40": "Ann"}


async def test_what_git_says_against_it_is_a_failure_in_the_reading(repository: Path) -> None:
    reading = await GitChanges(repository, branch="release").changes(T0, T0 + timedelta(hours=1))
    (failure,) = reading.failures
    assert failure.source == "git"
    assert "release" in failure.reason


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"SRE_CHANGES_REPO: .* is no git repository"):
        GitChanges(tmp_path)
