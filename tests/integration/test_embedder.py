"""The embedder: integers on onnxruntime against sentence-transformers on tiny models of random weights."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from knowledge_base.adapters.embedder import SentenceEmbedder
from pipeline.domain.errors import PermanentError, TemporaryError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
os.environ["HF_HUB_OFFLINE"] = "1"

WORDS = ("pod", "memory", "killed", "error", "latency", "disk", "full", "queue", "checkout", "of", "the", "in", "137")
LONG = " ".join(WORDS[number % len(WORDS)] for number in range(90))
TEXTS = ["checkout pod killed 137", "error latency of the queue", "disk full", LONG, ""]


def write_model(folder: Path, *, pooling: str = "mean", hidden_act: str = "gelu") -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocab = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_act=hidden_act,
        initializer_range=0.2,
    )
    torch.manual_seed(7)
    plain = folder / "plain"
    BertModel(config).save_pretrained(plain)
    BertTokenizerFast(vocab=vocab).save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=48)
    whole = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=pooling), Normalize()], device="cpu")
    whole.save(str(folder / "tiny"))
    return folder / "tiny"


def exact(folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
async def test_integers_give_the_vectors_of_the_floats(tmp_path: Path, pooling: str) -> None:
    folder = write_model(tmp_path, pooling=pooling)
    embedder = SentenceEmbedder(str(folder))
    assert embedder.name == "tiny"
    vectors = await embedder.embed(TEXTS)
    assert embedder.runs_on == "onnxruntime in 8-bit integers"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    cosines = (vectors * exact(folder)).sum(axis=1)
    assert cosines.min() > 0.995
    # Company and order do not touch a text's vector.
    np.testing.assert_array_equal((await embedder.embed(TEXTS[::-1]))[::-1], vectors)
    assert (await embedder.embed([])).shape == (0, 32)
    await embedder.close()
    with pytest.raises(TemporaryError):
        await embedder.embed(["x"])


async def test_another_architecture_takes_the_plain_way_and_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path, hidden_act="relu")
    embedder = SentenceEmbedder(str(folder))
    vectors = await embedder.embed(TEXTS)
    assert embedder.runs_on.startswith("sentence-transformers: ")
    np.testing.assert_allclose(vectors, exact(folder), atol=1e-5)
    await embedder.close()


async def test_a_damaged_model_is_one_clear_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    config = (folder / "config.json").read_text()
    broken = {
        "cannot be loaded, give a local folder": lambda: weights.write_bytes(content[: len(content) // 2]),
        "this one has no model.safetensors": weights.unlink,
        "has neither config.json nor modules.json": lambda: [file.unlink() for file in folder.glob("*.json")],
    }
    assert json.loads(config)["model_type"] == "bert"
    for message, damage in broken.items():
        damage()
        embedder = SentenceEmbedder(str(folder))
        for _ in range(2):
            with pytest.raises(PermanentError, match=message) as error:
                await embedder.embed(["x"])
            assert "\n" not in str(error.value)
        await embedder.close()
