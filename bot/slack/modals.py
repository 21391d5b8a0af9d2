"""Windows that ask for a reason, and what happens when they are sent."""

from __future__ import annotations

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot.redacting import redact
from bot.slack import home, names
from bot.slack.front import Front, failure_line, text_modal
from bot.slack.kit import View, modal, section, text_input
from bot.slack.payloads import Submission, parse_token
from bot.slack.text import plain, sentence
from pipeline.domain.approval import DecisionOutcome
from pipeline.domain.errors import SreBotError

MIN_REASON_CHARS = 3
_DONE = frozenset({DecisionOutcome.ACCEPTED, DecisionOutcome.COUNTED})


def reject_modal(token: str) -> View:
    """Asks why; carries the plan's random name and nothing else."""
    asked = text_input(
        "Why not?",
        names.REASON_BLOCK,
        names.TYPED,
        hint="It stands on the card and teaches the bot what not to propose.",
        min_length=MIN_REASON_CHARS,
    )
    return modal("Reject the proposal", [asked], submit="Reject", callback_id=names.REJECT_VIEW, metadata=token)


def kill_modal(scope: str = "all") -> View:
    """Asks what to stop and why."""
    return modal(
        "Stop the bot",
        [section("Nothing more is changed from the moment this is sent."), *_scope_and_reason(scope)],
        submit="Stop",
        callback_id=names.KILL_VIEW,
    )


def resume_modal(scope: str = "all") -> View:
    """Asks what may run again and why."""
    return modal(
        "Let the bot run again",
        [section("For `all` two approvers must ask."), *_scope_and_reason(scope)],
        submit="Resume",
        callback_id=names.RESUME_VIEW,
    )


def _scope_and_reason(scope: str) -> list[dict[str, Any]]:
    return [
        text_input(
            "What",
            names.SCOPE_BLOCK,
            names.TYPED,
            hint="all, env: and an environment, or one service",
            initial=plain(scope, 100),
        ),
        text_input("Why", names.REASON_BLOCK, names.TYPED, hint="One line for the trail.", min_length=MIN_REASON_CHARS),
    ]


def register(app: AsyncApp, front: Front) -> None:
    """Listens to the windows of this file."""

    @app.view(names.REJECT_VIEW)
    async def rejected(ack: AsyncAck, body: dict[str, Any]) -> None:
        sent = Submission.model_validate(body)
        token = parse_token(sent.view.private_metadata)
        reason = redact(sent.typed(names.REASON_BLOCK))  # kept with the decision, word for word
        if not token:
            await _complain(ack, "This window is from an older version: reject on the card.")
            return
        if len(reason) < MIN_REASON_CHARS:
            await _complain(ack, f"Say why, in {MIN_REASON_CHARS} characters or more.")
            return
        try:
            ballot = await front.desk.ballot(token)
            if ballot is None:
                await _complain(ack, "This proposal is not known here.")
                return
            why = await front.access.check_rule(sent.user_id, sent.team_id, ballot.rule)
            if why:
                await _complain(ack, f"You may not decide: {why}")
                await front.record_denial(ballot.incident_id, sent.user_id, f"reject plan {ballot.plan_id}", why)
                return
            result = await front.desk.reject(ballot.plan_id, sent.user_id, reason)
        except SreBotError as error:
            await _complain(ack, failure_line(error))
            return
        if result.outcome in _DONE:
            await ack()
        else:
            await ack(response_action="update", view=text_modal("Not rejected", sentence(result.message)))
        await home.refresh(front, sent.user_id)

    @app.view(names.KILL_VIEW)
    async def killed(ack: AsyncAck, body: dict[str, Any]) -> None:
        sent = Submission.model_validate(body)
        scope, reason = sent.typed(names.SCOPE_BLOCK) or "all", sent.typed(names.REASON_BLOCK)
        why = await front.access.check_may_stop(sent.user_id, sent.team_id)
        if why:
            await _complain(ack, why)
            await front.record_denial(None, sent.user_id, f"kill {scope}", why)
            return
        try:
            done = await front.desk.kill(scope, reason, sent.user_id)
        except SreBotError as error:
            await _complain(ack, failure_line(error))
            return
        await ack(response_action="update", view=text_modal("Stopped", sentence(done)))
        await home.refresh(front, sent.user_id)

    @app.view(names.RESUME_VIEW)
    async def resumed(ack: AsyncAck, body: dict[str, Any]) -> None:
        sent = Submission.model_validate(body)
        scope, reason = sent.typed(names.SCOPE_BLOCK) or "all", sent.typed(names.REASON_BLOCK)
        why = await front.access.check(sent.user_id, sent.team_id)
        if why:
            await _complain(ack, why)
            await front.record_denial(None, sent.user_id, f"resume {scope}", why)
            return
        try:
            done = await front.desk.resume(scope, reason, sent.user_id)
        except SreBotError as error:
            await _complain(ack, failure_line(error))
            return
        await ack(response_action="update", view=text_modal("Resume", sentence(done)))
        await home.refresh(front, sent.user_id)


async def _complain(ack: AsyncAck, text: str) -> None:
    """Keeps the window open with the text under its reason."""
    await ack(response_action="errors", errors={names.REASON_BLOCK: plain(redact(text), 300)})
