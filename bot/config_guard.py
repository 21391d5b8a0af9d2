"""Settings of who decides and of what must hold before anything is changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from bot.config_types import Count, Group, Positive, Ratio, Variable


class GuardSettings(Group):
    approval_ttl_s: Annotated[
        Positive, Variable("SRE_APPROVAL_TTL_S", "seconds", "a proposal nobody decides expires")
    ] = 1800.0
    approvals_severe: Annotated[
        Count, Variable("SRE_APPROVALS_SEVERE", "people", "needed at SEV1/SEV2 and for tier 1 services")
    ] = 2
    remind_after_s: Annotated[
        tuple[Positive, ...],
        Variable("SRE_REMIND_AFTER_S", "seconds", "comma-separated: people are reminded of what waits so long"),
    ] = (300.0, 900.0)
    escalate_after_s: Annotated[
        Positive, Variable("SRE_ESCALATE_AFTER_S", "seconds", "whoever is on call is paged for one that waits so long")
    ] = 1200.0
    pagerduty_routing_key: Annotated[
        SecretStr | None,
        Variable("PAGERDUTY_ROUTING_KEY", "text", "of an Events API v2 integration; empty: nobody is paged"),
    ] = None
    pagerduty_url: Annotated[
        str,
        Field(pattern=r"^https?://[^\s/]+"),
        Variable("PAGERDUTY_URL", "URL", "where events go, such as the one of PagerDuty's EU region"),
    ] = "https://events.pagerduty.com/v2/enqueue"
    resume_people: Annotated[Count, Variable("SRE_RESUME_PEOPLE", "people", "needed to release a kill switch")] = 2
    max_share: Annotated[Ratio, Variable("SRE_MAX_SHARE", "ratio", "share of ready replicas down at once")] = 0.5
    max_callers: Annotated[int, Field(ge=0), Variable("SRE_MAX_CALLERS", "services", "that may feel an action")] = 10
    max_tier1_callers: Annotated[
        int, Field(ge=0), Variable("SRE_MAX_TIER1_CALLERS", "services", "of tier 1 that may feel an action")
    ] = 5
    batch_share: Annotated[
        Ratio, Variable("SRE_BATCH_SHARE", "ratio", "share of ready replicas restarted at once after the first one")
    ] = 0.25
    canary_watch_s: Annotated[
        Positive, Variable("SRE_CANARY_WATCH_S", "seconds", "the first replica of several is watched this long")
    ] = 60.0
    cooldown_s: Annotated[
        Positive, Variable("SRE_COOLDOWN_S", "seconds", "between two actions of one kind on a target, failed ones too")
    ] = 600.0
    rest_s: Annotated[
        Positive,
        Variable("SRE_REST_S", "seconds", "of a target between any two actions; never longer than SRE_COOLDOWN_S"),
    ] = 300.0
    max_actions_target_hour: Annotated[
        Count, Variable("SRE_MAX_ACTIONS_TARGET_HOUR", "actions", "on one target an hour")
    ] = 2
    max_actions_hour: Annotated[Count, Variable("SRE_MAX_ACTIONS_HOUR", "actions", "in all an hour")] = 10
    max_concurrent: Annotated[
        Count, Variable("SRE_MAX_CONCURRENT", "executions", "open at a time; on one target it is always one")
    ] = 3
    ineffective_s: Annotated[
        Positive,
        Variable(
            "SRE_INEFFECTIVE_S", "seconds", "in which an action that did not help the same trouble is not repeated"
        ),
    ] = 86_400.0
    max_reversals: Annotated[
        Count,
        Variable("SRE_MAX_REVERSALS", "changes of direction", "of a target's replicas in an hour that end scaling"),
    ] = 2
    initial_phase: Annotated[
        Literal["shadow", "assist"],
        Variable("SRE_INITIAL_PHASE", "phase", "of a new database; afterwards `/sre phase set` decides"),
    ] = "shadow"
