"""Every attempt of the corpus in a prompt: it stays inside its fence, and what is outside does not change."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

import pytest

from bot.redacting import redact
from pipeline.adapters.llm.prompts import Wording, diagnosis_prompt, reply_prompt
from pipeline.domain.redaction import Redactor
from pipeline.domain.untrusted import neutralise
from tests.injection.attempts import ATTEMPTS, Attempt
from tests.injection.world import world

TAG = re.compile(r"<(/?)([a-z_]+)((?: [a-z_]+=\"[^\"<>\n]*\")*)>")
FENCED = re.compile(r"<([a-z_]+)(?: [a-z_]+=\"[^\"<>\n]*\")*>\n[^<>]*\n</\1>")
HARMLESS = Attempt("none", "log", "none", "target", "upstream timed out", {})


def prompts(attempt: Attempt) -> list[tuple[str, str]]:
    """Of a diagnosis and of a reply, as (system, user)."""
    made = world(attempt)
    asked = diagnosis_prompt(made.question, Wording(redact)), reply_prompt(made.question, made.asked, Wording(redact))
    return [(prompt.system, prompt.user) for prompt in asked]


@pytest.mark.parametrize("channel", sorted({attempt.channel for attempt in ATTEMPTS}))
def test_an_attempt_stays_in_its_fence(channel: str) -> None:
    plain = prompts(replace(HARMLESS, channel=channel))
    for attempt in (one for one in ATTEMPTS if one.channel == channel):
        asked = prompts(attempt)
        assert channel == "event" or any(_beginning(attempt) in _one_line(user) for _, user in asked), attempt.id
        for (system, user), (usual_system, usual_user) in zip(asked, plain, strict=True):
            assert system == usual_system, attempt.id
            tags = TAG.findall(user)
            assert user.count("<") == user.count(">") == len(tags), attempt.id
            opened = [name for closing, name, _ in tags if not closing]
            assert [name for closing, name, _ in tags] == [name for one in opened for name in (one, one)], attempt.id
            assert FENCED.sub("", user) == FENCED.sub("", usual_user), f"{attempt.id}: words of its own outside fences"
            hidden = [char for char in user if unicodedata.category(char)[0] == "C" and char != "\n"]
            assert not hidden, (attempt.id, hidden)


def _beginning(attempt: Attempt) -> str:
    """An attempt has to be in the prompt, or nothing is shown; an event is read by a tool, later."""
    return _one_line(neutralise(redact(attempt.text), 40).rstrip("…"))[:30]


def _one_line(text: str) -> str:
    return text.replace('"', "'").replace("\n", " ")


def test_length_is_bounded_whatever_comes() -> None:
    usual = max(len(user) for _, user in prompts(HARMLESS))
    for attempt in ATTEMPTS[::9]:
        longest = replace(attempt, text=attempt.text * 40)
        assert max(len(user) for _, user in prompts(longest)) < usual + 6000, attempt.id


def test_nothing_is_sent_when_redaction_fails() -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    with pytest.raises(Exception, match="nothing was sent"):
        diagnosis_prompt(world(HARMLESS).question, Wording(broken))


def test_secrets_in_any_channel_are_taken_out_before_the_model() -> None:
    redactor = Redactor(b"known")
    for attempt in ATTEMPTS:
        if attempt.kind != "secret":
            continue
        secret = attempt.payload["secret"]
        assert secret in attempt.text
        assert secret not in redactor.text(attempt.text).text, attempt.id
        assert not [user for _, user in prompts(attempt) if secret in user], attempt.id
