"""Figures of retrieval: what is read, what counts as found, what is computed."""

import json

import pytest

from knowledge_base.evaluate import EvalQuery, FileNames, Outcome, figures, read_queries, unknown_names

NAMES = FileNames(["a/disk.md", "b/disk.md", "b/memory.html", "c/cpu.md"])


def outcome(relevant: list[str], found: list[str], *, novel: bool = False, kind: str | None = None) -> Outcome:
    return Outcome(EvalQuery(id="q", query="x", relevant=tuple(relevant), kind=kind), tuple(found), novel, 10.0)


def test_lines_that_are_no_queries_are_named_one_by_one() -> None:
    lines = [
        '{"id": 7, "query": "x", "relevant": ["a.md"], "more": 1}',
        "",
        "not json",
        '{"id": "b", "relevant": []}',
        '{"id": "c", "query": "", "relevant": []}',
        '{"id": "7", "query": "again", "relevant": []}',
        '["a list"]',
        '{"id": "d", "query": "x", "relevant": [], "alert": "A", "services": "s", "platform": null, "kind": "k"}',
    ]
    queries, errors = read_queries(lines)
    assert [query.id for query in queries] == ["7", "d"]
    assert (queries[1].alert, queries[1].services) == (("A",), ("s",))
    assert [error.partition(":")[0] for error in errors] == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    form = 'write {"id": …, "query": …, "relevant": [file names]}'
    assert errors[1:3] == [f"line 4: query is missing: {form}", "line 5: query is empty"]
    assert errors[4] == f"line 7: no object: {form}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "query": "x", "relevant": "disk.md"}', "relevant must be a list of file names"),
        (
            '{"id": "a", "query": "x", "relevant": [1]}',
            "relevant must be a list of file names, and each of them a text",
        ),
        ('{"id": "a", "query": ["x"], "relevant": []}', "query must be a text"),
        ('{"id": "a", "query": "x", "relevant": [], "services": 5}', "services must be a text or a list of texts"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_plain_words(line: str, said: str) -> None:
    assert read_queries([line]) == ([], [f"line 1: {said}"])


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("b/memory.html", {"b/memory.html"}),
        ("memory.html", {"b/memory.html"}),
        ("Memory", {"b/memory.html"}),
        ("docs/b/memory", {"b/memory.html"}),
        ("./c/cpu.md", {"c/cpu.md"}),
        ("memory.md", {"b/memory.html"}),
        ("disk.md", {"a/disk.md", "b/disk.md"}),
        ("a/disk", {"a/disk.md"}),
        ("network.md", set()),
    ],
)
def test_files_by_what_people_call_them(name: str, paths: set[str]) -> None:
    assert NAMES.paths(name) == paths


def test_relevant_files_that_are_not_there_are_named() -> None:
    query = EvalQuery(id="q1", query="x", relevant=("cpu", "network.md"))
    assert unknown_names([query], NAMES) == ["query q1: no document is called network.md"]


def test_the_figures_by_hand() -> None:
    told = figures(
        [
            outcome(["cpu"], ["c/cpu.md"], kind="first"),
            outcome(["cpu"], ["a/disk.md", "c/cpu.md"], kind="second"),
            outcome(["cpu", "memory"], ["c/cpu.md", "a/disk.md", "b/memory.html"], kind="second"),
            outcome(["cpu"], [], novel=True, kind="second"),
        ],
        NAMES,
    )
    assert (told["recall@1"], told["recall@3"], told["mrr@10"]) == (0.5, 0.75, 0.625)
    # 1, 1/log2(3), (1 + 1/log2(4)) / (1 + 1/log2(3)) and 0
    assert told["ndcg@10"] == pytest.approx((1 + 0.6309 + 1.5 / 1.6309 + 0) / 4, abs=1e-4)
    kinds = json.loads(json.dumps(told["by_kind"]))
    assert (kinds["first"]["ndcg@10"], kinds["second"]["queries"]) == (1.0, 3)
    assert "novelty" not in told


def test_a_document_counts_once_and_any_of_the_same_name_counts() -> None:
    told = figures([outcome(["disk.md"], ["b/disk.md", "a/disk.md"])], NAMES)
    assert (told["recall@1"], told["recall@10"], told["ndcg@10"]) == (1.0, 1.0, 1.0)


def test_queries_without_an_answer_count_for_novelty_alone() -> None:
    told = figures(
        [
            outcome([], ["c/cpu.md"], novel=True),
            outcome([], ["c/cpu.md"]),
            outcome(["cpu"], ["c/cpu.md"]),
            outcome(["cpu"], ["c/cpu.md"], novel=True),
        ],
        NAMES,
    )
    assert (told["queries"], told["recall@1"]) == (2, 1.0)
    assert told["novelty"] == {"unanswerable": 2, "recognised": 0.5, "wrongly_given_up": 0.5}
    alone = figures([outcome([], [], novel=True)], NAMES)
    assert (alone["recall@1"], alone["novelty"]) == (
        None,
        {"unanswerable": 1, "recognised": 1.0, "wrongly_given_up": None},
    )
    assert figures([], NAMES)["query_ms"] == {"p50": None, "p95": None}
