"""Uploaded files: issued upload URLs, content, and Slack's moment of processing after the upload."""

import mimetypes
import secrets
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bot.demo.slack.changes import Changes
from bot.demo.slack.errors import SlackError
from bot.demo.slack.journal import Journal
from bot.demo.slack.workspace import BOT_USER_ID, TEAM_ID


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    name: str
    title: str
    alt_text: str
    size_bytes: int
    created_s: float
    completed_s: float | None
    """When completeUploadExternal was called, epoch seconds."""


class Files:
    """Files by id. A completed file is ready `processing_s` later; until then its mimetype is empty."""

    def __init__(self, journal: Journal, changes: Changes, data_dir: Path | None, processing_s: float) -> None:
        self._journal = journal
        self._changes = changes
        self._folder = None if data_dir is None else data_dir / "files"
        self._processing_s = processing_s
        self._in_memory: dict[str, bytes] = {}
        self._upload_urls: dict[str, str] = {}
        self._files = {key: _File(**body) for key, body in journal.all("file")}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def issue_upload(self, name: str, size_bytes: int, alt_text: str) -> tuple[str, str]:
        """(file id, secret of the upload URL)."""
        file_id = "F" + secrets.token_hex(5).upper()
        secret = secrets.token_hex(16)
        self._upload_urls[secret] = file_id
        self._files[file_id] = _File(file_id, name, name, alt_text, size_bytes, time.time(), None)
        return file_id, secret

    def receive(self, secret: str, content: bytes) -> bool:
        """Take the content; False when the URL is unknown or the size is not the one announced."""
        file_id = self._upload_urls.get(secret)
        if file_id is None or len(content) != self._files[file_id].size_bytes:
            return False
        if self._folder is None:
            self._in_memory[file_id] = content
        else:
            (self._folder / file_id).write_bytes(content)
        return True

    def complete(self, file_id: str, title: str | None) -> None:
        """Finish an upload. Raises file_not_found when nothing was uploaded under this id."""
        file = self._files.get(file_id)
        if file is None or file.completed_s is not None or self.content(file_id) is None:
            raise SlackError("file_not_found", file_id=file_id)
        done = replace(file, title=title or file.name, completed_s=time.time())
        self._files[file_id] = done
        self._upload_urls = {s: f for s, f in self._upload_urls.items() if f != file_id}
        self._journal.put("file", file_id, asdict(done))
        self._changes.bump()

    def content(self, file_id: str) -> bytes | None:
        if self._folder is None:
            return self._in_memory.get(file_id)
        path = self._folder / file_id
        return path.read_bytes() if file_id in self._files and path.exists() else None

    def path(self, file_id: str) -> str:
        """Where the server shows it, relative to its address."""
        return f"/files/{file_id}/{quote(self._files[file_id].name, safe='')}"

    def mimetype(self, file_id: str) -> str:
        return mimetypes.guess_type(self._files[file_id].name)[0] or "application/octet-stream"

    def is_ready(self, file_id: str) -> bool:
        file = self._files.get(file_id)
        done = None if file is None else file.completed_s
        return done is not None and time.time() >= done + self._processing_s

    def id_of(self, slack_file: dict[str, Any]) -> str | None:
        """The id an image's slack_file means, given by id or by URL; None when unknown or not ready yet."""
        file_id = slack_file.get("id")
        if file_id is None:
            parts = str(slack_file.get("url", "")).split("/files/")[-1].split("/")
            file_id = parts[0]
        return file_id if isinstance(file_id, str) and self.is_ready(file_id) else None

    def describe(self, file_id: str, base_url: str) -> dict[str, Any]:
        """The file object of files.info. Raises file_not_found."""
        file = self._files.get(file_id)
        if file is None or file.completed_s is None:
            raise SlackError("file_not_found")
        ready = self.is_ready(file_id)
        suffix = file.name.rpartition(".")[2].lower()
        url = base_url + self.path(file_id)
        return {
            "id": file.id,
            "created": int(file.created_s),
            "timestamp": int(file.created_s),
            "name": file.name,
            "title": file.title,
            "alt_txt": file.alt_text,
            "mimetype": self.mimetype(file_id) if ready else "",
            "filetype": suffix if ready else "",
            "pretty_type": suffix.upper() if ready else "",
            "user": BOT_USER_ID,
            "user_team": TEAM_ID,
            "mode": "hosted",
            "editable": False,
            "is_external": False,
            "is_public": False,
            "file_access": "visible",
            "size": file.size_bytes,
            "url_private": url,
            "url_private_download": url,
            "permalink": url,
        }
