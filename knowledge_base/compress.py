"""Making a context fit its budget: whole lines are chosen, none is changed, and what was left out is said. Pure.

A line counts by the words it shares with the evidence (BM25 weights over the lines at hand), by signals of trouble
(OOM, exit codes, percentiles, error words, negations), and less for each line like it that is kept already (after
Carbonell and Goldstein, "The Use of MMR", 1998: here by words not covered yet, which needs no comparison in pairs).
Headings stay with their lines. Every piece of evidence keeps its best line before any gets a second one.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from operator import itemgetter

from knowledge_base.wording import changed

CHARS_PER_TOKEN = 3
"""Low for prose, right for logs and metric names: an estimate that is rather too high."""
SIGNAL_SHARE = 0.8
"""What the signals of a line may add, against 1 for the words it shares with the evidence."""
OPENING = 0.15
"""For the first line of an item, which often says what it is."""
REPEATED = 0.25
"""What a line is worth beside one that differs from it in figures only."""
COVERED = 0.35
"""What a word is worth once a line that is kept has it."""
LENGTH_B = 0.5
SHORT_LINE = 4
"""Words; a shorter line is measured as one of this length, or bare brackets and rules would come first."""
MARKER_TOKENS = 9
MIN_PROSE_CHARS = 80
"""Less is not worth a model's while."""
WORDS_MARKER = "[… words left out of sentences]"

Shorten = Callable[[str, float], str]
"""Drops words of a text; the second argument is the share that should stay. Where it cannot, it gives the text back."""

_WORD = re.compile(r"[a-z]+\d+|[a-z]{2,}|\d{3,}")
"""A figure of one or two digits says nothing of the matter; ``p99`` and ``137`` do."""
_TELLING_FIGURES = ("137", "139", "143", "429", "50[0-4]", "50", "9[059]", "999")
_FIGURES = re.compile(rf"(?<!\d)(?!(?:{'|'.join(_TELLING_FIGURES)})(?![0-9a-f]))\d[0-9a-f]*")
"""What tells one line from another like it: figures and ids, but for those that say something."""
_HEADING = re.compile(r"#{1,6}\s+\S")
_NO_PROSE = re.compile(
    r"\s*$|#{1,6}\s|\s{4}|\t|\s*[|{}<$>\[]|\s*\d{4}-\d\d-\d\d|\s*\d\d:\d\d|\s*[\w.\"-]+\s*[:=]\s*\S+$|\s*`[^`]+`\s*$"
    r"|.*\b(?:INFO|DEBUG|WARN|WARNING|ERROR|FATAL|level=\w+)\b"
)
"""Empty, heading, indented, table or markup, log line, key and value, or a command by itself."""
_DOCUMENT = re.compile(r"K\d+")
_STOP = frozenset(
    re.findall(
        r"\w+", "a an and are as at be by can for from has have in is it its of on or that the then this to was you"
    )
)
_SIGNALS = {
    **dict.fromkeys(
        re.findall(r"\S+", "oom oomkilled oomkill killed kill sigkill sigterm sigsegv evicted panic fatal"), 0.5
    ),
    **dict.fromkeys(re.findall(r"\S+", "137 139 143 crashloopbackoff backoff imagepullbackoff deadlock corrupt"), 0.45),
    **dict.fromkeys(
        re.findall(r"\S+", "error errors exception failed failure failing fail timeout refused denied"), 0.35
    ),
    **dict.fromkeys(
        re.findall(r"\S+", "expired expires exhausted full throttled unreachable unavailable rejected"), 0.35
    ),
    **dict.fromkeys(re.findall(r"\S+", "p50 p90 p95 p99 p999 429 500 502 503 504 exit exceeded saturated leak"), 0.3),
    **dict.fromkeys(
        re.findall(r"\S+", "not no never without cannot unable none rollback reverted deployed restart"), 0.2
    ),
    **dict.fromkeys(re.findall(r"\S+", "warn warning critical limit latency memory disk ms mib gib mb gb"), 0.15),
}


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of context. ``citable``: quoted by its id, so only whole lines of it may be shown."""

    id: str
    text: str
    citable: bool = True


def tokens(text: str) -> int:
    """An estimate that needs no tokenizer."""
    return len(text) // CHARS_PER_TOKEN + 1


def compress(items: Sequence[Item], budget_tokens: int, *, shorten: Shorten | None = None) -> list[str]:
    """As much of each text as fits, in the order of ``items``; empty where nothing is left.

    Where lines are left out inside an item a marker line says so. The citable items say what matters in the others.
    ``shorten`` is tried on the prose of items that are not citable, and its result taken only when every identifier,
    number and negation is still there; a line says so. Each item counts one token more than its text, for what is put
    around it.
    """
    total = sum(tokens(item.text) for item in items)
    if total <= budget_tokens:
        return [item.text for item in items]
    shorter = list(items)
    if shorten is not None:
        share = budget_tokens / total
        shorter = [
            item if item.citable else replace(item, text=_shortened(item.text, share, shorten)) for item in items
        ]
    heads = [f"{WORDS_MARKER}\n" * (less.text != item.text) for less, item in zip(shorter, items, strict=True)]
    texts = [item.text for item in shorter]
    left = budget_tokens - sum(tokens(head) for head in heads if head)
    if sum(map(tokens, texts)) > left:
        choice = _Choice(shorter)
        choice.take(left)
        texts = choice.texts()
    return [f"{head}{text}" if text else "" for head, text in zip(heads, texts, strict=True)]


def fit(
    pairs: Sequence[tuple[str, str]], budget_tokens: int, *, shorten: Shorten | None = None
) -> Sequence[tuple[str, str]]:
    """``compress`` for (id, text) pairs: ``K1``, ``K2``, … are documents, all else is evidence. Empty ones go."""
    items = [Item(name, text, citable=_DOCUMENT.fullmatch(name) is None) for name, text in pairs]
    texts = compress(items, budget_tokens, shorten=shorten)
    return [(item.id, text) for item, text in zip(items, texts, strict=True) if text]


def marker(lines: int) -> str:
    """Stands where lines are left out."""
    return f"[… {lines} {'line' if lines == 1 else 'lines'} left out]"


def _shortened(text: str, share: float, shorten: Shorten) -> str:
    """Prose alone: commands, logs, tables, lists of values and headings stay as they are, line for line."""
    parts = []
    for is_prose, lines in groupby(_told(text), key=itemgetter(0)):
        part = "\n".join(line for _, line in lines)
        shorter = shorten(part, share) if is_prose and len(part) >= MIN_PROSE_CHARS else part
        parts.append(shorter if len(shorter) < len(part) and not changed(part, shorter) else part)
    done = "\n".join(parts)
    return done if len(done) + len(WORDS_MARKER) < len(text) else text


def _told(text: str) -> Iterator[tuple[bool, str]]:
    """Each line, and whether it is prose."""
    fenced = False
    for line in text.split("\n"):
        fence = line.lstrip().startswith(("```", "~~~"))
        yield not (fenced or fence or _NO_PROSE.match(line)), line
        fenced = fenced is not fence


@dataclass(slots=True)
class _Shape:
    """What lines that differ in figures only have in common."""

    words: frozenset[str]
    lines: int = 0
    mass: float = 1.0
    """Weight of all its words."""
    value: float = 0.0
    seen: bool = False
    """One of them is kept."""


@dataclass(slots=True)
class _Line:
    item: int
    number: int
    text: str
    shape: _Shape
    heading: int | None
    """The line, counted over all items, under which this one stands."""
    base: float = 0.0
    kept: bool = False


class _Choice:
    """The lines of all items and which of them stay."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        sources = [item.text for item in items]
        self._shapes: dict[str, _Shape] = {}
        self._lines = list(self._split(sources))
        self._counts = [source.count("\n") + 1 for source in sources]
        found: dict[str, int] = {}
        for shape in self._shapes.values():
            for word in shape.words:
                found[word] = found.get(word, 0) + shape.lines
        total = len(self._lines)
        by_count = {count: math.log(1 + (total - count + 0.5) / (count + 0.5)) for count in set(found.values())}
        self._weights = {word: by_count[count] for word, count in found.items()}
        self._covered: set[str] = set()
        self._rate(self._evident() - _STOP)

    def take(self, budget_tokens: int) -> None:
        """Marks what stays. A line is paid with its heading and the marker that may come before it."""
        # One marker after the last kept line of each item, and the token an item's text counts more than its lines.
        left = budget_tokens - sum(MARKER_TOKENS + 1 for _ in self._items)
        firsts = self._best_of_each()
        for number in firsts:
            left -= self._pay(number, left)
        # What a line is worth only falls while others are kept: the last known value is good enough to queue by.
        queue = [(-line.base, number) for number, line in enumerate(self._lines) if line.base > 0 and not line.kept]
        heapq.heapify(queue)
        while queue and left > MARKER_TOKENS:
            number = queue[0][1]
            if self._lines[number].kept:
                heapq.heappop(queue)
                continue
            worth = self._worth(number)
            if worth < -queue[0][0]:
                heapq.heapreplace(queue, (-worth, number))
                continue
            heapq.heappop(queue)
            left -= self._pay(number, left)

    def texts(self) -> list[str]:
        """The text of each item with its markers."""
        kept: list[list[_Line]] = [[] for _ in self._items]
        for line in self._lines:
            if line.kept:
                kept[line.item].append(line)
        texts = []
        for lines, count in zip(kept, self._counts, strict=True):
            parts: list[str] = []
            place = 0
            for line in lines:
                if line.number > place:
                    parts.append(marker(line.number - place))
                parts.append(line.text)
                place = line.number + 1
            if parts and place < count:
                parts.append(marker(count - place))
            texts.append("\n".join(parts))
        return texts

    def _split(self, sources: Sequence[str]) -> Iterator[_Line]:
        place = 0
        for item, source in enumerate(sources):
            heading: int | None = None
            fenced = False
            for number, text in enumerate(source.split("\n")):
                form = _FIGURES.sub("0", text.lower()).strip()
                shape = self._shapes.get(form)
                if shape is None:
                    shape = self._shapes[form] = _Shape(frozenset(_WORD.findall(form)))
                shape.lines += 1
                if form.startswith(("```", "~~~")):
                    fenced = not fenced
                if not fenced and text.startswith("#") and _HEADING.match(text):
                    yield _Line(item, number, text, shape, None)
                    heading = place
                else:
                    yield _Line(item, number, text, shape, heading)
                place += 1

    def _evident(self) -> frozenset[str]:
        return frozenset(
            chain.from_iterable([line.shape.words for line in self._lines if self._items[line.item].citable])
        )

    def _rate(self, wanted: frozenset[str]) -> None:
        weights, shapes = self._weights, list(self._shapes.values())
        mean = max(sum([len(shape.words) * shape.lines for shape in shapes]) / len(self._lines), 1.0)
        for shape in shapes:
            length = max(len(shape.words), SHORT_LINE) / mean
            of_interest = sum([weights[word] for word in shape.words & wanted])
            shape.value = of_interest / (1 - LENGTH_B + LENGTH_B * length)
        top = max([shape.value for shape in shapes]) or 1.0
        for shape in shapes:
            if shape.words:
                signals = sum([_SIGNALS[word] for word in shape.words & _SIGNALS.keys()])
                shape.value = shape.value / top + min(signals, SIGNAL_SHARE)
                shape.mass = sum([weights[word] for word in shape.words])
        for line in self._lines:
            if line.shape.words:
                opening = OPENING if line.number == 0 else 0.0
                line.base = line.shape.value + opening

    def _best_of_each(self) -> list[int]:
        best: dict[int, int] = {}
        for number, line in enumerate(self._lines):
            if self._items[line.item].citable and line.text.strip():
                held = best.get(line.item)
                if held is None or line.base > self._lines[held].base:
                    best[line.item] = number
        return sorted(best.values(), key=lambda number: -self._lines[number].base)

    def _worth(self, number: int) -> float:
        line = self._lines[number]
        shape = line.shape
        if shape.seen:
            return line.base * REPEATED
        weights = self._weights
        known = sum([weights[word] for word in shape.words & self._covered])
        return line.base * (1 - (1 - COVERED) * known / shape.mass)

    def _pay(self, number: int, left: int) -> int:
        """Keeps the line with its heading where ``left`` pays for them; gives back what they cost."""
        together = [number]
        heading = self._lines[number].heading
        if heading is not None and not self._lines[heading].kept:
            together.insert(0, heading)
        cost = sum(tokens(self._lines[each].text) + MARKER_TOKENS for each in together)
        if cost > left:
            return 0
        for each in together:
            line = self._lines[each]
            line.kept = True
            line.shape.seen = True
            self._covered |= line.shape.words
        return cost
