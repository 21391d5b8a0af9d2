"""App Home: what waits for a decision, what is open, what was done, the phase, and the kill switch."""

from __future__ import annotations

import logging

from slack_bolt.async_app import AsyncApp

from bot.slack import names
from bot.slack.blocks import validate_view
from bot.slack.cards import decision_buttons
from bot.slack.client import SLACK_TROUBLE, translate
from bot.slack.front import Front, failure_line
from bot.slack.kit import Block, View, actions, button, context, divider, header, paragraphs, section
from bot.slack.payloads import Body, EventCall
from bot.slack.reports import criteria_lines, incident_line, switch_line
from bot.slack.standing import standing
from bot.slack.text import clock, code, inline
from bot.slack.wording import started_at
from pipeline.domain.action import ManualAction
from pipeline.domain.action_words import describe_action
from pipeline.domain.errors import SreBotError
from pipeline.domain.ids import SlackUserId, incident_label
from pipeline.domain.incident import Case
from pipeline.stages.desk import PhaseReport, Status

log = logging.getLogger(__name__)

MAX_PENDING = 8
MAX_LISTED = 10


def register(app: AsyncApp, front: Front) -> None:
    """Draws the Home tab whenever somebody opens it."""

    @app.event("app_home_opened")
    async def opened(body: Body) -> None:
        call = EventCall.model_validate(body)
        if call.event.tab == "home" and call.event.user is not None:
            await refresh(front, call.event.user)


async def refresh(front: Front, user: SlackUserId, said: str = "") -> None:
    """Publishes the Home tab of ``user``, with ``said`` (safe mrkdwn) on top. Trouble is logged: it is only a view."""
    try:
        view = await _draw(front, said)
    except SreBotError as error:
        view = {"type": "home", "blocks": [section(failure_line(error))]}
    problems = validate_view(view)
    if problems:
        log.error("Home of %s: Slack would refuse it: %s", user, problems[0])
        view = {"type": "home", "blocks": [section(f"Home could not be drawn. `{front.command} status` works.")]}
    try:
        await front.client.views_publish(user_id=user, view=view)
    except SLACK_TROUBLE as error:
        log.warning("Home of %s was not published: %s", user, translate(error, "views.publish"))


async def _draw(front: Front, said: str) -> View:
    status = await front.desk.status()
    report = await front.desk.phase_report()
    waiting = await front.desk.waiting()
    recent = [incident for incident in await front.desk.incidents(limit=2 * MAX_LISTED) if incident.over]
    blocks: list[Block] = [section(said), divider()] if said else []
    blocks.append(header(f"Pending approvals: {len(waiting)}"))
    for case in waiting[:MAX_PENDING]:
        blocks += _pending(case)
    if len(waiting) > MAX_PENDING:
        blocks.append(context(f"{len(waiting) - MAX_PENDING} more: `{front.command} approvals`"))
    if not waiting:
        blocks.append(section("Nothing waits for a decision."))
    blocks += [divider(), header("Open incidents")]
    blocks += paragraphs([incident_line(incident) for incident in status.open_incidents[:MAX_LISTED]] or ["None."])
    blocks += [divider(), header("Last actions")]
    blocks += paragraphs([incident_line(incident) for incident in recent[:MAX_LISTED]] or ["None yet."])
    blocks += [divider(), *_phase(report), divider(), *_switches(status)]
    return {"type": "home", "blocks": blocks[:100]}


def _pending(case: Case) -> list[Block]:
    plan = case.plan
    if plan is None or isinstance(plan.action, ManualAction):
        return []
    where = f" · target {code(plan.target.describe(), 120)}" if plan.target else ""
    lines = [
        f"*{incident_label(case.incident.id)} · {case.incident.severity} · {inline(case.incident.service, 80)}*"
        f" · {inline(case.incident.title, 150)}",
        f"{inline(describe_action(plan.action), 200)}{where} · since {clock(started_at(case))}"
        f" · expires {clock(plan.expires_at)}",
    ]
    line = standing(case).line
    buttons = decision_buttons(case)
    return [section("\n".join([*lines, *([line] if line else [])])), *([actions(*buttons)] if buttons else [])]


def _phase(report: PhaseReport) -> list[Block]:
    return [header(f"Phase: {report.phase.capitalize()}"), *paragraphs(criteria_lines(report))]


def _switches(status: Status) -> list[Block]:
    blocks = [header("Kill switch")]
    if not status.switches:
        stop = button("Stop everything", names.KILL, "all", style="danger")
        return [*blocks, section("Off: the bot may act within its phase."), actions(stop)]
    for switch in status.switches[:MAX_LISTED]:
        blocks.append(section(switch_line(switch)))
    buttons = [
        button(f"Resume {switch.scope}", f"{names.RESUME}:{at}", switch.scope)
        for at, switch in enumerate(status.switches[:5])
    ]
    if all(switch.scope != "all" for switch in status.switches):
        buttons.append(button("Stop everything", names.KILL, "all", style="danger"))
    return [*blocks, actions(*buttons)]
