"""`kb ingest` and `kb list` over real folders, repositories, pages and a real PostgreSQL."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.config import load
from bot.kb import KnowledgeParts, forget_command, ingest_command, list_command
from bot.wiring.knowledge import knowledge_parts, source_of
from knowledge_base.adapters.document_list import PostgresDocumentList
from knowledge_base.adapters.documents_store import PostgresDocuments
from knowledge_base.adapters.git_source import GitSource
from knowledge_base.adapters.pgvector_store import PgVectorStore
from knowledge_base.addresses import HostGuard
from knowledge_base.ingest import ingest, ingest_folder
from knowledge_base.readers.documents import NothingThere, RawDocument
from knowledge_base.retrieval import Retrieval
from knowledge_base.sources import FolderPlace, FolderSource, GitPlace, Listing, WebPlace, folder_source, place_of
from knowledge_base.stored import FloatArray
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.ports.knowledge import KnowledgeQuery

Git = Callable[..., None]


class Lengths:
    """Vectors without a model."""

    name = "lengths"

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        return np.asarray([[1.0, len(text)] for text in texts], dtype=np.float32)


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(database_dsn, max_size=2)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
def documents(pool: Pool) -> PostgresDocuments:
    return PostgresDocuments(pool)


@pytest.fixture
def parts(pool: Pool, documents: PostgresDocuments) -> KnowledgeParts:
    return KnowledgeParts(documents, PostgresDocumentList(pool), partial(source_of, allow_hosts=("127.0.0.1",)))


class Run:
    """Runs the commands and keeps what they say."""

    def __init__(self, parts: KnowledgeParts) -> None:
        self.parts = parts
        self.said: list[str] = []
        self.complaints: list[str] = []

    async def ingest(self, *paths: str | Path) -> int:
        self.said.clear()
        self.complaints.clear()
        return await ingest_command(list(map(str, paths)), self.parts, self.said.append, self.complaints.append)

    async def titles(self) -> dict[str, str]:
        return {document.path: document.title for document in await self.parts.listed.listed()}


@pytest.fixture
def run(parts: KnowledgeParts) -> Run:
    return Run(parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A document of each format, and what is no document."""
    folder = tmp_path / "runbooks"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "disk.md").write_text("---\nservices: db\nlast_verified: 2020-01-01\n---\n# Disk\n\nfree space")
    (folder / "sub" / "KubePodCrashLooping.html").write_text("<title>Crash</title><p>look at the logs")
    (folder / "sub" / "deep" / "outage.txt").write_text("The disk was full.")
    (folder / "sub" / "notes.markdown").write_text("Größe: wichtig", encoding="cp1252")
    (folder / ".hidden" / "secret.md").write_text("secret")
    (folder / "script.sh").write_text("echo no document")
    return folder


async def test_a_folder_is_taken_in_once_and_then_only_what_changed(
    run: Run, folder: Path, documents: PostgresDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await run.ingest(folder) == 0
    counts = "4 added, 0 changed, 0 removed, 0 unchanged, 0 not read, 0 passages embedded"
    assert run.said == [f"{folder}: {counts}"]
    assert run.complaints == [
        "sub/notes.markdown: not UTF-8, read as Windows-1252",
        "not all passages are embedded, they are found by words alone: no embedding model is set up",
    ]
    assert await run.titles() == {
        "disk.md": "Disk",
        "sub/KubePodCrashLooping.html": "Crash",
        "sub/deep/outage.txt": "outage",
        "sub/notes.markdown": "notes",
    }
    known = {document.path: document for document in await documents.documents()}
    assert known["sub/KubePodCrashLooping.html"].alerts == ("KubePodCrashLooping",)

    (folder / "disk.md").write_text("# Disk\n\nmore space")
    (folder / "sub" / "notes.markdown").unlink()
    assert await run.ingest(folder) == 0
    assert "0 added, 1 changed, 1 removed, 2 unchanged, 0 not read" in run.said[0]
    assert sorted(chunk.text for chunk in await documents.chunks()) == [
        "The disk was full.",
        "look at the logs",
        "more space",
    ]

    # A version that cuts otherwise reads everything anew.
    monkeypatch.setattr("knowledge_base.chunking._FORM", 0)
    report = await ingest_folder(folder, documents)
    assert (report.changed, report.unchanged) == (("disk.md", "sub/KubePodCrashLooping.html", "sub/deep/outage.txt"), 0)


async def test_a_file_alone_belongs_to_its_folder_and_removes_nothing(run: Run, folder: Path) -> None:
    assert await run.ingest(folder / "disk.md") == 0
    assert await run.ingest(folder) == 0
    assert "3 added, 0 changed, 0 removed, 1 unchanged" in run.said[0]
    (folder / "disk.md").write_text("---\n- wrong\n---\n# New\n\ntext")
    assert await run.ingest(folder / "disk.md") == 0
    assert "0 added, 1 changed, 0 removed, 0 unchanged" in run.said[0]
    assert run.complaints[0] == "disk.md: front matter, a list where names and values are needed, left out"


async def test_what_cannot_be_read_is_one_line_and_keeps_what_was_known(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("# Good\n\ntext")
    (tmp_path / "turned.md").write_text("# Turned\n\nstill fine")
    (tmp_path / "emptied.md").write_text("# Emptied\n\ntext")
    await run.ingest(tmp_path)

    (tmp_path / "turned.md").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "emptied.md").write_text("")
    with (tmp_path / "large.pdf").open("wb") as large:
        large.write(b"%PDF-1.7\n")
        large.truncate(50_000_000)
    os.mkfifo(tmp_path / "pipe.md")
    assert await run.ingest(tmp_path) == 0
    assert run.complaints[:-1] == [
        "emptied.md: no text in it",
        "large.pdf: larger than 25 MB",
        "turned.md: not a text file",
    ]
    assert await run.titles() == {"good.md": "Good", "turned.md": "Turned"}


async def test_nothing_to_read_is_exit_code_1(run: Run, tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert await run.ingest(empty) == 1
    assert run.complaints[0].startswith(f"{empty}: no documents there; read are .md, .markdown, .html")

    (empty / "x.md").write_bytes(b"\0")
    assert await run.ingest(empty) == 1
    assert run.complaints[0] == "x.md: not a text file"

    assert await run.ingest(tmp_path / "nowhere", "ftp://example.com/x", folder) == 1
    assert "no such file or folder" in run.complaints[0]
    assert "write an http(s), ssh or file URL" in run.complaints[1]
    assert len(run.said) == 1
    assert "4 added" in run.said[0]


async def test_a_folder_that_became_empty_forgets_nothing_until_it_is_told_to(run: Run, folder: Path) -> None:
    await run.ingest(folder)
    known = await run.titles()
    aside = folder.rename(folder.with_name("aside"))
    folder.mkdir()
    assert await run.ingest(folder) == 1
    kept = f"{folder}: nothing is there now; the 4 documents known from it are kept."
    assert run.complaints == [f"{kept} If they are really gone: sre-bot kb forget {folder}"]
    assert await run.titles() == known
    # With a document left it is a folder that somebody works in: what is gone is forgotten.
    (folder / "disk.md").write_bytes((aside / "disk.md").read_bytes())
    assert await run.ingest(folder) == 0
    assert list(await run.titles()) == ["disk.md"]


async def test_a_collection_is_forgotten_by_its_name(run: Run, folder: Path) -> None:
    await run.ingest(folder)
    said: list[str] = []
    assert await forget_command([str(folder), "nowhere"], run.parts, said.append, said.append) == 1
    assert said == [
        f"{folder}: 4 documents forgotten",
        "nowhere: nothing is known of it; `sre-bot kb list` shows the names of collections",
    ]
    assert await run.titles() == {}


async def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    (folder / "..data").mkdir(parents=True)
    (folder / "..data" / "mounted.md").write_text("as Kubernetes mounts a ConfigMap")
    (folder / "mounted.md").symlink_to("..data/mounted.md")
    (folder / "real").mkdir()
    (folder / "real" / "a.md").write_text("a")
    (folder / "real" / "loop").symlink_to("..", target_is_directory=True)
    (folder / "again").symlink_to("real", target_is_directory=True)
    (folder / "self.md").symlink_to("self.md")
    (folder / "dangling.md").symlink_to("nothing.md")
    (folder / "leak").symlink_to(outside, target_is_directory=True)
    (folder / "leak.md").symlink_to(outside / "secret.md")
    listing = await folder_source(folder).listing()
    assert listing.paths == ["mounted.md", "real/a.md"]
    out = "a link that leads out of the folder is not followed"
    assert listing.failed == {
        "leak/": out,
        "leak.md": out,
        "self.md": "a link that leads nowhere",
        "dangling.md": "a link that leads nowhere",
    }


async def test_files_that_go_while_they_are_read_and_names_that_are_no_text(
    tmp_path: Path, documents: PostgresDocuments
) -> None:
    (tmp_path / "going.md").write_text("text")
    odd = os.fsencode(tmp_path) + b"/odd\xff\nname.md"
    with open(odd, "w") as file:
        file.write("odd")
    await ingest_folder(tmp_path, documents)

    class Racing(FolderSource):
        async def read(self, path: str) -> RawDocument:
            (tmp_path / "going.md").unlink(missing_ok=True)
            return await super().read(path)

    report = await ingest(Racing(tmp_path.resolve()), documents)
    assert report.failed == ("going.md: removed while it was read",)
    assert (report.removed, report.unchanged) == (("going.md",), 1)
    assert [document.path for document in await documents.documents()] == ["odd\ufffd name.md"]


async def test_a_part_that_cannot_be_seen_keeps_its_documents(documents: PostgresDocuments) -> None:
    class Flaky:
        collection = "flaky"
        seen = Listing(("a.md", "part/b.md"))
        error: Exception | None = None

        async def listing(self) -> Listing:
            return self.seen

        async def read(self, path: str) -> RawDocument:
            if self.error:
                raise self.error
            return RawDocument(path, b"text")

        async def close(self) -> None:
            """Nothing to close."""

    source = Flaky()
    assert (await ingest(source, documents)).added == ("a.md", "part/b.md")
    source.seen = Listing((), {"part/": "permission denied"})
    report = await ingest(source, documents)
    assert (report.removed, report.failed) == (("a.md",), ("part/: permission denied",))
    source.seen, source.error = Listing(("part/b.md",)), TemporaryError("broken\n\x1b[31mpipe")
    report = await ingest(source, documents)
    assert (report.removed, report.failed) == ((), ("part/b.md: broken [31mpipe",))
    source.error = NothingThere("gone")
    assert (await ingest(source, documents)).removed == ("part/b.md",)


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"]
    repository = tmp_path / "work"
    repository.mkdir()

    def call(*arguments: str) -> None:
        subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True)

    call("init", "-q")
    (repository / "docs").mkdir()
    (repository / "README.md").write_text("# About\n\ntext")
    (repository / "docs" / "disk.md").write_text("# Disk\n\ntext")
    (repository / "passwords.md").symlink_to("/etc/passwd")
    call("add", ".")
    call("commit", "-qm", "one")
    call("checkout", "-qb", "next")
    (repository / "docs" / "memory.md").write_text("# Memory\n\ntext")
    call("add", ".")
    call("commit", "-qm", "two")
    call("checkout", "-q", "main")
    return call


async def test_a_repository_is_cloned_and_nothing_of_it_is_run(run: Run, git: Git, tmp_path: Path) -> None:
    template = tmp_path / "template" / "hooks"
    template.mkdir(parents=True)
    hook = template / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f"[init]\n\ttemplateDir = {template.parent}\n[core]\n\thooksPath = {template}\n"
    )
    url = f"file://{tmp_path}/work"
    assert await run.ingest(url) == 0
    # The link is a file that names its target, never what it leads to.
    assert "3 added" in run.said[0]
    assert run.said[0].startswith(f"{url}: ")
    assert await run.titles() == {"README.md": "About", "docs/disk.md": "Disk", "passwords.md": "passwords"}
    assert not (tmp_path / "ran").exists()

    git("rm", "-q", "passwords.md")
    git("commit", "-qm", "three")
    assert await run.ingest(url) == 0
    assert "0 added, 0 changed, 1 removed, 2 unchanged" in run.said[0]
    assert list((tmp_path / "temporary").iterdir()) == []


async def test_a_branch_and_a_folder_of_a_bare_repository(run: Run, git: Git, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    assert place_of(str(tmp_path / "bare")) == GitPlace(f"file://{tmp_path}/bare")
    source = GitSource(GitPlace(f"file://{tmp_path}/bare", "next", "docs"), HostGuard())
    assert (await source.listing()).paths == ["disk.md", "memory.md"]
    raw = await source.read("memory.md")
    assert raw.source.startswith(f"file://{tmp_path}/bare@")
    assert raw.source.endswith("/docs/memory.md")
    await source.close()

    assert await run.ingest(f"file://{tmp_path}/bare#next:docs") == 0
    assert {document.collection for document in await run.parts.listed.listed()} == {
        f"file://{tmp_path}/bare#next:docs"
    }
    for part, said in {"#none": "none not found", "#next:etc": "has no folder etc"}.items():
        assert await run.ingest(f"file://{tmp_path}/bare{part}") == 1
        assert said in run.complaints[0]


async def test_repositories_that_cannot_be_had_are_one_line(run: Run, tmp_path: Path) -> None:
    assert await run.ingest(f"file://{tmp_path}/nothing", "http://10.0.0.1/x.git", "ssh://git@10.0.0.1/x") == 1
    assert f"file://{tmp_path}/nothing cannot be cloned: fatal: " in run.complaints[0]
    assert "10.0.0.1: no public address" in run.complaints[1]
    assert "10.0.0.1: no public address" in run.complaints[2]
    assert len(run.complaints) == 3


async def test_git_connects_to_the_address_that_was_checked_and_to_no_other(git: Git) -> None:
    del git  # a HOME of its own
    over = asyncio.Event()
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(f"{request.host}{request.path}")
        if request.path.startswith("/slow.git"):
            await over.wait()
        if request.path.startswith("/moved.git"):
            raise web.HTTPFound(f"http://127.0.0.1:{server.port}/other.git/info/refs?service=git-upload-pack")
        raise web.HTTPNotFound

    async def resolver(host: str, port: int) -> list[str]:
        del host, port
        return ["127.0.0.1"]

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    where = f"git.corp:{server.port}"
    for path, error, said in (
        ("none.git", PermanentError, "none.git cannot be cloned: fatal: "),
        ("moved.git", PermanentError, "moved.git cannot be cloned: fatal: "),
        ("slow.git", TemporaryError, "was not cloned within 1 s"),
    ):
        guard = HostGuard(("git.corp",), resolver)
        source = GitSource(GitPlace(f"http://{where}/{path}"), guard, timeout_s=1.0 if path == "slow.git" else 60.0)
        with pytest.raises(error, match=said):
            await source.listing()
        await source.close()
    over.set()
    await server.close()
    assert [path for path in seen if "slow.git" not in path] == [
        f"{where}/none.git/info/refs",
        f"{where}/moved.git/info/refs",
    ]


async def test_a_page_is_its_own_collection_and_goes_when_it_is_gone(run: Run) -> None:
    answers = [web.Response(text="<h1>Disk</h1>text", content_type="text/html"), web.Response(status=503)]
    answers += [web.Response(status=410)]

    async def answer(request: web.Request) -> web.Response:
        del request
        return answers.pop(0)

    app = web.Application()
    app.router.add_get("/disk", answer)
    server = TestServer(app)
    await server.start_server()
    url = str(server.make_url("/disk"))
    assert await run.ingest(url) == 0
    assert await run.titles() == {"127.0.0.1/disk": "Disk"}
    assert await run.ingest(url) == 1
    assert run.complaints[0] == "127.0.0.1/disk: the server answers 503"
    assert await run.titles() == {"127.0.0.1/disk": "Disk"}
    assert await run.ingest(url) == 1
    assert await run.titles() == {}
    await server.close()


async def test_a_terminal_sees_a_bar_and_a_pipe_does_not(
    run: Run, folder: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run.parts = KnowledgeParts(
        run.parts.documents, run.parts.listed, run.parts.source_of, Lengths(), PgVectorStore(pool)
    )
    screen, terminal = os.openpty()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        assert await run.ingest(folder) == 0
        monkeypatch.undo()
        shown = os.read(screen, 65_536).decode()
    os.close(screen)
    assert "reading documents" in shown
    assert "embedding passages" in shown
    assert "100%" in shown
    assert "passages embedded" in run.said[0]
    assert ", 0 passages embedded" not in run.said[0]

    await run.ingest(folder)
    assert capfd.readouterr() == ("", "")


async def test_documents_are_listed_with_what_they_say_of_themselves(run: Run, tmp_path: Path) -> None:
    assert await list_command(run.parts, False, run.said.append) == 0
    assert run.said == ["The knowledge base is empty: sre-bot kb ingest PATH…"]

    fresh = (datetime.now(UTC) - timedelta(days=30)).date()
    front = f"kind: postmortem\ncategory: disk\nservices: [db, cart]\nplatform: ecs\nowner: dba\nlast_verified: {fresh}"
    (tmp_path / "a.md").write_text(f"---\n{front}\n---\n# A\n\none\n\n## B\n\ntwo")
    (tmp_path / "b.md").write_text("---\nlast_verified: 2020-01-01\n---\ntext")
    await run.ingest(tmp_path)
    run.said.clear()
    assert await list_command(run.parts, True, run.said.append) == 0
    first, second = json.loads(run.said.pop())
    assert datetime.fromisoformat(first.pop("ingested_at")).tzinfo is not None
    assert first == {
        "collection": str(tmp_path),
        "path": "a.md",
        "title": "A",
        "kind": "postmortem",
        "category": "disk",
        "services": ["db", "cart"],
        "platform": "ecs",
        "owner": "dba",
        "last_verified": fresh.isoformat(),
        "chunks": 2,
        "stale": False,
    }
    assert second["stale"] is True

    assert await list_command(run.parts, False, run.said.append) == 0
    assert (
        f"a.md  A  [postmortem | disk | db, cart | ecs | dba | verified {fresh} | 2 chunks | ingested " in run.said[0]
    )
    assert "verified 2020-01-01 (stale)" in run.said[1]


async def test_the_shipped_runbooks_are_there_before_the_first_start(database_dsn: str) -> None:
    settings = load({"DATABASE_URL": database_dsn}, None)
    async with knowledge_parts(settings) as (parts, base):
        listed = await parts.listed.listed()
        found = await Retrieval(base.documents).search(KnowledgeQuery("memory leak, OOM kill"), limit=1)
    assert {document.collection for document in listed} == {"packaged"}
    assert found.passages[0].document.startswith("memory-leak")
    async with knowledge_parts(settings) as (parts, _):
        assert await parts.listed.listed() == listed, "once is enough"


@pytest.mark.parametrize(
    ("argument", "place"),
    [
        ("runbooks", FolderPlace(Path("runbooks"))),
        ("https://wiki.example/disk?id=1#part", WebPlace("https://wiki.example/disk?id=1")),
        ("https://git.example/team/docs.git", GitPlace("https://git.example/team/docs.git")),
        ("git+https://git.example/team/docs#main", GitPlace("https://git.example/team/docs", "main")),
        ("https://github.com/team/docs", GitPlace("https://github.com/team/docs")),
        ("https://github.com/team/docs/blob/main/x.md", WebPlace("https://github.com/team/docs/blob/main/x.md")),
        ("git@git.example:team/docs#v1:ops/runbooks", GitPlace("git@git.example:team/docs", "v1", "ops/runbooks")),
        ("ssh://git@git.example:2222/docs", GitPlace("ssh://git@git.example:2222/docs")),
        ("file:///srv/docs.git", GitPlace("file:///srv/docs.git")),
    ],
)
def test_paths_are_told_apart(argument: str, place: object) -> None:
    assert place_of(argument) == place


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (" ", "an empty PATH"),
        ("https://user:secret@git.example/x.git", "keep passwords and tokens out of URLs"),
        ("https://token@git.example/x.git", "keep passwords and tokens out of URLs"),
        ("ftp://example.com/x", "write an http"),
        ("http://", "write an http"),
        ("http://[::1/", "no URL that can be read"),
        ("http://public.example\\@127.0.0.1/x", "no URL that can be read"),
        ("git@git.example:x#--upload-pack=evil", "write #BRANCH"),
        ("file:///srv/x#main:../../etc", "write #BRANCH"),
    ],
)
def test_paths_that_mean_nothing_are_refused(argument: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        place_of(argument)
    assert "secret" not in str(error.value)
    assert "token@" not in str(error.value)


@pytest.mark.parametrize("argument", ["ext::sh -c touch% ran", "--upload-pack=touch ran", "-x"])
def test_words_that_git_would_run_are_only_folders(argument: str) -> None:
    with pytest.raises(PermanentError, match="no such file or folder"):
        source_of(argument, allow_hosts=())
