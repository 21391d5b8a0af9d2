"""From flags to pages, and how good the pages were: what a person on call would have seen of a detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import median

import numpy as np
import numpy.typing as npt

MERGE_S = 1800.0
"""Flags no further apart than this are one run, and page once."""
RESEND_S = 14_400.0
"""A run that goes on pages again after this long."""
TOLERANCE_S = 300.0
"""How far outside a labelled interval a page may lie and still belong to it: labels are set by hand."""
DAY_S = 86_400.0

Interval = tuple[float, float]
"""Start and end of a labelled event, epoch seconds, both ends inside."""


@dataclass(frozen=True, slots=True)
class Page:
    """One run of flags from ``start`` to ``end`` (epoch seconds of its first and last flag) and when it was sent."""

    start: float
    end: float
    sent: tuple[float, ...]

    def stretches(self) -> list[Interval]:
        """For each sending: the part of the run it speaks for, up to the next sending or the run's end."""
        ends = [*self.sent[1:], self.end]
        return list(zip(self.sent, ends, strict=True))


@dataclass(frozen=True, slots=True)
class Quality:
    """How pages met labels. Shares are NaN where there is nothing to take a share of."""

    sent: int
    """Pages sent; each sending counts."""
    true: int
    """Of these, the ones that met a labelled event."""
    events: int
    touched: int
    """Labelled events that a page met."""
    days: float
    """Days scored, summed over the series."""
    delays_s: tuple[float, ...]
    """For each touched event: from its start to the first page that met it; 0 when the page came first."""

    @property
    def precision(self) -> float:
        return self.true / self.sent if self.sent else nan

    @property
    def recall(self) -> float:
        return self.touched / self.events if self.events else nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when no page met an event."""
        if not self.true or not self.touched:
            return 0.0 if self.sent or self.events else nan
        return 2.0 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def delay_s(self) -> float:
        """Median delay of the touched events; NaN without one."""
        return median(self.delays_s) if self.delays_s else nan

    @property
    def false_pages_per_day(self) -> float:
        """False pages per series and day."""
        return (self.sent - self.true) / self.days if self.days else nan


def pages(
    ts: Sequence[float] | npt.NDArray[np.float64],
    flags: Sequence[bool] | npt.NDArray[np.bool_],
    merge_s: float = MERGE_S,
    resend_s: float = RESEND_S,
) -> list[Page]:
    """The pages that ``flags`` at ``ts`` (epoch seconds, ascending, same length) would have sent.

    A run sends at its first flag, and again at the first flag that is ``resend_s`` or more after its last sending.
    """
    flagged = np.asarray(ts, dtype=np.float64)[np.asarray(flags, dtype=np.bool_)]
    found: list[Page] = []
    sent: list[float] = []
    start = end = nan
    for at in flagged.tolist():
        if sent and at - end <= merge_s:
            if at - sent[-1] >= resend_s:
                sent.append(at)
        else:
            if sent:
                found.append(Page(start, end, tuple(sent)))
            start, sent = at, [at]
        end = at
    if sent:
        found.append(Page(start, end, tuple(sent)))
    return found


def judge(
    found: Iterable[Page],
    labels: Sequence[Interval],
    *,
    since: float,
    until: float,
    tolerance_s: float = TOLERANCE_S,
) -> Quality:
    """How ``found`` pages met the labelled events between ``since`` and ``until`` (epoch seconds), one series.

    Each sending is a page. It is true when its stretch (from its sending to the next one, or to the run's last flag)
    overlaps a labelled interval widened by ``tolerance_s`` on both sides; else it is false. An event is touched when
    the stretch of some page overlaps its widened interval. Pages sent before ``since`` and events that ended before it
    are left out, as history.
    """
    scored = [(start, end) for start, end in labels if end >= since and start <= until]
    sent = true = 0
    first: dict[Interval, float] = {}
    for start, end in (stretch for page in found for stretch in page.stretches() if since <= stretch[0] <= until):
        met = [label for label in scored if start <= label[1] + tolerance_s and end >= label[0] - tolerance_s]
        sent += 1
        true += bool(met)
        for label in met:
            first.setdefault(label, start)
    return Quality(
        sent=sent,
        true=true,
        events=len(scored),
        touched=len(first),
        days=max(until - since, 0.0) / DAY_S,
        delays_s=tuple(max(0.0, at - label[0]) for label, at in first.items()),
    )


def pooled(qualities: Iterable[Quality]) -> Quality:
    """Several series as one: counts, days and delays added up."""
    parts = list(qualities)
    return Quality(
        sent=sum(part.sent for part in parts),
        true=sum(part.true for part in parts),
        events=sum(part.events for part in parts),
        touched=sum(part.touched for part in parts),
        days=sum(part.days for part in parts),
        delays_s=tuple(delay for part in parts for delay in part.delays_s),
    )
