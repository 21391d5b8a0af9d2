"""Sentence encoders of the BERT family on onnxruntime, in 8-bit integers. Needs no torch.

One text at a time: no padding is computed, and a text has the same vector in whatever company it comes. Which columns
are left in floats (``embedder_graph``) is found while loading, by running sample sentences through each layer once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from knowledge_base.adapters.embedder_graph import Graph, Layer, Linear, Norm
from knowledge_base.stored import FloatArray

NO_LIMIT = 1_000_000
MIN_COSINE = 0.99
"""Integers stay only where the vectors of the sample sentences are this near to those in floats."""
SAMPLES = (
    "checkout-api-7d9f memory above 85% of its limit and growing; the pod was OOMKilled, exit code 137.",
    "The certificate of the ingress expires in two days.",
    "p99 latency 2300 ms, error: connection to 10.0.0.1:5432 refused",
    "kubectl get pods -n payments --sort-by=.status.startTime | head -20",
    "# Disk full › Mitigation\n1. Truncate the debug log under /var/log; never delete the data directory.",
    "The new version was rolled back at 14:05 UTC because errors rose from 0.1 % to 12 %. Nobody had been paged.",
    "queue",
)


class Unsuitable(Exception):
    """This model is not of the kind this module runs; the message says why."""


class _Config(BaseModel):
    """``config.json`` of a BERT encoder."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    hidden_size: Annotated[int, Field(gt=0)]
    num_hidden_layers: Annotated[int, Field(gt=0)]
    num_attention_heads: Annotated[int, Field(gt=0)]
    max_position_embeddings: Annotated[int, Field(gt=2)]
    layer_norm_eps: float = 1e-12


class _Module(BaseModel):
    """A line of ``modules.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    path: str
    type: str

    @property
    def kind(self) -> str:
        return self.type.rpartition(".")[2]


class _Pooling(BaseModel):
    """``config.json`` of the pooling module: older files have a switch for each mode, newer ones name it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    pooling_mode: Literal["mean", "cls"] | None = None
    pooling_mode_mean_tokens: bool = False
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: Literal[False] = False
    pooling_mode_mean_sqrt_len_tokens: Literal[False] = False
    pooling_mode_weightedmean_tokens: Literal[False] = False
    pooling_mode_lasttoken: Literal[False] = False

    @model_validator(mode="after")
    def _one(self) -> _Pooling:
        if self.pooling_mode is None and self.pooling_mode_mean_tokens == self.pooling_mode_cls_token:
            raise ValueError("neither the mean nor the first token alone")
        return self

    @property
    def first_token(self) -> bool:
        return self.pooling_mode == "cls" or self.pooling_mode_cls_token


class _Reading(BaseModel):
    """How texts are read: ``sentence_bert_config.json``, ``tokenizer_config.json`` and the file on prompts, as one."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    max_seq_length: Annotated[int, Field(gt=2)] | None = None
    model_max_length: Annotated[float, Field(gt=2)] | None = None
    default_prompt_name: None = None

    @property
    def longest(self) -> int | None:
        stated = self.max_seq_length or self.model_max_length
        # Tokenizers without a limit state one of thirty digits.
        return int(stated) if stated and stated < NO_LIMIT else None


_MODULES = TypeAdapter(tuple[_Module, ...])
_OBJECT = TypeAdapter(dict[str, object])
Read = Callable[[str], FloatArray]


class OnnxEncoder:
    """A loaded model. ``encode`` is for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises Unsuitable for any but a BERT encoder with mean or first-token pooling, stored as safetensors."""
        root, self._first_token, longest = _parts(folder)
        try:
            config = _Config.model_validate_json((root / "config.json").read_bytes())
            self._tokenizer = Tokenizer.from_str((root / "tokenizer.json").read_text())
        except (OSError, ValidationError) as error:
            raise Unsuitable(_first_line(error)) from error
        except Exception as error:  # tokenizers raises nothing narrower
            raise Unsuitable(f"tokenizer.json: {_first_line(error)}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self._tokenizer.num_special_tokens_to_add(False) != 2:
            raise Unsuitable("its tokenizer does not put one mark before and one after a text")
        self._dimensions = config.hidden_size
        self._max_tokens = min(longest or config.max_position_embeddings, config.max_position_embeddings)
        try:
            nearest = self._load(root / "model.safetensors", config)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise Unsuitable(f"model.safetensors: {_first_line(error)}") from error
        if not nearest >= MIN_COSINE:
            raise Unsuitable(f"in integers its vectors are off: cosine {nearest:.3f} on a sample")

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Shape (texts, dimensions), float32, rows of length 1. The model's limit cuts long texts."""
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)
        for row, ids in zip(vectors, self._ids(texts), strict=True):
            row[:] = self._pooled(_run(self._session, self._entering(ids))[0])
        return vectors

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found = (encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts)))
        return [ids if len(ids) <= self._max_tokens else [*ids[: self._max_tokens - 1], ids[-1]] for ids in found]

    def _entering(self, ids: list[int]) -> FloatArray:
        tokens: FloatArray = self._words[ids] + self._places[: len(ids)]
        return tokens

    def _pooled(self, tokens: FloatArray) -> FloatArray:
        pooled = tokens[0] if self._first_token else tokens.mean(axis=0)
        length = float(np.linalg.norm(pooled))
        vector: FloatArray = pooled / max(length, 1e-12)
        return vector

    def _load(self, file: Path, config: _Config) -> float:
        """Builds the model as one graph, its layers in turn in floats for the samples; the least cosine to floats."""
        with safe_open(file, framework="numpy") as weights:
            prefix = "" if "embeddings.word_embeddings.weight" in weights.keys() else "bert."  # noqa: SIM118

            def read(name: str) -> FloatArray:
                return np.asarray(weights.get_tensor(prefix + name), dtype=np.float32)

            self._words = read("embeddings.word_embeddings.weight")
            kinds = read("embeddings.token_type_embeddings.weight")
            self._places = read("embeddings.position_embeddings.weight") + kinds[0]
            norm, entry, whole = _norm(read, "embeddings.LayerNorm", config), Graph(), Graph()
            entering = entry.session("tokens", [norm.build(entry, "tokens")], config.hidden_size)
            samples = [_run(entering, self._entering(ids))[0] for ids in self._ids(SAMPLES)]
            last = norm.build(whole, "tokens")
            for number in range(config.num_hidden_layers):
                layer = _layer(read, f"encoder.layer.{number}.", config)
                floats = layer.in_floats()
                outputs = [_run(floats, sample) for sample in samples]
                middle, inner = (np.concatenate([output[part] for output in outputs]) for part in (1, 2))
                last = layer.add_in_integers(whole, last, np.concatenate(samples), middle, inner)
                samples = [output[0] for output in outputs]
        # One graph for all layers: its buffers are used again from layer to layer, and stay in the processor's cache.
        self._session = whole.session("tokens", [last], config.hidden_size)
        exact = np.stack([self._pooled(sample) for sample in samples])
        return float((exact * self.encode(SAMPLES)).sum(axis=1).min())


def _parts(folder: Path) -> tuple[Path, bool, int | None]:
    """The folder of the transformer, whether the first token stands for the text, and the longest text in tokens."""
    listed = folder / "modules.json"
    root, first_token = folder, False
    try:
        if listed.exists():
            modules = _MODULES.validate_json(listed.read_bytes())
            kinds = [module.kind for module in modules]
            if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
                raise Unsuitable(f"it is made of {', '.join(kinds)}")
            root = folder / modules[0].path
            pooling = folder / modules[1].path / "config.json"
            first_token = _Pooling.model_validate_json(pooling.read_bytes()).first_token
        files = (root / "tokenizer_config.json", root / "sentence_bert_config.json")
        stated: dict[str, object] = {}
        for file in (*files, folder / "config_sentence_transformers.json"):
            if file.exists():
                stated |= _OBJECT.validate_json(file.read_bytes())
        return root, first_token, _Reading.model_validate(stated).longest
    except (OSError, ValidationError) as error:
        raise Unsuitable(_first_line(error)) from error


def _layer(read: Read, prefix: str, config: _Config) -> Layer:
    query, key, value = (_linear(read, f"{prefix}attention.self.{part}") for part in ("query", "key", "value"))
    # Scores are divided by the root of a head's width; done once, on the weights.
    scale = np.float32((config.hidden_size // config.num_attention_heads) ** -0.5)
    weights = (query.weight * scale, key.weight, value.weight)
    biases = (query.bias * scale, key.bias, value.bias)
    return Layer(
        heads=config.num_attention_heads,
        attention=Linear(np.concatenate(weights, axis=1), np.concatenate(biases)),
        attended=_linear(read, f"{prefix}attention.output.dense"),
        attended_norm=_norm(read, f"{prefix}attention.output.LayerNorm", config),
        inner=_linear(read, f"{prefix}intermediate.dense"),
        outer=_linear(read, f"{prefix}output.dense"),
        outer_norm=_norm(read, f"{prefix}output.LayerNorm", config),
    )


def _linear(read: Read, name: str) -> Linear:
    return Linear(np.ascontiguousarray(read(f"{name}.weight").T), read(f"{name}.bias"))


def _norm(read: Read, name: str, config: _Config) -> Norm:
    return Norm(read(f"{name}.weight"), read(f"{name}.bias"), config.layer_norm_eps)


def _run(session: onnxruntime.InferenceSession, tokens: FloatArray) -> list[FloatArray]:
    outputs: list[FloatArray] = session.run(None, {"tokens": tokens})
    return outputs


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
