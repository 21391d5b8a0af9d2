"""``kb search`` and ``kb eval`` from the outside: what they print, and what they do with bad input."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bot.__main__ import main
from bot.kb_search import EvalKit, eval_command, search_command
from knowledge_base.adapters.memory_store import MemoryDocuments, MemoryVectors
from knowledge_base.ingest import ingest_folder
from knowledge_base.retrieval import Retrieval
from knowledge_base.stored import FloatArray
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.knowledge import Found, KnowledgeQuery

DOCUMENTS = {
    "disk/DiskFull.md": "# DiskFull\n\n## Meaning\n\nA volume has no space left.",
    "NodeDown.md": "# NodeDown\n\n## Meaning\n\nA machine does not answer.",
    "page.html": "<html><body><h1>Certificate expiry</h1><p>Renew the certificate.</p></body></html>",
}


class HashedWords:
    name = "hashed"

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(word.encode()) % 64] += 1.0
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class Away:
    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        raise TemporaryError("database away")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name, text in DOCUMENTS.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "docs"


def kit(embedder: HashedWords | None = None) -> EvalKit:
    documents = MemoryDocuments()
    return EvalKit(documents, MemoryVectors(documents), embedder)


def queries(folder: Path, *rows: object) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("embedder", [HashedWords(), None])
async def test_an_evaluation_prints_its_figures(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], embedder: HashedWords | None
) -> None:
    asked = queries(
        tmp_path,
        {"id": "1", "query": "volume has no space left", "relevant": ["DiskFull.md"], "kind": "alert"},
        {"id": "2", "query": "certificate must be renewed", "relevant": ["page"], "kind": "symptom"},
        {"id": "3", "query": "pager went off", "relevant": ["NodeDown.md"], "alert": "node_down", "kind": "alert"},
        {"id": "4", "query": "zebra quagga", "relevant": [], "kind": "none"},
        {"id": "5", "query": "a machine does not answer", "relevant": ["nowhere.md"]},
        "no json",
    )
    assert await eval_command(docs, asked, kit(embedder), as_json=True) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["documents"], told["queries"]) == (3, 4)
    assert told["by_kind"]["alert"]["recall@1"] == told["by_kind"]["symptom"]["ndcg@10"] == 1.0
    assert told["novelty"]["recognised"] == 1.0
    assert told["misses"] == [{"id": "5", "relevant": ["nowhere.md"], "found": told["misses"][0]["found"]}]
    assert told["mode"].startswith("meaning and words" if embedder else "words alone")
    assert told["index_s"] >= 0 <= told["query_ms"]["p50"] <= told["query_ms"]["p95"]
    assert "line 6: not JSON" in err
    assert "query 5: no document is called nowhere.md" in err

    assert await eval_command(docs, asked, kit(embedder), as_json=False) == 0
    assert "100.0% of 1 queries without an answer recognised" in capsys.readouterr().out


async def test_an_evaluation_of_nothing_is_refused(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await eval_command(docs, queries(tmp_path, "no json"), kit(), as_json=True) == 2
    assert "holds no query" in capsys.readouterr().err
    assert await eval_command(docs, tmp_path / "none.jsonl", kit(), as_json=True) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe")
    assert await eval_command(docs, tmp_path / "latin.jsonl", kit(), as_json=True) == 2
    assert "not UTF-8" in capsys.readouterr().err
    good = queries(tmp_path, {"id": "1", "query": "x", "relevant": []})
    assert await eval_command(tmp_path / "nowhere", good, kit(), as_json=True) == 2
    assert "no such file or folder" in capsys.readouterr().err


async def test_an_evaluation_of_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    asked = queries(tmp_path, {"id": "1", "query": "disk full", "relevant": ["DiskFull.md"]})
    assert await eval_command(tmp_path / "docs", asked, kit(), as_json=True) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"sre-bot: --docs {tmp_path / 'docs'}: no documents there, nothing can be asked\n")


class NoCrossEncoder:
    name = "none"

    async def logits(self, query: str, texts: Sequence[str]) -> FloatArray:
        raise PermanentError("no weights")


async def test_a_missing_cross_encoder_does_not_make_it_a_search_by_words(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = queries(tmp_path, {"id": "1", "query": "volume has no space left", "relevant": ["DiskFull.md"]})
    parts = replace(kit(HashedWords()), reranker=NoCrossEncoder())
    assert await eval_command(docs, asked, parts, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "meaning and words: not reranked: no weights"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", " "], "sre-bot: an empty TEXT: write what to look for, or name an --alert\n"),
        (["search", "disk", "-k", "0"], "Invalid value for '-k': 0 is not in the range x>=1."),
        (["search", "disk", "-k", "-3"], "Invalid value for '-k': -3 is not in the range x>=1."),
    ],
)
def test_a_search_for_nothing_is_refused(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["kb", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_the_help_says_that_services_and_platforms_are_a_filter() -> None:
    told = " ".join(CliRunner().invoke(main, ["kb", "search", "--help"]).output.split())
    assert "Only documents about this service, or about any." in told
    assert "Only those for this platform, or for any." in told


async def test_services_and_platforms_are_a_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = MemoryDocuments()
    (tmp_path / "own.md").write_text("---\nservices: checkout\nplatform: aws_ecs\n---\n# Disk\n\nA volume is full.")
    await ingest_folder(tmp_path, documents)
    search = Retrieval(documents)

    async def found(services: tuple[str, ...] = (), platform: str = "") -> str:
        query = KnowledgeQuery("volume is full", services=services, platform=platform)
        assert await search_command(search, query, limit=3, as_json=False) == 0
        return capsys.readouterr().out

    assert "own.md" in await found()
    assert "own.md" in await found(("checkout",), "aws_ecs")
    nothing = "for what --service and --platform name"
    assert nothing in await found(("nosuch",))
    assert nothing in await found((), "kubernetes")
    (tmp_path / "any.md").write_text("# Disk\n\nA volume is full.")
    await ingest_folder(tmp_path, documents)
    assert "any.md" in await found(("nosuch",), "kubernetes")


async def test_a_search_prints_passages_and_says_what_is_new(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = MemoryDocuments()
    await ingest_folder(docs, documents)
    search = Retrieval(documents)
    assert await search_command(search, KnowledgeQuery("DiskFull on web-1"), limit=2, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    first = told["passages"][0]
    assert (first["document"], first["method"], told["method"], told["novel"]) == (
        "disk/DiskFull.md",
        "alert",
        "alert",
        False,
    )
    assert first["text"] == "A volume has no space left."
    assert told["latency_ms"]["total"] > 0

    strange = KnowledgeQuery("zebra quagga okapi gnu lemur answers")
    assert await search_command(search, strange, limit=2, as_json=False) == 0
    assert capsys.readouterr().out.startswith("Nothing known is like this; the nearest there is:\n 1. ")
    assert await search_command(search, KnowledgeQuery("zebra"), limit=2, as_json=False) == 0
    assert "shares a word" in capsys.readouterr().out
    assert await search_command(Away(), KnowledgeQuery("disk"), limit=2, as_json=False) == 1
    assert capsys.readouterr().err == "sre-bot: database away\n"
