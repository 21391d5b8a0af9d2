"""``/sre …``: parsing what was typed and answering it. The same words work after a mention of the bot."""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.slack import modals, reports
from bot.slack.clean import without_secrets
from bot.slack.client import SLACK_TROUBLE
from bot.slack.front import Front, failure_line
from bot.slack.kit import TEXT_CHARS, Block, fit, paragraphs, section
from bot.slack.payloads import Body, SlashCommand
from bot.slack.text import clip, code, escape, inline, mention, one_line, sentence
from pipeline.domain.approval import TIERS, ApprovalRule, choose_rule
from pipeline.domain.errors import PermanentError, SreBotError
from pipeline.domain.ids import IncidentId, SlackUserId, incident_label, parse_incident_label
from pipeline.domain.severity import Severity

log = logging.getLogger(__name__)

ANSWER_AT_ONCE_S = 2.0
"""Slack waits 3 s; what takes longer is promised first and sent after."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request in words, from a slash command (``trigger_id``) or from a mention (empty)."""

    rest: str
    user: SlackUserId
    team_id: str
    trigger_id: str = ""


_LIKE_KILL = frozenset(
    {"stop", "halt", "pause", "freeze", "abort", "cancel", "off", "disable", "disarm", "shutdown", "quit"}
)
"""What somebody types who wants ``kill`` and does not know its name."""
_SPAN = re.compile(r"(\d{1,4})([smh])")

Answer = list[Block]
Handler = Callable[[Front, Asked], Awaitable[Answer]]


def register(app: AsyncApp, front: Front) -> None:
    """Listens to the command and its two short forms."""

    @app.command(front.command)
    async def any_command(ack: AsyncAck, body: Body, respond: AsyncRespond) -> None:
        await _run(front, ack, respond, SlashCommand.model_validate(body), "")

    @app.command(f"{front.command}-kill")
    async def kill_command(ack: AsyncAck, body: Body, respond: AsyncRespond) -> None:
        await _run(front, ack, respond, SlashCommand.model_validate(body), "kill")

    @app.command(f"{front.command}-phase")
    async def phase_command(ack: AsyncAck, body: Body, respond: AsyncRespond) -> None:
        await _run(front, ack, respond, SlashCommand.model_validate(body), "phase")


async def answer(front: Front, text: str, user: SlackUserId, team_id: str, trigger_id: str = "") -> Answer:
    """The blocks that answer ``text``. Never raises for what a person may get wrong, nor for what we may."""
    verb, _, rest = text.strip().partition(" ")
    handler = _VERBS.get(verb.lower()) if verb else _help
    try:
        asked = Asked(rest.strip(), user, team_id, trigger_id)
        return without_secrets(await (handler(front, asked) if handler is not None else _unknown(front, verb)))
    except SreBotError as error:
        return without_secrets(_line(failure_line(error)))


def summary(blocks: Answer) -> str:
    """The notification's text for an answer."""
    first = blocks[0] if blocks else {}
    return clip(one_line(str(first.get("text", {}).get("text", ""))), TEXT_CHARS) or "sre-bot"


async def _run(front: Front, ack: AsyncAck, respond: AsyncRespond, typed: SlashCommand, verb: str) -> None:
    text = f"{verb} {typed.text}"
    work = asyncio.create_task(answer(front, text, typed.user_id, typed.team_id, typed.trigger_id))
    await asyncio.wait([work], timeout=ANSWER_AT_ONCE_S)
    if work.done():
        blocks = work.result()
        if blocks:
            await ack(text=summary(blocks), blocks=fit(blocks, "… shortened for Slack"))
        else:
            await ack()
        return
    await ack(text="⏳ Working on it …")
    blocks = await work
    try:
        await respond(text=summary(blocks), blocks=fit(blocks, "… shortened for Slack"))
    except SLACK_TROUBLE as error:
        log.warning("the answer to %r did not reach %s: %s", text, typed.user_id, error)


def _line(text: str) -> Answer:
    return [section(text)]


def _text(text: str) -> Answer:
    """Text from outside, with its line breaks."""
    return paragraphs(escape(text).split("\n"))


async def _help(front: Front, asked: Asked) -> Answer:
    del asked
    return _line("\n".join(f"{code(f'{front.command} {usage}')} {what}" for usage, what in HELP))


async def _unknown(front: Front, verb: str) -> Answer:
    close = difflib.get_close_matches(verb.lower(), _VERBS, n=1, cutoff=0.5)
    meant = "kill all <reason>" if re.sub(r"\W", "", verb.lower()) in _LIKE_KILL else close[0] if close else ""
    guess = f" Did you mean {code(f'{front.command} {meant}')}?" if meant else ""
    return [*_line(f"I do not know {code(verb, 60)}.{guess}"), *await _help(front, Asked("", SlackUserId(""), ""))]


async def _status(front: Front, asked: Asked) -> Answer:
    if not asked.rest:
        return reports.status_blocks(await front.desk.status())
    incident_id = _incident(asked.rest)
    case = await front.desk.case(incident_id)
    if case is None:
        raise PermanentError(f"there is no {incident_label(incident_id)}")
    return reports.case_blocks(case)


async def _incidents(front: Front, asked: Asked) -> Answer:
    del asked
    return reports.incidents_blocks(await front.desk.incidents())


async def _approvals(front: Front, asked: Asked) -> Answer:
    del asked
    return reports.approvals_blocks(await front.desk.waiting())


async def _investigate(front: Front, asked: Asked) -> Answer:
    if not asked.rest:
        raise PermanentError(f"name a service: {front.command} investigate checkout")
    service, _, rest = asked.rest.partition(" ")
    since = rest.strip().removeprefix("since").strip()
    if not since:
        return _text(await front.desk.investigate(service, asked.user))
    found = _SPAN.fullmatch(since)
    if found is None:
        raise PermanentError(f"write how far back as 30m or 2h: {front.command} investigate {service} since 30m")
    seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]
    return _text(await front.desk.investigate(service, asked.user, since_s=float(seconds)))


async def _ask(front: Front, asked: Asked) -> Answer:
    first, _, question = asked.rest.partition(" ")
    incident_id = parse_incident_label(first) if first.upper().startswith("INC") else None
    if incident_id is None:
        question = asked.rest
        unfinished = [incident for incident in await front.desk.incidents() if not incident.over]
        services = await front.desk.services_named(question)
        about = [incident for incident in unfinished if incident.service in services]
        if services and not about and question.strip():
            return _text(await front.desk.ask_about(services[0], question.strip(), asked.user))
        about = about or unfinished
        if len(about) != 1:
            which = ", ".join(incident_label(incident.id) for incident in about) or "none is open"
            raise PermanentError(
                f"name a service in the question, or say which incident: {front.command} ask INC-… why? ({which})"
            )
        incident_id = about[0].id
    if not question.strip():
        raise PermanentError(f"ask something: {front.command} ask {incident_label(incident_id)} why?")
    may_propose = not await front.access.check_member(asked.user, asked.team_id)
    return _text(await front.desk.ask(incident_id, question.strip(), asked.user, may_propose=may_propose))


async def _kill(front: Front, asked: Asked) -> Answer:
    why = await front.access.check_may_stop(asked.user, asked.team_id)
    if why:
        return await _denied(front, asked, "kill", why)
    first, _, reason = asked.rest.partition(" ")
    if not reason.strip():
        if not asked.trigger_id:
            raise PermanentError("say why: kill all <reason>, kill env:<name> <reason>, or kill <service> <reason>")
        await front.open_modal(asked.trigger_id, modals.kill_modal(first or "all"))
        return []
    try:
        return _line(sentence(await front.desk.kill(first, reason.strip(), asked.user)))
    except PermanentError as error:
        # In doubt more is stopped, not less: the whole text was the reason.
        done = await front.desk.kill("all", asked.rest, asked.user)
        return _line(f"{sentence(done)}\n_Everything, because: {sentence(str(error))}_")


async def _resume(front: Front, asked: Asked) -> Answer:
    why = await front.access.check(asked.user, asked.team_id)
    if why:
        return await _denied(front, asked, "resume", why)
    engaged = [switch.scope for switch in (await front.desk.status()).switches]
    if not engaged:
        return _line("Nothing is stopped.")
    first, _, reason = asked.rest.partition(" ")
    scope = {one.casefold(): one for one in engaged}.get(first.casefold(), "")
    if not scope and len(engaged) == 1:
        scope, reason = engaged[0], asked.rest
    if not scope:
        raise PermanentError(f"say which: {front.command} resume <scope> <reason>, with {', '.join(engaged)} stopped")
    if not reason.strip():
        raise PermanentError(f"say why: {front.command} resume {scope} <reason>")
    return _line(sentence(await front.desk.resume(scope, reason.strip(), asked.user)))


async def _phase(front: Front, asked: Asked) -> Answer:
    words = asked.rest.split(maxsplit=2)
    if not words:
        return reports.phase_blocks(await front.desk.phase_report())
    if words[0].lower() != "set" or len(words) < 3:
        raise PermanentError(f"write {front.command} phase, or {front.command} phase set <phase> <reason>")
    why = await front.access.check(asked.user, asked.team_id)
    if why:
        return await _denied(front, asked, "phase set", why)
    return _line(sentence(await front.desk.set_phase(words[1].lower(), words[2], asked.user)))


async def _dry_run(front: Front, asked: Asked) -> Answer:
    if not asked.rest:
        raise PermanentError(f"name an incident: {front.command} dry-run INC-42")
    return _text(await front.desk.dry_run(_incident(asked.rest)))


async def _whoami(front: Front, asked: Asked) -> Answer:
    rules = await front.desk.approval_rules()
    may = await front.access.check_rules(asked.user, asked.team_id, rules)
    order = await front.access.check(asked.user, asked.team_id)
    stop = await front.access.check_may_stop(asked.user, asked.team_id)
    tend = await front.access.check_member(asked.user, asked.team_id)
    lines = [
        f"You are {mention(asked.user)} (`{inline(asked.user, 40)}`) of workspace `{inline(asked.team_id, 40)}`.",
        _approving(rules, may),
        f"🔒 You may not resume or set the phase: {sentence(order)}."
        if order
        else "✅ You may resume and set the phase.",
        f"🔒 You may not stop the bot: {sentence(stop)}." if stop else "✅ You may stop the bot.",
        f"🔒 You may not tend incidents: {sentence(tend)}." if tend else "✅ You may tend incidents.",
    ]
    return _line("\n".join(lines))


def _approving(rules: Sequence[ApprovalRule], why_not: Sequence[str]) -> str:
    """For which tiers and severities a person may approve."""
    whys = {(rule.users, rule.groups): why for rule, why in zip(rules, why_not, strict=True)}

    def may(tier: int, severity: Severity) -> bool:
        rule = choose_rule(rules, tier, severity)
        return not whys[rule.users, rule.groups]

    granted = {tier: [severity.value for severity in Severity if may(tier, severity)] for tier in TIERS}
    if not any(granted.values()):
        return f"🔒 You may not approve: {sentence(why_not[-1])}."
    if all(len(granted[tier]) == len(Severity) for tier in TIERS):
        return "✅ You may approve and reject."
    shown = "; ".join(f"tier {tier}: {', '.join(granted[tier])}" for tier in TIERS if granted[tier])
    return f"✅ You may approve and reject for {shown}; nothing else."


async def _denied(front: Front, asked: Asked, what: str, why: str) -> Answer:
    await front.record_denial(None, asked.user, what, why)
    return _line(f"🔒 Not done: {sentence(why)}.")


def _incident(text: str) -> IncidentId:
    incident_id = parse_incident_label(text)
    if incident_id is None:
        raise PermanentError(f"“{one_line(text)[:60]}” is no incident: write INC-42")
    return incident_id


_VERBS: dict[str, Handler] = {
    "status": _status,
    "incidents": _incidents,
    "approvals": _approvals,
    "investigate": _investigate,
    "ask": _ask,
    "kill": _kill,
    "resume": _resume,
    "phase": _phase,
    "dry-run": _dry_run,
    "whoami": _whoami,
    "help": _help,
}
HELP = (
    ("status [INC-42]", "how the bot does, or how an incident stands"),
    ("incidents", "open and recent ones"),
    ("approvals", "what waits for a decision"),
    ("investigate <service> [since 30m]", "evidence on a service now"),
    ("ask [INC-42] <question>", "an answer from the incident's evidence"),
    ("kill [service|env:name|all] <reason>", "stop acting, at once"),
    ("resume [service|env:name|all] <reason>", "let it act again (approvers)"),
    ("phase [set <phase> <reason>]", "phase and graduation criteria"),
    ("dry-run <INC-42>", "what the action would do, without doing it"),
    ("whoami", "what you may do"),
    ("help", "this list"),
)
