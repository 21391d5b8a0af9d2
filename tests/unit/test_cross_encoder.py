"""The cross-encoder: a tiny one with random weights, made here, and folders that hold none."""

from pathlib import Path

import pytest

from knowledge_base.adapters.cross_encoder import SentenceCrossEncoder
from pipeline.domain.errors import PermanentError

pytest.importorskip("sentence_transformers")


def make_model(folder: Path, *, labels: int = 1) -> Path:
    """A BERT of one layer over a few words, saved as published models are."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "disk", "full", "memory", "leak"]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def test_a_folder_with_weights_gives_raw_scores_for_each_text(tmp_path: Path) -> None:
    model = SentenceCrossEncoder(make_model(tmp_path / "tiny"))
    texts = ["disk full", "memory leak", "disk"]
    logits = await model.logits("disk full", texts)
    assert (logits.shape, str(logits.dtype), model.name) == ((3,), "float32", "tiny")
    assert len(set(logits.tolist())) == 3
    again = await model.logits("disk full", list(reversed(texts)))
    assert again[::-1] == pytest.approx(logits, abs=1e-5)
    await model.close()


async def test_a_folder_without_a_ranking_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    for folder, reason in (
        (tmp_path / "none", "holds no cross-encoder"),
        (tmp_path / "broken", "cannot be loaded"),
        (make_model(tmp_path / "classes", labels=3), "has 3 outputs"),
    ):
        model = SentenceCrossEncoder(folder)
        for _ in range(2):
            with pytest.raises(PermanentError, match=reason) as error:
                await model.logits("x", ["y"])
            assert "\n" not in str(error.value)
        await model.close()
