"""LLMLingua-2 through its real library, on a tiny model of random weights: prose loses words, essentials never."""

import os
from pathlib import Path

import pytest

from knowledge_base.adapters.llmlingua_compressor import FORCE_TOKENS, KINDS, LlmLinguaCompressor
from knowledge_base.compress import Item, compress
from knowledge_base.wording import changed
from pipeline.domain.errors import PermanentError

os.environ["HF_HUB_OFFLINE"] = "1"

PROSE = """When the volume of the database fills, look at the write-ahead log before you do anything else in there.
Never delete /var/lib/postgresql/18/main/pg_wal by hand: the server does not start after that, with exit code 1.
It is usually enough to drop the replication slot shop_replica_2, which has not been read for 36 hours or more.
On 2026-01-02 the pod payments-db-0 at 10.0.0.7:5432 was OOMKilled (exit code 137) at 3.5 GiB, p99 2300 ms, 85 % full.
"""


def write_model(folder: Path) -> Path:
    torch = pytest.importorskip("torch")
    pytest.importorskip("llmlingua")
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    signs = sorted(set(PROSE) - {" ", "\n"})
    words = sorted({word.strip(".,:()") for word in PROSE.split()})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    vocab += [word for word in words if word.isalpha() and word not in vocab]
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=2,
        initializer_range=1.0,
    )
    torch.manual_seed(3)
    path = folder / "bert-base-multilingual-cased-tiny"
    BertForTokenClassification(config).save_pretrained(path)
    places = {word: number for number, word in enumerate(vocab)}
    BertTokenizerFast(vocab=places, do_lower_case=False).save_pretrained(path)
    return path


def test_prose_loses_words_and_keeps_what_is_essential(tmp_path: Path) -> None:
    assert len(FORCE_TOKENS) <= 100
    compressor = LlmLinguaCompressor(write_model(tmp_path))
    shorter = compressor.shorten(PROSE, 0.3)
    assert len(shorter) < 0.9 * len(PROSE)
    assert changed(PROSE, shorter) == ()
    assert {"payments-db-0", "10.0.0.7:5432", "2026-01-02", "OOMKilled"} <= set(shorter.split())
    rest = iter(PROSE.split())
    assert all(word in rest for word in shorter.split())
    assert shorter == compressor.shorten(PROSE, 0.3)
    assert compressor.shorten(" \n", 0.3) == " \n"

    evidence = Item("E1", "pod payments-db-0 was OOMKilled, exit code 137")
    cited, prose = compress([evidence, Item("K1", PROSE, citable=False)], 150, shorten=compressor.shorten).items
    assert cited.text == evidence.text
    assert prose.shortened


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("tiny", (), f"must hold {' or '.join(KINDS)}"),
        ("xlm-roberta-large", (), "no config.json"),
        ("xlm-roberta-large", ("config.json",), "holds no weights"),
    ],
)
def test_a_folder_without_the_model_is_one_clear_line(
    tmp_path: Path, name: str, files: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in files:
        (folder / file).write_text("{}")
    with pytest.raises(PermanentError, match=message):
        LlmLinguaCompressor(folder).shorten("a b c", 0.5)


def test_a_damaged_model_is_one_clear_line_and_lines_are_chosen_instead(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    compressor = LlmLinguaCompressor(folder)
    with pytest.raises(PermanentError, match="cannot be used") as error:
        compressor.shorten(PROSE, 0.5)
    assert "\n" not in str(error.value)
    done = compress([Item("K1", PROSE, citable=False)], 60, shorten=compressor.shorten)
    assert done.note == str(error.value)
    assert done.items[0].text
    assert not done.items[0].shortened
