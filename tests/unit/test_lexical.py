"""Ranking by words."""

import pytest

from knowledge_base.lexical import LexicalIndex, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KubePodOOMKilled", ["kub", "pod", "oom", "kill", "kubepodoomkilled"]),
        ("node_filesystem_avail_bytes", ["nod", "filesystem", "avail", "byt", "node_filesystem_avail_bytes"]),
        ("exit code 137", ["exit", "cod", "137"]),
        ("growing grows grow grew", ["grow", "grow", "grow", "grew"]),
        ("stopped stops", ["stop", "stop"]),
        ("the disk is full", ["disk", "full"]),
        ("p99 of checkout-1 at 93 %", ["p", "p99", "checkout", "checkout-1"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_rare_words_weigh_more_and_scores_stay_within_one() -> None:
    index = LexicalIndex(["disk disk disk full of logs", "memory of a pod grows", "memory leak in checkout"])
    ranked = index.rank("memory leak", 3)
    assert [position for position, _ in ranked] == [2, 1]
    assert 0 < ranked[1][1] < ranked[0][1] <= 1


def test_no_shared_word_finds_nothing() -> None:
    assert LexicalIndex(["disk full"]).rank("certificate", 3) == []
    assert LexicalIndex([]).rank("certificate", 3) == []


def test_words_that_no_text_holds_lower_the_score() -> None:
    index = LexicalIndex(["disk full", "memory leak"])
    assert index.rank("disk zebra quagga", 1)[0][1] < index.rank("disk", 1)[0][1]
