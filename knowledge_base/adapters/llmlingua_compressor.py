"""LLMLingua-2 for prose: a token classifier says which words of a text may go. Never for what is cited.

The library's own result is not used, because it splits addresses, dates and pod names: only its verdict on each word
is, and whole words of the source are dropped by it. Names, numbers and negations stay, whatever the verdict.
Pan et al., "LLMLingua-2: Data Distillation for Efficient and Faithful Task-Agnostic Prompt Compression" (2024).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

from knowledge_base.wording import essentials
from pipeline.domain.errors import PermanentError

log = logging.getLogger(__name__)

KINDS = ("xlm-roberta-large", "bert-base-multilingual-cased")
"""The library tells a model's kind by its path."""
MAX_CHARS = 20_000
"""About ten windows of the model; a longer text would take longer than it saves."""
SEED = 42
"""For the rows the library adds to the embeddings, so that each start chooses alike."""
FORCE_TOKENS = tuple(
    re.findall(
        r"\S+",
        "OOM OOMKilled kill killed SIGKILL SIGTERM exit code 1 137 139 143 p50 p90 p95 p99 ms % MiB GiB CPU memory "
        "disk latency error errors timeout namespace pod node container replica replicas deployment rollback restart "
        "evicted kube-system default prod staging certificate expired 5xx 429 500 502 503 504 not no never without "
        "none nor cannot unless except before after only must",
    )
)
"""What an engineer would not have dropped. The library takes at most 100, and reserves all words with digits."""
_HOW_TO = 'install it with: pip install "sre-bot[ml]"'
_WORD_MARK, _LABEL_MARK = "\x1e", "\x1f"
_PIECE = re.compile(r"\S+|\n")


class _Length:
    """Stands in for tiktoken, whose tables are fetched from the network: only lengths are asked of it."""

    def encode(self, text: str) -> list[int]:
        return [0] * (len(text) // 4 + 1)


_STAND_INS = {
    "tiktoken": SimpleNamespace(encoding_for_model=lambda _model: _Length()),
    # The library's own would make every draw of this process foreseeable.
    "seed_everything": lambda _seed: None,
}
"""By their names in the library's module."""


class LlmLinguaCompressor:
    """``folder`` holds the weights of a LLMLingua-2 model; loaded on first use. Usable from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()
        self._lock = Lock()
        self._model: Any = None
        self._refusal: PermanentError | None = None

    def load(self) -> None:
        """Blocks, some seconds; nothing is fetched. Raises PermanentError, each time anew with the first reason."""
        with self._lock:
            self._loaded()

    def within(self, seconds: float) -> Callable[[str, float], str]:
        """``shorten`` for the texts of one prompt: none is begun when ``seconds`` are over, they stay as they are."""
        until = time.monotonic() + seconds
        return lambda text, share: text if time.monotonic() >= until else self.shorten(text, share)

    def shorten(self, text: str, share: float) -> str:
        """``text`` with about ``share`` of its words, or more where they may not go. Blocks, seconds for long texts.

        Where the library or the weights fail, ``text`` as it came; why is in the log, once.
        """
        if not text.strip() or len(text) > MAX_CHARS or share >= 1:
            return text
        with self._lock:
            if self._refusal is not None:
                return text
            try:
                verdict = self._asked(text, share)
            except PermanentError as error:
                self._refusal = error
                log.warning("%s; whole lines are chosen instead", error)
                return text
        return _without(text, [_verdict(each) for each in verdict.split(_WORD_MARK)])

    def _asked(self, text: str, share: float) -> str:
        """Each word of ``text`` as the library reads it, with its verdict."""
        model = self._loaded()
        try:
            answer = model.compress_prompt_llmlingua2(
                [text],
                rate=max(share, 0.05),
                use_context_level_filter=False,
                force_tokens=[token for token in FORCE_TOKENS if token in text],
                force_reserve_digit=True,
                return_word_label=True,
                word_sep=_WORD_MARK,
                label_sep=_LABEL_MARK,
            )
        except Exception as error:
            # torch, tokenizers and the library's own asserts, under no common base.
            raise PermanentError(f"LLMLingua-2 failed: {_first_line(error)}") from error
        return str(answer["fn_labeled_original_prompt"])

    def _loaded(self) -> Any:
        if self._refusal is not None:
            raise self._refusal
        if self._model is None:
            try:
                self._model = _load(self._folder)
            except PermanentError as error:
                self._refusal = error
                raise
        return self._model


def trouble_with(folder: Path) -> str:
    """Why LLMLingua-2 cannot run from ``folder``, as far as can be told without loading it; empty when it may."""
    folder = folder.expanduser()
    refusal = f"LLMLingua-2 in {folder} cannot be used"
    if not folder.is_dir():
        return f"{refusal}: there is no such folder, and weights are never fetched"
    if not any(kind in str(folder) for kind in KINDS):
        return f"{refusal}: its path must hold {' or '.join(KINDS)}, by which the library knows its kind"
    if not (folder / "config.json").is_file():
        return f"{refusal}: there is no config.json, name the folder of the model"
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return f"{refusal}: it holds no weights (model.safetensors)"
    missing = [name for name in ("torch", "llmlingua") if importlib.util.find_spec(name) is None]
    return f"{refusal}: {' and '.join(missing)} is missing, {_HOW_TO}" if missing else ""


def _load(folder: Path) -> Any:
    if trouble := trouble_with(folder):
        raise PermanentError(trouble)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from llmlingua import prompt_compressor
    except ImportError as error:
        raise PermanentError(f"no LLMLingua-2, {error.name or 'llmlingua'} is missing: {_HOW_TO}") from error
    vars(prompt_compressor).update(_STAND_INS)
    torch.set_num_threads(1)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return prompt_compressor.PromptCompressor(
                str(folder),
                device_map="cpu",
                use_llmlingua2=True,
                model_config={"trust_remote_code": False, "local_files_only": True},
                llmlingua2_config={"max_batch_size": 4},
            )
    except Exception as error:
        # As above: every library below raises its own.
        raise PermanentError(f"LLMLingua-2 in {folder} cannot be used: {_first_line(error)}") from error


def _verdict(labelled: str) -> tuple[str, bool]:
    word, _, label = labelled.rpartition(_LABEL_MARK)
    return word.lstrip("▁"), label == "1"


def _without(text: str, verdicts: list[tuple[str, bool]]) -> str:
    """Drops the words of ``text`` of which no part is to be kept and that carry nothing essential."""
    kept = list(_kept_places(text, verdicts))
    pieces = list(_PIECE.finditer(text))
    needed = _needed([piece[0] for piece in pieces])
    words = []
    for number, piece in enumerate(pieces):
        if piece[0] == "\n" or number in needed or any(piece.start() <= place < piece.end() for place in kept):
            words.append(piece[0])
    lines = " ".join(words).split("\n")
    return "\n".join(line.strip() for line in lines).strip()


def _kept_places(text: str, verdicts: list[tuple[str, bool]]) -> Iterator[int]:
    place = 0
    for word, keep in verdicts:
        found = text.find(word, place) if word else -1
        if found < 0:
            # A sign the model's vocabulary lacks: nothing is known of it.
            continue
        place = found + len(word)
        if keep:
            yield found


def _needed(words: list[str]) -> set[int]:
    """The places of words without which ``essentials`` would differ."""
    needed = set()
    for place, word in enumerate(words):
        if not essentials(word):
            continue
        needed.add(place)
        following = next((later for later in range(place + 1, len(words)) if words[later] != "\n"), None)
        if following is not None and len(essentials(f"{word} {words[following]}")[0]) > len(essentials(word)[0]):
            needed.add(following)
    return needed


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
