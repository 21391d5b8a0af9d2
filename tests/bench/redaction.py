"""Redaction: megabytes a second beside plain patterns, and how time grows with the length of hostile texts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from time import process_time

from pipeline.domain.redaction import Redactor
from tests.bench.templates import written

LINES = 20_000
HOSTILE_CHARS = 1_000_000
SECRET_EVERY = 50

HOSTILE = {
    "keys without values": "password token= secret: ",
    "quotes that never close": 'password=\\"',
    "escapes": 'password="' + "\\" * 50,
    "one long value": "x",
    "dots of tokens": "eyJeyJeyJ.",
    "starts of keys": "-----BEGIN PRIVATE KEY-----",
    "addresses": "a://b:c",
    "at signs": "://a@",
    "dashes": "--a-a-a-",
    "brackets": "token=<<{{${",
    "cookies": "cookie: a=b;c",
    "digits": "4111 1111 ",
    "words before a colon": "a.token:b,c=",
    "blanks": "password \t ",
    "colours": "password\x1b[0m\x1b[1m",
    "names of variables": "name: A_TOKEN value ",
    "lines of YAML": "password: |\n  a\n",
    "placeholders": "token=‹secret:token:000000›",
}


def run() -> None:
    """Prints the rate on ordinary lines, beside usual patterns, and for hostile texts the cost of a doubled length."""
    rng = random.Random(1)
    lines = [line for _, line in written(LINES, seed=1)]
    for at in range(0, LINES, SECRET_EVERY):
        lines[at] += f" password={rng.getrandbits(64):x} Authorization: Bearer {rng.getrandbits(128):x}"
    size = sum(len(line) for line in lines) / 1e6
    redactor = Redactor()
    by_line = _seconds(lambda: [redactor.text(line) for line in lines])
    plain = _seconds(lambda: [naive(line) for line in lines])
    whole = "\n".join(lines)
    at_once = _seconds(lambda: redactor.text(whole))
    rates = f"{size / by_line:.1f} MB/s line by line ({LINES / by_line:,.0f} lines/s), {size / at_once:.1f} MB/s whole"
    print(f"redaction: {rates}; with {len(NAIVE)} plain patterns {size / plain:.1f} MB/s line by line")
    costs = {name: _grown(redactor, piece) for name, piece in HOSTILE.items()}
    worst = max(costs, key=lambda name: costs[name][1])
    growth = sum(full for _, full in costs.values()) / sum(half for half, _ in costs.values())
    print(f"redaction: a hostile megabyte takes {costs[worst][1]:.2f} s at worst ({worst}),")
    print(f"           twice the text {growth:.1f} times as long, all {len(costs)} kinds together")


def _grown(redactor: Redactor, piece: str) -> tuple[float, float]:
    """Seconds for half of the hostile text and for all of it."""
    half, full = _long(piece, HOSTILE_CHARS // 2), _long(piece, HOSTILE_CHARS)
    return _seconds(lambda: redactor.text(half)), _seconds(lambda: redactor.text(full))


NAIVE = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i)(?:password|passwd|pwd|secret|token|api[_-]?key)\s*[=:]\s*\S+",
        r"(?i)bearer\s+\S+",
        r"(?i)authorization:\s*\S+\s+\S+",
        r"\w+://[^:]+:[^@]+@",
        r"eyJ[\w-]+\.[\w-]+\.[\w-]+",
        r"gh[pousr]_\w{36}",
        r"AKIA[A-Z0-9]{16}",
        r"-----BEGIN[\s\S]+?-----END[^-]+-----",
    )
)


def naive(text: str) -> str:
    """What is usually written first."""
    for pattern in NAIVE:
        text = pattern.sub("***", text)
    return text


def _long(piece: str, chars: int) -> str:
    return (piece * (chars // len(piece) + 1))[:chars]


def _seconds(what: Callable[[], object]) -> float:
    """The better of two."""
    best = float("inf")
    for _ in range(2):
        start = process_time()
        what()
        best = min(best, process_time() - start)
    return best
