"""Log templates: lines of one statement of a program become one pattern. Streaming, deterministic, bounded memory.

A line is masked token by token (numbers, addresses, ids, paths: see `templates_masks`); equal masked lines are one
template. Where templates differ in one word only, and that place has shown enough different words, the place becomes
``<*>`` too and the templates become one: how many words are enough depends on what they look like, since host names
vary and states, verbs and switches do not.

The idea of a fixed number of tokens a group and of wildcards by place is Drain's (He et al., ICWS 2017); the masking
cache and the merge by variety are not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.domain.detection.templates_masks import MASK, mask_phrases, mask_token
from pipeline.domain.detection.templates_words import enough_words

MAX_TOKENS = 120
"""Tokens of a line that are looked at; what follows belongs to the same template."""
MAX_TOKEN_LENGTH = 400
"""A longer token is a payload, not a word, and becomes ``<*>`` as a whole."""
MAX_MERGED_TOKENS = 60
"""Longer templates are never merged by variety: their number of places makes it dear and of no use."""
_CACHED_TOKENS = 200_000
_CACHED_LINES = 100_000
_CACHED_LINE_LENGTH = 2_000
_CACHED_TOKEN_LENGTH = 200
_ZEROES = str.maketrans("123456789", "000000000")

Tokens = tuple[str, ...]
Hole = int
"""Stands for a place and the tokens with ``<*>`` put there: their hash, since the tokens themselves take much room."""


@dataclass(frozen=True, slots=True)
class TemplateMatch:
    """The template that a line belongs to. ``new``: this line is the first of it."""

    id: int
    template: str
    new: bool


class TemplateMiner:
    """Finds the templates of log messages as they come. Not for use from several threads.

    At most ``max_templates`` are kept; the one not seen for longest is forgotten first. Ids are never used again.
    Templates that turn out to be one are merged under the oldest id: `current` says what has become of an id.
    """

    def __init__(self, max_templates: int = 10_000) -> None:
        if max_templates < 1:
            raise ValueError(f"max_templates is {max_templates}: at least one template must be kept")
        self._max_templates = max_templates
        self._masked = _TokenMasks()
        self._lines: dict[str, TemplateMatch] = {}
        self._ids: dict[Tokens, int] = {}
        self._templates: OrderedDict[int, Tokens] = OrderedDict()
        self._merged_into: OrderedDict[int, int] = OrderedDict()
        self._words: dict[Hole, dict[str, int]] = {}
        self._open: dict[Hole, int] = {}
        self._next_id = 0
        self.merges = 0
        """How often templates have become one so far: while it stays, so does what `current` answers."""

    def __len__(self) -> int:
        """How many templates are kept."""
        return len(self._templates)

    def add(self, line: str) -> TemplateMatch:
        """The template of ``line``: a message, best without its timestamp and level. Never raises for any text."""
        masked = self._masked
        key = " ".join([masked[token] for token in line.split(None, MAX_TOKENS)[:MAX_TOKENS]])
        known = self._lines.get(key)
        if known is not None:
            self._templates.move_to_end(known.id)
            return known
        return self._unseen(key)

    def current(self, template_id: int) -> int:
        """The id under which the template ``template_id`` goes on; itself where it was never merged."""
        while template_id in self._merged_into:
            template_id = self._merged_into[template_id]
        return template_id

    def template(self, template_id: int) -> str | None:
        """The text of a template, by any id it ever had; None once it is forgotten."""
        tokens = self._templates.get(self.current(template_id))
        return None if tokens is None else " ".join(tokens)

    def _unseen(self, key: str) -> TemplateMatch:
        tokens = self._generalised(tuple(mask_phrases(key).split()))
        known = self._ids.get(tokens)
        if known is None:
            template_id = self._create(tokens)
        else:
            template_id = known
            self._templates.move_to_end(known)
        match = TemplateMatch(template_id, " ".join(self._templates[template_id]), new=False)
        if len(self._lines) >= _CACHED_LINES:
            self._lines.clear()
        if len(key) <= _CACHED_LINE_LENGTH:
            self._lines[key] = match
        return (
            match if known is not None else TemplateMatch(match.id, match.template, new=match.id == self._next_id - 1)
        )

    def _generalised(self, tokens: Tokens) -> Tokens:
        """The tokens with ``<*>`` where this kind of line is known to vary."""
        if not self._open or len(tokens) > MAX_MERGED_TOKENS:
            return tokens
        changed = True
        while changed:
            changed = False
            for place, token in enumerate(tokens):
                general = _with_hole(tokens, place)
                if token != MASK and hash((place, general)) in self._open:
                    tokens = general
                    changed = True
        return tokens

    def _create(self, tokens: Tokens) -> int:
        """A new template, or the one that it completes."""
        template_id = self._next_id
        self._next_id += 1
        self._put(template_id, tokens)
        merged = self._merge(template_id, tokens)
        while len(self._templates) > self._max_templates:
            self._forget(next(iter(self._templates)))
        return merged

    def _merge(self, template_id: int, tokens: Tokens) -> int:
        """Merges what differs from ``tokens`` in one place only, once that place has shown enough words."""
        if len(tokens) > MAX_MERGED_TOKENS:
            return template_id
        for place, token in enumerate(tokens):
            general = _with_hole(tokens, place)
            hole = hash((place, general))
            words = self._words.get(hole)
            if token != MASK:
                words = self._words.setdefault(hole, {})
                words[token] = template_id
            if words and enough_words(words, tokens, place, masked=general in self._ids):
                return self._merge_words(hole, general, sorted(words.values()))
        return template_id

    def _merge_words(self, hole: Hole, general: Tokens, ids: list[int]) -> int:
        self.merges += 1
        survivor = self._ids.get(general, ids[0])
        for other in ids:
            if other != survivor:
                self._merged_into[other] = survivor
            self._drop(other)
        self._drop(survivor)
        self._open[hole] = survivor
        self._put(survivor, general)
        self._lines.clear()
        while len(self._merged_into) > 4 * self._max_templates:
            self._merged_into.popitem(last=False)
        return self._merge(survivor, general)

    def _put(self, template_id: int, tokens: Tokens) -> None:
        self._ids[tokens] = template_id
        self._templates[template_id] = tokens

    def _drop(self, template_id: int) -> None:
        """Takes a template out of every index."""
        tokens = self._templates.pop(template_id, None)
        if tokens is None:
            return
        self._ids.pop(tokens, None)
        if len(tokens) > MAX_MERGED_TOKENS:
            return
        for place, token in enumerate(tokens):
            hole = hash((place, _with_hole(tokens, place)))
            words = self._words.get(hole)
            if words is not None and words.pop(token, None) is not None and not words:
                del self._words[hole]

    def _forget(self, template_id: int) -> None:
        self._drop(template_id)
        self._open = {hole: owner for hole, owner in self._open.items() if owner != template_id}
        self._lines.clear()


def mine(lines: Iterable[str], max_templates: int = 10_000) -> list[TemplateMatch]:
    """The templates of a whole file, one match a line, as known after its last line (merges have reached all lines)."""
    miner = TemplateMiner(max_templates)
    first = [miner.add(line) for line in lines]
    found = []
    for match in first:
        template_id = miner.current(match.id)
        found.append(TemplateMatch(template_id, miner.template(template_id) or match.template, match.new))
    return found


class _TokenMasks(dict[str, str]):
    """Masked tokens by token. Tokens that differ in digits only mostly share one mask, which is kept by their shape."""

    def __init__(self) -> None:
        super().__init__()
        self._shapes: dict[str, str] = {}

    def __missing__(self, token: str) -> str:
        if len(token) > MAX_TOKEN_LENGTH:
            return MASK
        shape = token.translate(_ZEROES)
        known = self._shapes.get(shape)
        if known is not None:
            return known
        masked = mask_token(token)
        if len(token) <= _CACHED_TOKEN_LENGTH:
            kept = self._shapes if masked != token and not any(map(str.isdigit, masked)) else self
            if len(kept) >= _CACHED_TOKENS:
                kept.clear()
            kept[shape if kept is self._shapes else token] = masked
        return masked


def _with_hole(tokens: Tokens, place: int) -> Tokens:
    return (*tokens[:place], MASK, *tokens[place + 1 :])
