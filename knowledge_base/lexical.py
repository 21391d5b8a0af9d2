"""Ranking documents by words: BM25 over titles and bodies, with identifiers taken apart and synonyms brought together.

Ours, and small: of the libraries, none weighs fields, and what decides is the words that go in (``make bench``,
retrieval, shows it beside plain BM25).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from knowledge_base.thesaurus import Thesaurus

K1 = 1.2
B_TITLE, B_BODY = 0.5, 0.75
TITLE_WEIGHT = 2.0
"""BM25F: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), usual values; what
ranks well does not depend on them (k1 0.8 to 1.6, b 0.4 to 0.9, title 1 to 5 differ by less than 0.01 nDCG)."""
UNKNOWN_WEIGHT = 0.5
"""Part of the mean weight that a word of the query gets which no document holds."""

_WORD = re.compile(r"[A-Za-z0-9]+(?:[_.\-/:][A-Za-z0-9]+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can do does for from had has have if in into is it its of on or than that "
        "the their them then there these they this to was were when which while will with you your",
    )
)

Array = npt.NDArray[np.float64]


class WordFit(NamedTuple):
    """How far a document fits a query by its words: ``text``, 0 to about 2, and ``title``, 0..1."""

    text: float
    title: float


NO_WORDS = WordFit(0.0, 0.0)


def terms(text: str) -> list[str]:
    """Words in lower case without endings; an identifier gives itself and its parts: ``KubePodOOM``, kube, pod, oom."""
    found: list[str] = []
    for word in _WORD.findall(text):
        parts = [_stem(part.lower()) for part in _PART.findall(word)]
        found.extend(part for part in parts if part not in _STOP and not _is_figure(part))
        if len(parts) > 1:
            found.append(word.lower())
    return found


def spaced(identifier: str) -> str:
    """``KubePodNotReady`` and ``kube_pod_not_ready`` as words; other text as it is."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", identifier.replace("_", " "))


def _is_figure(part: str) -> bool:
    """``93`` or ``1``: a measured value, or a replica's number, says nothing of the matter; ``137`` and ``503`` do."""
    return part.isdecimal() and len(part) < 3


def _stem(word: str) -> str:
    """Drops the commonest English endings, so that ``growing``, ``grows`` and ``grow`` meet."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            stem = word.removesuffix(ending)
            doubled = ending in ("ing", "ed") and stem[-1] == stem[-2] and stem[-1] not in "ls"
            return stem[:-1] if doubled else stem.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


THESAURUS = Thesaurus(terms)


class LexicalIndex:
    """BM25F over a fixed list of documents, each ``(title, body)``. Built once for a state of the knowledge base."""

    def __init__(self, documents: Iterable[tuple[str, str]]) -> None:
        titles, bodies = [], []
        for title, body in documents:
            titles.append(terms(title))
            bodies.append(terms(body))
        self._size = len(titles)
        self._words = _Postings(titles, bodies)
        self._titles = _Titles([[*dict.fromkeys(title)] for title in titles], self._words)
        concepts = THESAURUS.concepts
        self._concepts = _Postings([concepts(title) for title in titles], [concepts(body) for body in bodies])

    def coverage(self, query: str) -> dict[int, WordFit]:
        """By the document's position in the list; documents that share no word with ``query`` are left out.

        ``text``: BM25F of the query's words and concepts over the sum of their weights: about 1 when a document of
        average length holds each of them once; unlike a plain BM25 score it means the same for a short query and a
        long one. ``title``: the share, by weight, of the title's words that the query has.
        """
        wanted = dict.fromkeys(terms(query))
        scores = np.zeros(self._size)
        weight = self._words.add(wanted, scores)
        weight += self._concepts.add(dict.fromkeys(THESAURUS.concepts(terms(query))), scores)
        titled = self._titles.covered(wanted)
        return {
            int(number): WordFit(float(scores[number] / weight), float(titled[number]))
            for number in np.flatnonzero(scores)
        }


class _Postings:
    """What each term adds to each document."""

    def __init__(self, titles: Sequence[Sequence[str]], bodies: Sequence[Sequence[str]]) -> None:
        counts: dict[str, dict[int, float]] = {}
        for field, weight, b in ((titles, TITLE_WEIGHT, B_TITLE), (bodies, 1.0, B_BODY)):
            mean = sum(map(len, field)) / max(len(field), 1) or 1.0
            for number, found in enumerate(field):
                norm = 1 - b + b * len(found) / mean
                for term, count in Counter(found).items():
                    held = counts.setdefault(term, {})
                    held[number] = held.get(number, 0.0) + weight * count / norm
        self._size = len(titles)
        self._held: dict[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = {}
        for term, held in counts.items():
            times = np.fromiter(held.values(), dtype=np.float32, count=len(held))
            numbers = np.fromiter(held, dtype=np.int32, count=len(held))
            saturated: npt.NDArray[np.float32] = times * np.float32(K1 + 1) / (times + np.float32(K1))
            self._held[term] = (numbers, saturated)

    def idf(self, holding: int) -> float:
        """The weight of a term that so many documents hold."""
        return math.log(1 + (self._size - holding + 0.5) / (holding + 0.5))

    def weight(self, term: str) -> float:
        """That of ``term``; 0 when no document holds it."""
        held = self._held.get(term)
        return 0.0 if held is None else self.idf(len(held[0]))

    def add(self, query: Iterable[str], scores: Array) -> float:
        """Adds the query's BM25 to ``scores``, and tells the sum of the weights of its terms."""
        known, unknown = [], 0
        for term in query:
            held = self._held.get(term)
            if held is None:
                unknown += 1
                continue
            idf = self.idf(len(held[0]))
            scores[held[0]] += idf * held[1]
            known.append(idf)
        return sum(known) + UNKNOWN_WEIGHT * unknown * sum(known) / len(known) if known else 0.0


class _Titles:
    """How much of each title a query says."""

    def __init__(self, titles: Sequence[Sequence[str]], words: _Postings) -> None:
        self._weight = words.weight
        self._totals = np.zeros(len(titles))
        held: dict[str, list[int]] = {}
        for number, title in enumerate(titles):
            for term in title:
                held.setdefault(term, []).append(number)
                self._totals[number] += words.weight(term)
        self._held = {term: np.array(numbers, dtype=np.int32) for term, numbers in held.items()}

    def covered(self, query: Iterable[str]) -> Array:
        """For each document, 0..1."""
        covered = np.zeros(len(self._totals))
        for term in query:
            if term in self._held:
                covered[self._held[term]] += self._weight(term)
        return covered / np.maximum(self._totals, 1e-9)
