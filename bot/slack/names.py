"""The ids by which Slack tells us what was clicked or sent. A value carries an opaque id, nothing else."""

from __future__ import annotations

from typing import Final

APPROVE: Final = "approve"
REJECT: Final = "reject"
EVIDENCE: Final = "evidence"
DRY_RUN: Final = "dry_run"
OTHER_WAYS: Final = "other_ways"
MORE: Final = "more"
"""The overflow menu; an option's value is ``<one of MORE_…>:<incident id>``."""
HELPFUL: Final = "helpful"
NOT_HELPFUL: Final = "not_helpful"
"""Feedback below the closing summary; the value is the incident's id."""
WRONG_CAUSE: Final = "wrong_cause"
"""Below the reasoning and the summary; the value is the incident's id."""
KILL: Final = "kill"
RESUME: Final = "resume"

MORE_MUTE: Final = "mute"
MORE_NOT_AN_INCIDENT: Final = "not_an_incident"
MORE_TAKE_OWNERSHIP: Final = "take_ownership"
MORE_ESCALATE: Final = "escalate"
MORE_CLOSE: Final = "close"

REJECT_VIEW: Final = "reject_view"
KILL_VIEW: Final = "kill_view"
RESUME_VIEW: Final = "resume_view"
OTHER_WAYS_VIEW: Final = "other_ways_view"

REASON_BLOCK: Final = "reason"
SCOPE_BLOCK: Final = "scope"
WAY_BLOCK: Final = "way"
TYPED: Final = "typed"
"""action_id of every text input and choice; the block tells them apart."""

EVENT_TYPE: Final = "sre_bot_outbox"
"""Metadata of every message from the outbox."""
