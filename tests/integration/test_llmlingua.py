"""LLMLingua-2 through its real library, on a tiny model of random weights: prose loses words, essentials never."""

import os
from pathlib import Path

import pytest

from bot.config import load
from bot.doctor import examine
from bot.wiring.knowledge import knowledge_of
from knowledge_base.adapters.llmlingua_compressor import FORCE_TOKENS, KINDS, LlmLinguaCompressor, trouble_with
from knowledge_base.compress import WORDS_MARKER, fit, marker
from knowledge_base.wording import changed
from migrations.runner import MigrationReport
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import PermanentError

os.environ["HF_HUB_OFFLINE"] = "1"

PROSE = """When the volume of the database fills, look at the write-ahead log before you do anything else in there.
Never delete /var/lib/postgresql/18/main/pg_wal by hand: the server does not start after that, with exit code 1.
It is usually enough to drop the replication slot shop_replica_2, which has not been read for 36 hours or more.
On 2026-01-02 the pod payments-db-0 at 10.0.0.7:5432 was OOMKilled (exit code 137) at 3.5 GiB, p99 2300 ms, 85 % full.
"""


def write_model(folder: Path) -> Path:
    import torch
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
    assert compressor.within(3600)(PROSE, 0.3) == shorter
    assert compressor.within(0)(PROSE, 0.3) == PROSE

    killed = "pod payments-db-0 was OOMKilled, exit code 137, and it is not known why that is so"
    command = "```\nplease do run the command that is written in this line and then have a look\n```"
    done = dict(fit([("E1", killed), ("K1", f"{PROSE}{command}\n{PROSE}")], 240, shorten=compressor.shorten))
    assert done["E1"] == killed
    mark, *lines = done["K1"].split("\n")
    assert mark == WORDS_MARKER
    sources = [line.split() for line in (*PROSE.split("\n"), *command.split("\n"), *map(marker, range(1, 12)))]
    assert any(line.split() not in sources for line in lines)
    for line in lines:
        assert any(all(word in rest for word in line.split()) for rest in map(iter, sources)), line


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
    assert message in trouble_with(folder)
    with pytest.raises(PermanentError, match=message):
        LlmLinguaCompressor(folder).load()


async def test_what_is_missing_is_said_at_the_start_and_by_doctor(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    pool, report = Pool("postgresql://nobody@127.0.0.1:1/none"), MigrationReport("18", None)

    async def started(place: Path) -> tuple[list[str], list[tuple[str, str]], str]:
        settings = load({"SRE_LLMLINGUA": str(place)}, None)
        fallbacks: list[str] = []
        base = knowledge_of(settings.knowledge, pool, report, fallbacks)
        shown = dict(base.fit([("E1", PROSE), ("K1", PROSE)], 270))["K1"]
        told = [(one.what, one.state) async for one in examine(settings) if one.what == "prompts"]
        await base.close()
        return [one for one in fallbacks if "LLMLINGUA" in one], told, shown

    assert (await started(folder))[:2] == ([], [("prompts", "ok")])
    (said,), told, shown = await started(tmp_path / "bert-base-multilingual-cased-absent")
    assert "no such folder" in said
    assert "whole lines" in said
    assert told == [("prompts", "note")]
    assert set(shown.split("\n")) <= {*PROSE.split("\n"), *map(marker, range(1, 5))}


def test_a_damaged_model_is_one_clear_line_and_lines_are_chosen_instead(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    compressor = LlmLinguaCompressor(folder)
    with pytest.raises(PermanentError, match="cannot be used") as error:
        compressor.load()
    assert "\n" not in str(error.value)
    shown = dict(fit([("K1", PROSE)], 90, shorten=compressor.shorten))["K1"]
    assert set(shown.split("\n")) <= {*PROSE.split("\n"), *map(marker, range(1, 5))}


def test_a_failure_is_logged_once_and_the_text_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compressor = LlmLinguaCompressor(tmp_path / "xlm-roberta-large")
    assert [compressor.shorten(PROSE, 0.5) for _ in range(3)] == [PROSE] * 3
    assert [record.message for record in caplog.records if "whole lines" in record.message] == [
        f"{trouble_with(tmp_path / 'xlm-roberta-large')}; whole lines are chosen instead"
    ]
