"""What of a document gets a vector, and one score from many."""

import pytest

from knowledge_base.fusion import TITLE_WEIGHT, WORDS_WEIGHT, fuse
from knowledge_base.lexical import WordFit
from knowledge_base.novelty import NOVEL_BELOW, relevance, sigmoid
from knowledge_base.pieces import PieceKind, pieces
from knowledge_base.stored import Hit


def test_pieces_of_a_document() -> None:
    found = list(
        pieces(
            "KubePodNotReady.md", "KubePodNotReady", ["One. Two is here.\nThree is here. Four is here.", "Run it now."]
        )
    )
    assert [(piece.kind, piece.chunk, piece.text) for piece in found] == [
        (PieceKind.OPENING, 0, "Kube Pod Not Ready: One. Two is here. Three is here. Four is here. Run it now."),
        (PieceKind.SECTION, 0, "Kube Pod Not Ready: One. Two is here.\nThree is here. Four is here."),
        (PieceKind.WINDOW, 0, "Kube Pod Not Ready: Two is here. Three is here."),
        (PieceKind.WINDOW, 0, "Kube Pod Not Ready: Four is here."),
        (PieceKind.SECTION, 1, "Kube Pod Not Ready: Run it now."),
    ]
    assert not list(pieces("empty.md", "Empty", []))


@pytest.mark.parametrize(
    ("path", "title", "start"),
    [
        ("runbooks/disk-full.md", "Disk full", "Disk full: "),
        ("runbooks/etcdNoLeader.md", "Runbook", "Runbook (etcd No Leader): "),
    ],
)
def test_the_files_name_helps_a_title_that_says_little(path: str, title: str, start: str) -> None:
    assert all(piece.text.startswith(start) for piece in pieces(path, title, ["Some text."]))


def test_the_same_text_twice_is_one_piece() -> None:
    found = [piece.kind for piece in pieces("a.md", "Gadget", ["Same text.", "Same text."])]
    assert found == [PieceKind.OPENING, PieceKind.SECTION]


def hit(document: int, kind: PieceKind, cosine: float, chunk: int = 0) -> Hit:
    return Hit(1, document, chunk, kind, cosine)


def test_the_score_is_the_mean_of_three_sizes_and_the_words() -> None:
    found = fuse(
        [
            hit(1, PieceKind.OPENING, 0.3, chunk=1),
            hit(1, PieceKind.SECTION, 0.6, chunk=1),
            hit(1, PieceKind.SECTION, 0.4, chunk=2),
            hit(1, PieceKind.SECTION, 0.1, chunk=3),
            hit(1, PieceKind.WINDOW, 0.9, chunk=2),
            hit(2, PieceKind.SECTION, 0.5, chunk=4),
        ],
        {1: WordFit(0.5, 0.4), 3: WordFit(0.9, 0.0)},
    )
    assert found.keys() == {1, 2}
    assert found[1].score == pytest.approx((0.5 + 0.9 + 0.3) / 3 + WORDS_WEIGHT * 0.5 + TITLE_WEIGHT * 0.4**2)
    assert (found[1].cosine, found[1].chunk_id) == (0.9, 2)
    assert found[2].score == pytest.approx(0.5)


def test_an_opening_ranks_a_document_and_not_its_chunks() -> None:
    (found,) = fuse([hit(1, PieceKind.OPENING, 0.9, chunk=1), hit(1, PieceKind.SECTION, 0.2, chunk=2)], {}).values()
    assert (found.chunk_id, found.cosine) == (2, 0.9)


@pytest.mark.parametrize("cosine", [None, 0.1, 0.5, 0.9])
def test_relevance_grows_with_the_score_within_one(cosine: float | None) -> None:
    scale = [relevance(score / 10, cosine) for score in range(16)]
    assert scale == sorted(scale)
    assert 0 <= scale[0] < scale[-1] <= 1


def test_a_fit_is_near_one_and_an_accident_near_zero() -> None:
    assert relevance(0.95, 0.75) > 0.9
    assert relevance(0.45, 0.40) < NOVEL_BELOW
    assert relevance(1.3, None) > 0.9
    assert relevance(0.2, None) < NOVEL_BELOW
    assert (sigmoid(-1e9), sigmoid(0.0), sigmoid(1e9)) == (0.0, 0.5, 1.0)
