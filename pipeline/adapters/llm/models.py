"""What is known of models: when they are retired, which to take instead, and what a million tokens costs.

Dates: the deprecation pages of both makers and the tables in their SDKs (anthropic 2.12, openai 3.54), November 2026.
Prices: the makers' model pages, US dollars, standard tier, prompts of up to 100,000 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

RETIRING_SOON_DAYS = 60
"""Anthropic's least notice; OpenAI gives three months and more."""

DEFAULT_ANTHROPIC = "claude-sonnet-5-5"
DEFAULT_OPENAI = "gpt-6-luna"

State = Literal["current", "retiring", "retired", "unknown"]


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """Where a model stands on a day. ``said`` is one line for start and doctor; empty when there is nothing to say."""

    state: State
    said: str


@dataclass(frozen=True, slots=True)
class _Retirement:
    on: date
    take: str


@dataclass(frozen=True, slots=True)
class _Price:
    """US dollars for a million tokens: sent, read from a cache, written."""

    sent: float
    cached: float
    written: float


_SONNET_4 = _Retirement(date(2026, 6, 15), DEFAULT_ANTHROPIC)
_SONNET_4_5 = _Retirement(date(2026, 11, 30), DEFAULT_ANTHROPIC)
_OPUS_4 = _Retirement(date(2026, 6, 15), "claude-opus-5-5")
_HAIKU_3_5 = _Retirement(date(2026, 2, 19), "claude-haiku-5-5")
_SONNET_3_5 = _Retirement(date(2025, 10, 28), DEFAULT_ANTHROPIC)
_SONNET_3 = _Retirement(date(2025, 7, 21), DEFAULT_ANTHROPIC)
_OPUS_3 = _Retirement(date(2026, 1, 5), "claude-opus-5-5")
_SONNET_3_7 = _Retirement(date(2026, 2, 19), DEFAULT_ANTHROPIC)
_GPT_4O = _Retirement(date(2027, 1, 14), DEFAULT_OPENAI)
_GPT_4_1_NANO = _Retirement(date(2026, 10, 23), DEFAULT_OPENAI)
_GPT_5 = _Retirement(date(2026, 12, 11), "gpt-6.1-sol")
_GPT_5_MINI = _Retirement(date(2026, 12, 11), "gpt-6.1-terra")
_GPT_5_NANO = _Retirement(date(2026, 12, 11), DEFAULT_OPENAI)

_RETIREMENTS: dict[str, _Retirement] = {
    "claude-3-7-sonnet-20250219": _SONNET_3_7,
    "claude-3-7-sonnet-latest": _SONNET_3_7,
    "claude-3-opus-20240229": _OPUS_3,
    "claude-3-sonnet-20240229": _SONNET_3,
    "claude-3-5-sonnet-20240620": _SONNET_3_5,
    "claude-3-5-sonnet-20241022": _SONNET_3_5,
    "claude-3-5-haiku-20241022": _HAIKU_3_5,
    "claude-3-5-haiku-latest": _HAIKU_3_5,
    "claude-opus-4-0": _OPUS_4,
    "claude-opus-4-20250514": _OPUS_4,
    "claude-sonnet-4-0": _SONNET_4,
    "claude-sonnet-4-20250514": _SONNET_4,
    "claude-sonnet-4-5": _SONNET_4_5,
    "claude-sonnet-4-5-20250929": _SONNET_4_5,
    "gpt-4o": _GPT_4O,
    "gpt-4o-2024-08-06": _GPT_4O,
    "gpt-4o-2024-11-20": _GPT_4O,
    "gpt-4o-mini": _GPT_4O,
    "gpt-4o-mini-2024-07-18": _GPT_4O,
    "gpt-4.1": _GPT_4O,
    "gpt-4.1-2025-04-14": _GPT_4O,
    "gpt-4.1-mini": _GPT_4O,
    "gpt-4.1-mini-2025-04-14": _GPT_4O,
    "gpt-4.1-nano": _GPT_4_1_NANO,
    "gpt-4.1-nano-2025-04-14": _GPT_4_1_NANO,
    "gpt-5": _GPT_5,
    "gpt-5-2025-08-07": _GPT_5,
    "gpt-5-mini": _GPT_5_MINI,
    "gpt-5-mini-2025-08-07": _GPT_5_MINI,
    "gpt-5-nano": _GPT_5_NANO,
    "gpt-5-nano-2025-08-07": _GPT_5_NANO,
}

_CURRENT = frozenset(
    {
        "claude-fable-5-1",
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "claude-haiku-5-5",
        "claude-opus-5-5",
        "claude-sonnet-4-6",
        "claude-sonnet-5",
        "claude-sonnet-5-5",
        "gpt-6-astra",
        "gpt-6-luna",
        "gpt-6-sol",
        "gpt-6.1-sol",
        "gpt-6.1-terra",
    }
)
"""In service with no date announced."""

_PRICES: dict[str, _Price] = {
    # Pages of different ages say 0.10 and 0.20 for reads from the cache; the estimate takes the dearer.
    "claude-sonnet-5-5": _Price(2.0, 0.20, 10.0),
    "claude-sonnet-5": _Price(2.0, 0.20, 10.0),
    "claude-haiku-5-5": _Price(0.10, 0.01, 0.50),
    "gpt-6-luna": _Price(0.10, 0.01, 0.50),
}


def standing(model: str, today: date) -> ModelStanding:
    """Whether ``model`` may be relied on today, and which to take when not. A name nobody told us of is unknown.

    Case and a router's prefix (``anthropic/``) do not count; a date or ``-latest`` that is not listed is its model's.
    """
    name, family = _plain(model), _undated(model)
    retirement = _RETIREMENTS.get(name) or (None if name in _CURRENT else _RETIRED_FAMILIES.get(family))
    if retirement is None:
        if name in _CURRENT or family in _CURRENT_FAMILIES:
            return ModelStanding("current", "")
        return ModelStanding("unknown", f"{model} is no model that this version knows: see that it is spelt right")
    take = f"take {retirement.take}"
    if today >= retirement.on:
        return ModelStanding("retired", f"{model} was retired on {retirement.on}, requests to it fail: {take}")
    days = (retirement.on - today).days
    if days > RETIRING_SOON_DAYS:
        return ModelStanding("current", f"{model} will be retired on {retirement.on}; {take} by then")
    return ModelStanding("retiring", f"{model} will be retired on {retirement.on}, in {days} days: {take}")


def same_model(author: str, reviewer: str) -> str:
    """Why ``reviewer`` is no second opinion on ``author``; empty when it is one. Dated names are their model's."""
    if _undated(author) != _undated(reviewer):
        return ""
    other = DEFAULT_OPENAI if _undated(author) != DEFAULT_OPENAI else DEFAULT_ANTHROPIC
    return f"{reviewer} would review what it wrote itself: that is no second opinion. Name another, such as {other}"


def cost_usd(model: str, sent: int, cached: int, written: int) -> float | None:
    """An estimate; ``cached`` is the part of ``sent`` that was read from a cache. None where no price is known."""
    price = _PRICES.get(model)
    if price is None:
        return None
    return ((sent - cached) * price.sent + cached * price.cached + written * price.written) / 1e6


def _undated(model: str) -> str:
    """``gpt-4o-mini-2024-07-18`` and ``claude-sonnet-4-5-20250929`` without their dates; case does not count."""
    parts = _plain(model).removesuffix("-latest").split("-")
    while len(parts) > 1 and parts[-1].isdigit() and (len(parts[-1]) == 8 or _is_date(parts[-3:])):
        parts = parts[:-1] if len(parts[-1]) == 8 else parts[:-3]
    return "-".join(parts)


def _plain(model: str) -> str:
    return model.strip().lower().rpartition("/")[2]


def _is_date(parts: list[str]) -> bool:
    return len(parts) == 3 and [len(part) for part in parts] == [4, 2, 2] and all(part.isdigit() for part in parts)


_RETIRED_FAMILIES = {_undated(name): retirement for name, retirement in _RETIREMENTS.items()}
_CURRENT_FAMILIES = frozenset(map(_undated, _CURRENT))
