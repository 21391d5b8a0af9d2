"""What is known of models: retirement dates, successors, prices."""

from datetime import date

import pytest

from pipeline.adapters.llm.models import DEFAULT_ANTHROPIC, DEFAULT_OPENAI, cost_usd, same_model, standing

TODAY = date(2026, 11, 23)


@pytest.mark.parametrize(
    ("model", "state", "said"),
    [
        ("claude-sonnet-4-20250514", "retired", "retired on 2026-06-15, requests to it fail: take claude-sonnet-5-5"),
        ("claude-sonnet-4-5", "retiring", "on 2026-11-30, in 7 days: take claude-sonnet-5-5"),
        ("gpt-4o-mini", "retiring", "on 2027-01-14, in 52 days: take gpt-6-luna"),
        (DEFAULT_ANTHROPIC, "current", ""),
        (DEFAULT_OPENAI, "current", ""),
        ("anthropic/claude-sonnet-4-20250514", "retired", "take claude-sonnet-5-5"),
        ("Claude-Sonnet-4-20250514", "retired", "take claude-sonnet-5-5"),
        ("claude-3-5-sonnet-latest", "retired", "take claude-sonnet-5-5"),
        ("claude-sonnet-4-5-latest", "retiring", "take claude-sonnet-5-5"),
        ("claude-haiku-4-5-latest", "current", ""),
        ("llama-of-ours", "unknown", "see that it is spelt right"),
    ],
)
def test_standing(model: str, state: str, said: str) -> None:
    now = standing(model, TODAY)
    assert now.state == state
    assert said in now.said
    assert bool(now.said) == bool(said)


def test_standing_changes_with_the_day() -> None:
    days = (date(2026, 8, 1), date(2026, 11, 15), date(2027, 1, 13), date(2027, 1, 14))
    states = [standing("gpt-4o-mini", day).state for day in days]
    assert states == ["current", "retiring", "retiring", "retired"]
    assert "by then" in standing("gpt-4o-mini", days[0]).said


@pytest.mark.parametrize(
    ("author", "reviewer", "same"),
    [
        ("claude-sonnet-5-5", "gpt-6-luna", False),
        ("claude-sonnet-5-5", "claude-haiku-5-5", False),
        ("gpt-6-luna", "gpt-6-luna", True),
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True),
        ("claude-sonnet-4-5-20250929", "Claude-Sonnet-4-5", True),
        ("openai/gpt-6-luna", "gpt-6-luna", True),
        ("qwen-3-70", "qwen-3-8", False),
    ],
)
def test_a_model_is_no_second_opinion_on_itself(author: str, reviewer: str, same: bool) -> None:
    said = same_model(author, reviewer)
    assert bool(said) == same
    if same:
        other = DEFAULT_ANTHROPIC if "gpt-6-luna" in author else DEFAULT_OPENAI
        assert said.endswith(f"such as {other}")


def test_cost() -> None:
    assert cost_usd("claude-sonnet-5-5", 1_000_000, 0, 100_000) == pytest.approx(3.0)
    assert cost_usd("claude-sonnet-5-5", 1_000_000, 1_000_000, 0) == pytest.approx(0.2)
    assert cost_usd("llama-of-ours", 1000, 0, 1000) is None
