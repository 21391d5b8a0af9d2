"""Nothing from outside may become a mention, a link or more than Slack takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack.text import clip, clock, code, code_block, duration, escape, inline, mention, plain, sentence
from tests.builders import T0

PIECES = [*"<>&|!@#`*_~ \n\u202eab:/.;", "<!channel>", "<@U0ALICE>", "&lt;", "&amp"]
NASTY = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@given(NASTY)
def test_escaped_text_has_no_markup(text: str) -> None:
    shown = escape(text)
    assert "<" not in shown
    assert ">" not in shown
    assert not re.search(r"&(?!amp;|lt;|gt;)", shown)
    assert "\u202e" not in shown


@given(NASTY)
def test_a_sentence_keeps_mentions_of_people_and_nothing_else(text: str) -> None:
    assert set(re.findall(r"<[^>]*>?", sentence(text))) <= {"<@U0ALICE>"}


@given(NASTY, st.integers(min_value=2, max_value=40))
def test_clipped_text_fits_and_leaves_no_half_entity(text: str, limit: int) -> None:
    for cut in (inline(text, limit), clip(sentence(text), limit)):
        assert len(cut) <= limit
        assert not re.search(r"&(?!amp;|lt;|gt;)", cut)
        assert cut.count("<") == cut.count(">")


@given(NASTY, st.integers(min_value=9, max_value=60))
def test_code_cannot_be_left(text: str, limit: int) -> None:
    assert code(text, limit).strip("`").count("`") == 0
    assert code_block(text, limit).count("```") == 2
    assert len(code(text, limit)) <= limit
    assert len(code_block(text, limit)) <= limit


@given(NASTY)
def test_plain_text_has_no_angle_brackets(text: str) -> None:
    assert not set("<>") & set(plain(text, 100))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (190, "3 min 10 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (187_200, "2 d 4 h"),
        (-5, "0 s"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_times_have_a_fallback_in_utc() -> None:
    assert clock(T0) == f"<!date^{int(T0.timestamp())}^{{time}}|14:02 UTC>"


def test_a_mention_is_made_of_user_ids_only() -> None:
    assert mention("U0ALICE") == "<@U0ALICE>"
    assert mention("!channel") == "!channel"
    assert mention("U1> <!channel") == "U1&gt; &lt;!channel"
