"""Windows that ask for a reason, and what happens when they are sent."""

from __future__ import annotations

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot.redacting import redact
from bot.slack import home, names
from bot.slack.front import Front, failure_line, text_modal
from bot.slack.kit import View, choice_input, modal, section, text_input
from bot.slack.payloads import Submission, parse_number, parse_token
from bot.slack.text import escape, inline, plain, sentence
from bot.slack.wording import at_stake, plan_at_stake, takeable, way_name
from pipeline.domain.action_words import describe_action
from pipeline.domain.approval import DecisionOutcome
from pipeline.domain.errors import SreBotError
from pipeline.domain.plan import Plan

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


def other_ways_modal(plan: Plan, channel: str) -> View:
    """Asks which of the plan's alternatives shall take its place; an option's value is its place in the plan.

    ``channel``: where the person is told what came of it; empty on App Home.
    """
    options = [
        (way_name(plan, way), str(number), f"{at_stake(way.risk, reversible=way.reversible)} · {way.effect}")
        for number, way in takeable(plan)
    ]
    chosen = choice_input(
        "Propose instead",
        names.WAY_BLOCK,
        names.TYPED,
        options,
        hint="It is checked first. You ask for it, so somebody else has to approve it.",
    )
    now = section(f"Proposed now: *{inline(describe_action(plan.action), 300)}* · {plan_at_stake(plan)}")
    where = f"{plan.token} {channel}".rstrip()
    return modal("Other ways", [now, chosen], submit="Propose", callback_id=names.OTHER_WAYS_VIEW, metadata=where)


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

    @app.view(names.OTHER_WAYS_VIEW)
    async def another_way(ack: AsyncAck, body: dict[str, Any]) -> None:
        sent = Submission.model_validate(body)
        named, _, channel = sent.view.private_metadata.partition(" ")
        token, number = parse_token(named), parse_number(sent.chosen(names.WAY_BLOCK))
        try:
            ballot = await front.desk.ballot(token) if token else None
            if ballot is None or number is None:
                await _complain(ack, "This proposal is not known here.", names.WAY_BLOCK)
                return
            why = await front.access.check_rule(sent.user_id, sent.team_id, ballot.rule)
            if why:
                await _complain(ack, f"You may not decide: {why}", names.WAY_BLOCK)
                await front.record_denial(ballot.incident_id, sent.user_id, f"replace plan {ballot.plan_id}", why)
                return
            # The window closes: reading the targets may take longer than Slack waits.
            said = escape(await front.desk.another_way(ballot.plan_id, number, sent.user_id, noted=ack))
        except SreBotError as error:
            await _complain(ack, failure_line(error), names.WAY_BLOCK)
            return
        if channel:
            await front.whisper(channel, sent.user_id, said)
        else:
            await home.refresh(front, sent.user_id, said=said)

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


async def _complain(ack: AsyncAck, text: str, block_id: str = names.REASON_BLOCK) -> None:
    """Keeps the window open with the text under what was entered."""
    await ack(response_action="errors", errors={block_id: plain(redact(text), 300)})
