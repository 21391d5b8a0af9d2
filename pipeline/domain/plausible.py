"""Values that no service can have: a unit that was changed, a counter that ran backwards. Pure."""

from __future__ import annotations

from pipeline.domain.baseline import BaselineBank
from pipeline.domain.telemetry import Sample, Signal, Unit

MAX_RATIO = 2.0
"""Over a quota or a soft limit a ratio may be above 1; at 2 and more it is a percentage."""
ENDLESS_S = 60.0
"""No interactive request is waited for longer; together with ``OTHER_UNIT`` it tells milliseconds from seconds."""
OTHER_UNIT = 500.0
"""A jump by this factor is closer to a change of unit (1000) than to any queue."""


def implausible(sample: Sample, bank: BaselineBank) -> str:
    """Why the value cannot be what its series says it is, in the words of the counts on ``/sre status``; "" if it can.

    A value that is turned away neither alarms nor teaches.
    """
    value, key = sample.value, sample.key
    if value < 0 and key.signal is not Signal.CERT_REMAINING:
        return "negative"
    if key.unit is Unit.RATIO and value >= MAX_RATIO:
        return "no ratio (a percentage?)"
    if key.signal is Signal.LATENCY_P99 and value > ENDLESS_S:
        expected = bank.expect(key, sample.at)
        if expected.known and value >= OTHER_UNIT * expected.mean > 0:
            return "another unit (milliseconds?)"
    return ""
