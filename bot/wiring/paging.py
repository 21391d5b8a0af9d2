"""Who is called when nobody looks at the chat."""

from __future__ import annotations

from bot.config_guard import GuardSettings
from pipeline.adapters.notify.pagerduty import PagerDuty
from pipeline.ports.pager import Pager

NO_PAGER = "no PAGERDUTY_ROUTING_KEY: nobody is paged, escalations stand in Slack alone"


def pager_of(guard: GuardSettings, fallbacks: list[str]) -> Pager | None:
    """PagerDuty where a routing key is set; else it is named among ``fallbacks``."""
    if guard.pagerduty_routing_key is None:
        fallbacks.append(NO_PAGER)
        return None
    return PagerDuty(guard.pagerduty_routing_key, url=guard.pagerduty_url)
