"""Fixtures for every test: real databases. See tests/databases.py."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from bot.embedded.postgres import EmbeddedPostgres
from bot.embedded.redis import EmbeddedRedis
from tests.databases import BackgroundLoop, PostgresFactory, flush_redis, open_directory

settings.register_profile("sre", deadline=None)  # a shared machine has slow moments
settings.load_profile("sre")


@pytest.fixture(scope="session")
def server_loop() -> Iterator[BackgroundLoop]:
    loop = BackgroundLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def postgres_factory(server_loop: BackgroundLoop) -> Iterator[PostgresFactory]:
    """Databases on the session's own PostgreSQL."""
    with open_directory() as directory:
        server = EmbeddedPostgres(directory)
        dsn = server_loop.run(server.start())
        yield PostgresFactory(server_loop, dsn)
        server_loop.run(server.stop())


@pytest.fixture
def database_dsn(postgres_factory: PostgresFactory) -> Iterator[str]:
    """The DSN of a fresh database with the whole schema, gone after the test."""
    with postgres_factory.migrated() as dsn:
        yield dsn


@pytest.fixture
def blank_database_dsn(postgres_factory: PostgresFactory) -> Iterator[str]:
    """The DSN of a fresh empty database, gone after the test."""
    with postgres_factory.blank() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def redis_server_url(server_loop: BackgroundLoop) -> Iterator[str]:
    """The session's own Redis."""
    with open_directory() as directory:
        server = EmbeddedRedis(directory)
        yield server_loop.run(server.start())
        server_loop.run(server.stop())


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """The URL of an empty Redis."""
    flush_redis(redis_server_url)
    return redis_server_url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the contract of targets came to: one line a target, one column a case."""
    told: dict[str, dict[str, str]] = {}
    for outcome, mark in (("passed", "✓"), ("failed", "✗"), ("error", "✗"), ("skipped", "skipped")):
        for report in terminalreporter.stats.get(outcome, []):
            said = dict(getattr(report, "user_properties", ()))
            if "target" in said and "case" in said:
                told.setdefault(str(said["target"]), {})[str(said["case"])] = mark
    if not told:
        return
    cases = list(dict.fromkeys(case for row in told.values() for case in row))
    width = max(map(len, told))
    terminalreporter.section("targets × cases")
    terminalreporter.write_line(" " * width + "  " + "  ".join(cases))
    for target, row in sorted(told.items()):
        line = "  ".join(row.get(case, "-").center(len(case)) for case in cases)
        terminalreporter.write_line(f"{target.ljust(width)}  {line}")
