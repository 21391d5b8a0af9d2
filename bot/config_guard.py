"""Settings of who decides and of what must hold before anything is changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bot.config_types import Count, Group, Positive, Ratio, Variable


class GuardSettings(Group):
    approval_ttl_s: Annotated[
        Positive, Variable("SRE_APPROVAL_TTL_S", "seconds", "a proposal nobody decides expires")
    ] = 1800.0
    approvals_severe: Annotated[
        Count, Variable("SRE_APPROVALS_SEVERE", "people", "needed at SEV1/SEV2 and for tier 1 services")
    ] = 2
    resume_people: Annotated[Count, Variable("SRE_RESUME_PEOPLE", "people", "needed to release a kill switch")] = 2
    max_share: Annotated[Ratio, Variable("SRE_MAX_SHARE", "ratio", "share of ready replicas down at once")] = 0.5
    max_callers: Annotated[int, Field(ge=0), Variable("SRE_MAX_CALLERS", "services", "that may feel an action")] = 10
    cooldown_s: Annotated[Positive, Variable("SRE_COOLDOWN_S", "seconds", "rest of a target after any action")] = 600.0
    max_actions_target_hour: Annotated[
        Count, Variable("SRE_MAX_ACTIONS_TARGET_HOUR", "actions", "on one target an hour")
    ] = 2
    max_actions_hour: Annotated[Count, Variable("SRE_MAX_ACTIONS_HOUR", "actions", "in all an hour")] = 10
    initial_phase: Annotated[
        Literal["shadow", "assist"],
        Variable("SRE_INITIAL_PHASE", "phase", "of a new database; afterwards `/sre phase set` decides"),
    ] = "shadow"
