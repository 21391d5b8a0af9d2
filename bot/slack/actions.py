"""Clicks on the card and on App Home. A decision is in the database before its click is acknowledged."""

from __future__ import annotations

import logging
import re

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot.slack import home, modals, names
from bot.slack.front import Front, failure_line, text_modal
from bot.slack.kit import View, context, fit, modal
from bot.slack.payloads import Body, Click
from bot.slack.standing import awaits_decision
from bot.slack.text import escape, sentence
from bot.slack.thread import evidence_blocks
from bot.slack.wording import takeable
from pipeline.domain.approval import Ballot, DecisionOutcome
from pipeline.domain.errors import SreBotError
from pipeline.domain.ids import IncidentId, incident_label

log = logging.getLogger(__name__)

_DONE = frozenset({DecisionOutcome.ACCEPTED, DecisionOutcome.COUNTED})
_OLD_BUTTON = "This button is from an older version of the card."
_NO_SUCH_PLAN = "This proposal is not known here. Nothing was changed."


def register(app: AsyncApp, front: Front) -> None:
    """Listens to every button and menu."""

    @app.action(names.APPROVE)
    async def approve(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        try:
            ballot = await _ballot(front, ack, click, "approve")
            if ballot is None:
                return
            result = await front.desk.approve(ballot.plan_id, click.user_id, noted=ack)
        except SreBotError as error:
            # Not acknowledged: Slack marks the click as failed beside what is said here.
            await _tell(front, click, failure_line(error))
            raise
        await ack()
        if result.outcome not in _DONE:
            await _tell(front, click, sentence(result.message))
        elif click.on_home:
            await _tell(front, click, f"✅ {sentence(result.message)}")

    @app.action(names.REJECT)
    async def reject(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        try:
            ballot = await _ballot(front, ack, click, "reject")
        except SreBotError as error:
            await _tell(front, click, failure_line(error))
            raise
        if ballot is not None:
            await _open(front, ack, click, modals.reject_modal(click.token))

    @app.action(names.OTHER_WAYS)
    async def other_ways(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        try:
            ballot = await _ballot(front, ack, click, "replace")
            case = await front.desk.case(ballot.incident_id) if ballot is not None else None
        except SreBotError as error:
            await _tell(front, click, failure_line(error))
            raise
        if ballot is None:
            return
        plan = case.plan if case is not None and awaits_decision(case) else None
        if plan is None or plan.id != ballot.plan_id or not takeable(plan):
            await ack()
            await _tell(front, click, "Too late: this proposal does not wait any more. Look at the card.")
            return
        await _open(front, ack, click, modals.other_ways_modal(plan, click.channel.id if click.channel else ""))

    @app.action(names.EVIDENCE)
    async def evidence(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        try:
            view = await _evidence(front, click.incident_id)
        except SreBotError as error:
            view = text_modal("Evidence", failure_line(error))
        await _open(front, ack, click, view)

    @app.action(names.DRY_RUN)
    async def dry_run(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        if click.incident_id is None:
            await ack()
            await _tell(front, click, _OLD_BUTTON)
            return
        view_id = await _open(front, ack, click, text_modal("Dry run", "⏳ Reading the target …"))
        if view_id is None:
            return
        try:
            text = escape(await front.desk.dry_run(click.incident_id))
        except SreBotError as error:
            text = failure_line(error)
        await front.update_modal(view_id, text_modal("Dry run", text))

    @app.action(names.MORE)
    async def more(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        what = click.value.partition(":")[0]
        why = await front.access.check_member(click.user_id, click.team_id)
        try:
            incident_id = await _incident(front, click, what)
            if incident_id is None or why:
                await ack()
                await _tell(front, click, f"Not done: {why}" if why else _OLD_BUTTON)
                if why:
                    await front.record_denial(incident_id, click.user_id, what, why)
                return
            done = await _do(front, what, incident_id, click)
        except SreBotError as error:
            await _tell(front, click, failure_line(error))
            raise
        await ack()
        await _tell(front, click, sentence(done))

    @app.action(re.compile(rf"^({names.HELPFUL}|{names.NOT_HELPFUL})$"))
    async def feedback(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        why = await front.access.check_member(click.user_id, click.team_id)
        incident_id = await _incident(front, click, "feedback")
        if incident_id is None or why:
            await ack()
            await _tell(front, click, f"Not noted: {why}" if why else _OLD_BUTTON)
            return
        helpful = click.actions[0].action_id == names.HELPFUL
        said = await front.desk.feedback(incident_id, click.user_id, helpful=helpful)
        await ack()
        await _tell(front, click, said)

    @app.action(names.WRONG_CAUSE)
    async def wrong_cause(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        incident_id = await _incident(front, click, "wrong cause")
        rule = await front.desk.rule_of(incident_id) if incident_id is not None else None
        if incident_id is None or rule is None:
            await ack()
            await _tell(front, click, _OLD_BUTTON)
            return
        why = await front.access.check_rule(click.user_id, click.team_id, rule)
        if why:
            await ack()
            await _tell(front, click, f"🔒 You may not decide: {sentence(why)}. Nothing was changed.")
            await front.record_denial(incident_id, click.user_id, "wrong cause", why)
            return
        said = await front.desk.wrong_cause(incident_id, click.user_id)
        await ack()
        await _tell(front, click, said)

    @app.action(names.KILL)
    async def kill(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        await _open(front, ack, click, modals.kill_modal(click.value or "all"))

    @app.action(re.compile(rf"^{names.RESUME}(:\d+)?$"))
    async def resume(ack: AsyncAck, body: Body) -> None:
        click = Click.model_validate(body)
        await _open(front, ack, click, modals.resume_modal(click.value or "all"))


async def _ballot(front: Front, ack: AsyncAck, click: Click, verb: str) -> Ballot | None:
    """What this person may decide; None when they were told why not, and the trail was."""
    here = await front.incident_of_click(click)
    ballot = await front.desk.ballot(click.token) if click.token else None
    if ballot is None or here not in (None, ballot.incident_id):
        await ack()
        await _tell(front, click, _NO_SUCH_PLAN if click.token else _OLD_BUTTON)
        if click.token:
            await front.record_denial(here, click.user_id, f"{verb} a plan", "the button names no plan of this card")
        return None
    why = await front.access.check_rule(click.user_id, click.team_id, ballot.rule)
    if not why:
        return ballot
    await ack()
    await _tell(front, click, f"🔒 You may not decide: {sentence(why)}. Nothing was changed.")
    await front.record_denial(ballot.incident_id, click.user_id, f"{verb} plan {ballot.plan_id}", why)
    return None


async def _incident(front: Front, click: Click, what: str) -> IncidentId | None:
    """The incident that a button names. None when it names none, or another one than the card that it stands on."""
    here = await front.incident_of_click(click)
    if here is None or here == click.incident_id:
        return click.incident_id
    await front.record_denial(here, click.user_id, what, "the button names another incident than its card")
    return None


async def _tell(front: Front, click: Click, text: str) -> None:
    """Says it where the click was made, to that person alone."""
    if click.on_home:
        await home.refresh(front, click.user_id, said=text)
    elif click.channel is not None:
        await front.whisper(click.channel.id, click.user_id, text)


async def _open(front: Front, ack: AsyncAck, click: Click, view: View) -> str | None:
    try:
        view_id = await front.open_modal(click.trigger_id, view)
    except SreBotError as error:
        log.warning("a window for %s did not open: %s", click.user_id, error)
        await ack()
        await _tell(front, click, "⚠️ Slack did not open the window in time. Please click again.")
        return None
    await ack()
    return view_id


async def _evidence(front: Front, incident_id: IncidentId | None) -> View:
    case = await front.desk.case(incident_id) if incident_id is not None else None
    if case is None:
        return text_modal("Evidence", "This incident is not known any more.")
    title = f"{incident_label(case.incident.id)} evidence"
    note = "The reasoning, with retrieved passages and the arithmetic, stands in the thread."
    return modal(title, [*fit(evidence_blocks(case), "… shortened for Slack"), context(note)])


async def _do(front: Front, what: str, incident_id: IncidentId, click: Click) -> str:
    match what:
        case names.MORE_MUTE:
            return await front.desk.mute(incident_id, click.user_id)
        case names.MORE_NOT_AN_INCIDENT:
            return await front.desk.not_an_incident(incident_id, click.user_id)
        case names.MORE_TAKE_OWNERSHIP:
            return await front.desk.take_ownership(incident_id, click.user_id)
        case names.MORE_ESCALATE:
            return await front.desk.escalate(incident_id, click.user_id)
        case names.MORE_CLOSE:
            return await front.desk.close(incident_id, click.user_id)
        case _:
            return _OLD_BUTTON
