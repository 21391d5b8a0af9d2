"""Where the local Slack keeps what must survive its restart: small JSON documents in SQLite."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """Documents by kind and key. With no folder everything is kept in memory and forgotten at the end.

    Raises OSError when the folder cannot be written.
    """

    def __init__(self, data_dir: Path | None) -> None:
        if data_dir is None:
            self._db = sqlite3.connect(":memory:", isolation_level=None)
        else:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._db = _open(data_dir / "slack.sqlite3")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS documents (kind TEXT, key TEXT, body TEXT, PRIMARY KEY (kind, key))"
        )

    def put(self, kind: str, key: str, body: Any) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)",
            (kind, key, json.dumps(body)),
        )

    def remove(self, kind: str, key: str) -> None:
        self._db.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))

    def all(self, kind: str) -> Iterator[tuple[str, Any]]:
        """(key, body) of every document of that kind, by key."""
        rows = self._db.execute("SELECT key, body FROM documents WHERE kind = ? ORDER BY key", (kind,)).fetchall()
        for key, body in rows:
            yield key, json.loads(body)

    def close(self) -> None:
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    """The database at that path. Raises OSError when it cannot be written."""
    try:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        # What was written survives the death of this process; a power cut may cost the last messages.
        db.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error
    return db
