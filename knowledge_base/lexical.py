"""Ranking by words: BM25 over chunks, with identifiers taken apart. The fallback when nothing can be embedded."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

K1 = 1.2
B = 0.75
"""Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009): the usual values."""

_WORD = re.compile(r"[A-Za-z0-9]+(?:[_.\-/:][A-Za-z0-9]+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can do does for from had has have if in into is it its of on or than that "
        "the their them then there these they this to was were when which while will with you your",
    )
)


def terms(text: str) -> list[str]:
    """Words in lower case without endings; an identifier gives itself and its parts: ``KubePodOOM``, kube, pod, oom."""
    found: list[str] = []
    for word in _WORD.findall(text):
        parts = [_stem(part.lower()) for part in _PART.findall(word)]
        found.extend(part for part in parts if part not in _STOP and not _is_figure(part))
        if len(parts) > 1:
            found.append(word.lower())
    return found


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


class LexicalIndex:
    """BM25 over a fixed list of texts. Built once for a state of the knowledge base; then only read."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(terms(text)) for text in texts]
        self._lengths = [sum(counts.values()) for counts in counted]
        self._mean_length = sum(self._lengths) / len(texts) if texts else 0.0
        self._postings: dict[str, list[tuple[int, int]]] = {}
        for number, counts in enumerate(counted):
            for term, times in counts.items():
                self._postings.setdefault(term, []).append((number, times))

    def rank(self, query: str, limit: int) -> list[tuple[int, float]]:
        """The best texts as (position, score), best first; texts that share no word with the query are left out.

        ``score`` = min(1, BM25(text) / Σ idf(t) over the query's words): 1 is what a text of average length that holds
        every word of the query once would get. Words that no text holds count with the mean idf of the others.
        """
        wanted = list(dict.fromkeys(terms(query)))
        known = {term: self._idf(term) for term in wanted if term in self._postings}
        if not known:
            return []
        reference = sum(known.values()) * len(wanted) / len(known)
        raw: dict[int, float] = {}
        for term, idf in known.items():
            for number, times in self._postings[term]:
                norm = K1 * (1 - B + B * self._lengths[number] / self._mean_length)
                raw[number] = raw.get(number, 0.0) + idf * times * (K1 + 1) / (times + norm)
        best = sorted(raw.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return [(number, min(1.0, score / reference)) for number, score in best]

    def _idf(self, term: str) -> float:
        holding = len(self._postings[term])
        return math.log(1 + (len(self._lengths) - holding + 0.5) / (holding + 0.5))
