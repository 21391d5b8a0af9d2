"""A cross-encoder by sentence-transformers: query and passage are read together. Weights come from a folder only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knowledge_base.stored import FloatArray
from pipeline.domain.errors import PermanentError, TemporaryError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

DEFAULT_MODEL = "ms-marco-MiniLM-L-6-v2"
LONGEST = 512
"""Word pieces of query and passage together; what is longer is cut off by the model's tokenizer."""
_BATCH = 20
_HOW_TO = 'install it with: pip install "sre-bot[ml]"'


class SentenceCrossEncoder:
    """``folder`` holds the weights as published (``config.json``, tokenizer files, ``model.safetensors``)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cross-encoder")
        self._model: CrossEncoder | None = None
        self._refusal: PermanentError | None = None

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return self._folder.name

    async def logits(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Shape (texts,): the model's raw output, before any sigmoid.

        Raises PermanentError when sentence-transformers or the weights are not there, TemporaryError after close.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, query, tuple(texts))
        except RuntimeError as error:
            raise TemporaryError(f"the cross-encoder failed: {str(error).splitlines()[0][:200]}") from error

    async def close(self) -> None:
        """Lets the thread end; what waits for it is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _predict(self, query: str, texts: tuple[str, ...]) -> FloatArray:
        if self._refusal is not None:
            raise self._refusal
        if self._model is None:
            try:
                self._model = _load(self._folder)
            except PermanentError as error:
                self._refusal = error
                raise
        from torch.nn import Identity

        scores: FloatArray = np.asarray(
            self._model.predict(
                [(query, text) for text in texts], batch_size=_BATCH, activation_fn=Identity(), show_progress_bar=False
            ),
            dtype=np.float32,
        )
        return scores


def _load(folder: Path) -> CrossEncoder:
    if not (folder / "config.json").is_file():
        raise PermanentError(f"{folder} holds no cross-encoder: give a folder with config.json and its weights")
    # Read when the hub's client is first imported: with it no file of a local model is looked for on the network.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise PermanentError(f"no reranking, {error.name or 'sentence_transformers'} is missing: {_HOW_TO}") from error
    torch.set_num_threads(1)
    try:
        model = CrossEncoder(str(folder), device="cpu", max_length=LONGEST, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise PermanentError(f"the cross-encoder in {folder} cannot be loaded: {reason}") from error
    if model.num_labels != 1:
        raise PermanentError(
            f"the model in {folder} has {model.num_labels} outputs, a cross-encoder for ranking has one"
        )
    return model
