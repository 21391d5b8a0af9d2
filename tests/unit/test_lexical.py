"""Ranking by words, and words that mean the same."""

import pytest

from knowledge_base.lexical import THESAURUS, LexicalIndex, spaced, terms


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


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("KubePodNotReady", "Kube Pod Not Ready"),
        ("etcdHighFsyncDurations", "etcd High Fsync Durations"),
        ("HTTPErrorRate", "HTTP Error Rate"),
        ("disk_full", "disk full"),
        ("TLS certificate about to expire", "TLS certificate about to expire"),
    ],
)
def test_identifiers_are_spaced(identifier: str, words: str) -> None:
    assert spaced(identifier) == words


def test_rare_words_weigh_more_and_unshared_texts_get_nothing() -> None:
    index = LexicalIndex(
        [("", "disk disk disk full of logs"), ("", "heap of a pod grows"), ("", "heap leak in checkout")]
    )
    found = index.coverage("heap leak")
    assert found.keys() == {1, 2}
    assert found[2].text > found[1].text > 0


def test_a_title_counts_more_than_a_body() -> None:
    index = LexicalIndex([("certificate", "gadget text here"), ("gadget", "certificate text here")])
    found = index.coverage("certificate")
    assert found[0].text > found[1].text > 0
    assert (found[0].title, found[1].title) == (1.0, 0.0)


def test_a_title_is_covered_by_the_share_of_its_words() -> None:
    index = LexicalIndex([("gizmo widget", "x"), ("flange", "x"), ("rotor", "x")])
    assert index.coverage("the gizmo broke")[0].title == pytest.approx(0.5)


def test_coverage_is_the_same_for_a_short_query_and_a_long_one() -> None:
    index = LexicalIndex([("", "gizmo widget sprocket"), ("", "flange gasket rotor"), ("", "plain other text")])
    short, long = index.coverage("gizmo")[0], index.coverage("gizmo widget sprocket")[0]
    assert short.text == pytest.approx(long.text)


def test_words_that_no_document_holds_lower_the_coverage() -> None:
    index = LexicalIndex([("", "gizmo"), ("", "widget")])
    assert index.coverage("gizmo zebra quagga")[0].text < index.coverage("gizmo")[0].text
    assert index.coverage("zebra") == {}
    assert LexicalIndex([]).coverage("gizmo") == {}


def test_other_words_for_the_same_meet() -> None:
    index = LexicalIndex([("", "the PVC has no free space"), ("", "certificate renewal")])
    assert index.coverage("persistent volume is filling up").keys() == {0}


def test_a_query_is_expanded_by_usual_names_it_does_not_hold() -> None:
    assert THESAURUS.expanded("RAM of the worker") == "RAM of the worker (memory, node)"
    assert THESAURUS.expanded("memory of the node") == "memory of the node"
    assert THESAURUS.expanded("zebra") == "zebra"
