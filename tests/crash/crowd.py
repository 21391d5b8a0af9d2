"""What people do in a trial: they look at the card, press its buttons, and press again when Slack says it failed."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import aiohttp

from bot.demo.slack.people import RefusedError
from bot.demo.slack.person import NoSuchElementError, Person
from bot.slack.names import APPROVE, REASON_BLOCK, REJECT, TYPED
from tests.crash.invariants import Acknowledged
from tests.crash.plans import TrialPlan
from tests.crash.slack import CHANNEL, FaultySlack
from tests.stored import Waiting

READY_S = 60.0


class Crowd:
    """The part of a trial that clicks."""

    _plan: TrialPlan
    _people: list[Person]
    _slack: FaultySlack
    _decided: list[tuple[datetime, int, str, str]]
    _acknowledged: list[Acknowledged]

    async def _card(self, case: Waiting) -> str:
        """Waits for the card with its button; its ts."""
        label = f"INC-{case.incident.id}"

        def card_with_its_button(state: dict[str, Any]) -> str:
            return next((m["ts"] for m in state["messages"][CHANNEL] if label in str(m) and _has_approve(m)), "")

        return await self._people[0].wait_for(card_with_its_button, READY_S)

    async def _clicks(self, cards: list[tuple[Waiting, str]]) -> None:
        plan = self._plan
        alice, bob = self._people
        first = cards[0]
        match plan.click:
            case "once" | "to_both":
                self._slack.deliver_to_all = plan.click == "to_both"
                for person in self._people[: plan.people]:
                    await self._press(person, *first)
                self._slack.deliver_to_all = False
            case "twice":
                await asyncio.gather(*(self._press(alice, *first) for _ in range(3)))
            case "both_people":
                await asyncio.gather(self._press(alice, *first), self._press(bob, *first))
            case "two_cards":
                await asyncio.gather(*(self._press(alice, *card) for card in cards))
            case "yes_and_no":
                await asyncio.gather(self._press(alice, *first), self._reject(bob, *first))

    async def _reject(self, person: Person, case: Waiting, ts: str) -> None:
        del case
        try:
            await person.click(CHANNEL, ts, REJECT)
            view_id = await person.wait_for(lambda state: next((v["id"] for v in state["modals"] if v), ""), 10)
            await person.submit(view_id, {REASON_BLOCK: {TYPED: "a deploy is running"}})
        except (RefusedError, NoSuchElementError, aiohttp.ClientError, TimeoutError):
            return  # too late is an answer, too

    async def _press(self, person: Person, waiting: Waiting, ts: str) -> None:
        """Presses Approve; again when Slack says that it did not work, for as long as the button is there."""
        deadline = time.monotonic() + 45.0
        while time.monotonic() < deadline:
            try:
                await person.click(CHANNEL, ts, APPROVE)
            except NoSuchElementError:
                return
            except (RefusedError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.3)
                continue
            plan_id = int(waiting.plan.id)
            said = [one for one in self._decided if one[1:3] == (plan_id, person.user_id)]
            if any(outcome in ("accepted", "counted") for *_, outcome in said):
                at = next(when for when, _, _, outcome in said if outcome in ("accepted", "counted"))
                self._acknowledged.append(Acknowledged(plan_id, person.user_id, at))
                return
            if said and said[-1][3] == "blocked":
                return
            if said:
                return
            await asyncio.sleep(0.3)  # taken, and answered by a replica that could not ask who this is


def _has_approve(message: dict[str, Any]) -> bool:
    elements = [element for block in message.get("blocks", []) for element in block.get("elements", [])]
    return any(isinstance(one, dict) and one.get("action_id") == APPROVE for one in elements)
