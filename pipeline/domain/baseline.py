"""Rolling robust baselines of all series at once: arrays, not an object a series.

Each series has a mean for each hour of the week, for each hour of the day, for the last hours and for all time; what is
expected comes from the finest of them that has seen enough, drawn smoothly from one hour to the next, and moved by how
far the last hours were off. A value enters clipped to ``CLIP_SIGMAS``, so that an incident moves the baseline slowly;
a level that lasts for ``ADAPT_AFTER_S`` is taken as it is. Values are compared first and learned afterwards, never the
other way round. What happens at the same time of day again and again (a nightly job) is remembered apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import numpy as np

from pipeline.domain.baseline_rows import (
    DAY_HOURS,
    SEGMENTS,
    SLOT_S,
    SLOTS,
    WEEK_HOURS,
    Array,
    BaselineRow,
    Rows,
    Table,
    read_rows,
    written_rows,
)
from pipeline.domain.telemetry import SeriesKey, Signal

__all__ = ["SEGMENTS", "BaselineBank", "BaselineRow", "Expectation", "Expectations"]

GLOBAL_SEGMENT = WEEK_HOURS + DAY_HOURS
MAD_TO_SIGMA = 1.2533
"""sqrt(pi / 2): standard deviation of a normal distribution over its mean absolute deviation."""
CLIP_SIGMAS = 4.0
MIN_WEIGHT_WEEK = 30.0
"""Samples an hour of the week needs before it has a say beside the hour of the day."""
MIN_WEIGHT_HOUR = 60.0
"""Samples an hour-of-day segment needs before it is trusted over the last hours."""
MIN_WEIGHT_GLOBAL = 20.0
"""Samples a series needs before anything at all is said of it."""
MEMORY_SAMPLES = 2000.0
"""The weight of old samples decays with this horizon at most (samples per segment)."""
WEEK_HORIZON_S, HOUR_HORIZON_S, GLOBAL_HORIZON_S, RECENT_HORIZON_S = 4 * 3600.0, 7 * 3600.0, 2 * 86_400.0, 7200.0
"""And with these, in seconds spent in the segment: four weeks, seven days, two days, two hours."""
DRIFT_S = 3 * 3600.0
"""How fast the expectation follows the level of the last hours."""
MAX_DRIFT = 0.6
ADAPT_AFTER_S = 6 * 3600.0
"""After this long outside its bounds a series has a new level: it is learned as it comes."""
ADAPT_S = 3600.0
OUTSIDE_SHARE = 0.25
"""What is outside its bounds is learned this much slower."""
STALE_S = 3 * 3600.0
RELATIVE_FLOOR = 0.05
"""Sigma is never taken below this share of the mean: a constant series must not page for a crumb."""
MIN_SIGMA = 1e-9
"""Below this, in any unit, a series has shown no spread at all: it was always at 0."""
SLOT_SIGMAS, SLOT_RATE, SLOT_USUAL, SLOT_CAP = 3.0, 0.35, 0.45, 60.0
"""A time of day stands out beyond so many sigmas; two nights in a row, or two of three, make it usual."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a baseline expects of one series now. ``weight`` is the number of samples behind it (0: none yet).

    ``excess``: how many sigmas beyond the mean the series usually goes at this time of day (0 where it does not).
    """

    mean: float
    sigma: float
    weight: float
    generated: bool = False
    excess: float = 0.0

    @property
    def known(self) -> bool:
        return self.weight >= MIN_WEIGHT_GLOBAL

    def upper(self, sigmas: float) -> float:
        return self.mean + sigmas * self.sigma


@dataclass(frozen=True, slots=True)
class Expectations:
    """`Expectation` of many series: arrays (n,); NaN and weight 0 for a series never seen."""

    mean: Array
    sigma: Array
    weight: Array
    excess: Array

    @property
    def known(self) -> Array:
        return np.asarray(self.weight >= MIN_WEIGHT_GLOBAL)


class BaselineBank:
    """The baselines of a fleet. Rows are added as series appear; all arithmetic is vectorised over rows.

    ``zone``: the hours and weekdays are those of this time zone, through changes of daylight saving too.
    """

    def __init__(self, rows: Iterable[BaselineRow] = (), *, zone: tzinfo = UTC) -> None:
        stored = list(rows)
        self._zone = zone
        self._index: dict[SeriesKey, int] = {row.key: at for at, row in enumerate(stored)}
        self._asked: deque[tuple[list[SeriesKey], Rows]] = deque(maxlen=3)
        self._table = Table(max(len(stored), 64))
        read_rows(self._table, stored)
        self._table.two_sided[: len(stored)] = [row.key.signal is Signal.TRAFFIC for row in stored]

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[SeriesKey]:
        return iter(self._index)

    def expect(self, key: SeriesKey, at: datetime) -> Expectation:
        """The expectation for ``key`` at ``at``; weight 0 for a series never seen."""
        row = self._index.get(key)
        if row is None:
            return Expectation(mean=float("nan"), sigma=float("nan"), weight=0.0)
        many = self._read(np.array([row]), at)
        generated = bool(self._table.generated[row] > 0)
        return Expectation(
            float(many.mean[0]), float(many.sigma[0]), float(many.weight[0]), generated, float(many.excess[0])
        )

    def expect_many(self, keys: Sequence[SeriesKey], at: datetime) -> Expectations:
        """The expectations for ``keys`` at ``at``, in their order."""
        rows = self._rows_of(keys)
        many = self._read(rows, at)
        unseen = rows < 0
        if unseen.any():
            for values in (many.mean, many.sigma):
                values[unseen] = np.nan
            for values in (many.weight, many.excess):
                values[unseen] = 0.0
        return many

    def learn(
        self,
        keys: Sequence[SeriesKey],
        values: Sequence[float],
        at: datetime,
        *,
        generated: bool = False,
        outside: Collection[SeriesKey] = frozenset(),
    ) -> None:
        """Takes one value per series into the baselines. Not-finite values are passed over.

        ``outside``: of ``keys``, those whose value is outside its bounds; they are learned slowly. ``generated`` marks
        made-up history (the demo's warm-up); the mark stays with the series.
        """
        fresh = np.array(values, dtype=np.float64)
        if len(keys) != len(fresh):
            raise ValueError(f"{len(keys)} keys and {len(fresh)} values: one is shorter")
        finite = np.isfinite(fresh)
        if not finite.all():
            keys = [key for key, one in zip(keys, finite.tolist(), strict=True) if one]
            fresh = fresh[finite]
        if not keys:
            return
        rows = self._rows_of(keys)
        if (rows < 0).any():
            rows = np.array([self._add(key) for key in keys], dtype=np.intp)
            self._asked.clear()
        out = np.array([key in outside for key in keys]) if outside else np.zeros(len(keys), dtype=np.bool_)
        self._learn(rows, fresh, at, out)
        if generated:
            self._table.generated[rows] += 1

    def rows(self, keys: Iterable[SeriesKey]) -> list[BaselineRow]:
        """The state of ``keys`` for storing."""
        known = [key for key in keys if key in self._index]
        return written_rows(self._table, [self._index[key] for key in known], known)

    def _rows_of(self, keys: Sequence[SeriesKey]) -> Rows:
        """Row numbers; -1 for a series never seen. The same keys are asked for tick after tick: answers are kept."""
        for known, rows in self._asked:
            if known == keys:
                return rows
        index = self._index
        rows = np.array([index.get(key, -1) for key in keys], dtype=np.intp)
        if not (rows < 0).any():
            self._asked.append((list(keys), rows))
        return rows

    def _add(self, key: SeriesKey) -> int:
        row = self._index.get(key)
        if row is not None:
            return row
        row = self._index[key] = len(self._index)
        self._table.reserve(row + 1)
        self._table.two_sided[row] = key.signal is Signal.TRAFFIC
        return row

    def _profile(self, rows: Rows, at: datetime) -> tuple[Array, Array, Array]:
        """Mean by the calendar, weight, and whether the calendar had enough to say so."""
        table = self._table
        local = at.astimezone(self._zone)
        share = local.minute / 60 + local.second / 3600
        near = abs(share - 0.5)
        hour, week = local.hour, local.weekday() * 24 + local.hour
        step = 1 if share >= 0.5 else -1
        by_hour, hour_weight = _between(
            table, rows, WEEK_HOURS + hour, WEEK_HOURS + (hour + step) % 24, near, MIN_WEIGHT_HOUR
        )
        by_week, week_weight = _between(table, rows, week, (week + step) % WEEK_HOURS, near, MIN_WEIGHT_WEEK)
        trusted = np.where(week_weight >= MIN_WEIGHT_WEEK, week_weight / (week_weight + MIN_WEIGHT_WEEK), 0.0)
        known = hour_weight >= MIN_WEIGHT_HOUR
        recent = (table.recent_weight[rows] >= MIN_WEIGHT_GLOBAL) & (at.timestamp() - table.last[rows] < STALE_S)
        total = table.weight[rows, GLOBAL_SEGMENT].astype(np.float64)
        otherwise = np.where(recent, table.recent[rows], table.mean[rows, GLOBAL_SEGMENT])
        mean = np.where(known, trusted * by_week + (1 - trusted) * by_hour, otherwise)
        return mean, np.where(known, hour_weight, total), known

    def _read(self, rows: Rows, at: datetime) -> Expectations:
        return self._expected(rows, at, *self._profile(rows, at))

    def _expected(self, rows: Rows, at: datetime, profile: Array, weight: Array, known: Array) -> Expectations:
        table = self._table
        age_s = np.maximum(at.timestamp() - table.last[rows] - 1800.0, 0.0)
        mean = np.where(known, profile * (1.0 + table.drift[rows] * np.exp(-age_s / DRIFT_S)), profile)
        hour = at.astimezone(self._zone).hour
        seen = table.weight[rows, WEEK_HOURS + hour]
        seen = np.where(known, seen, 0.0)
        spread = (seen * table.deviation[rows, hour] + MIN_WEIGHT_HOUR * table.deviation[rows, DAY_HOURS]) / (
            seen + MIN_WEIGHT_HOUR
        )
        sigma = np.maximum(np.maximum(MAD_TO_SIGMA * spread, RELATIVE_FLOOR * np.abs(mean)), MIN_SIGMA)
        slot = self._slot(at)
        around = [(slot - 1) % SLOTS, slot, (slot + 1) % SLOTS]
        where = rows[:, None]
        sizes = np.where(table.slot_rate[where, around] >= SLOT_USUAL, table.slot_size[where, around], 0.0)
        return Expectations(mean, sigma, weight, sizes.max(axis=1).astype(np.float64))

    def _slot(self, at: datetime) -> int:
        local = at.astimezone(self._zone)
        return (local.hour * 3600 + local.minute * 60 + local.second) // SLOT_S

    def _learn(self, rows: Rows, values: Array, at: datetime, outside: Array) -> None:
        table = self._table
        stamp = at.timestamp()
        profile, total, by_calendar = self._profile(rows, at)
        expected = self._expected(rows, at, profile, total, by_calendar)
        mean, sigma = expected.mean, expected.sigma
        passed_s = np.where(np.isfinite(table.last[rows]), np.clip(stamp - table.last[rows], 0.0, 600.0), 0.0)
        table.last[rows] = stamp
        table.outside_s[rows] = np.where(
            outside, table.outside_s[rows] + passed_s, np.maximum(table.outside_s[rows] - 2 * passed_s, 0.0)
        )
        adapting = table.outside_s[rows] >= ADAPT_AFTER_S
        # Without spread the clip would hold a series at 0 for ever; the value itself then says how far it may pull.
        sigma = np.where(sigma <= MIN_SIGMA, RELATIVE_FLOOR * np.abs(values), sigma)
        settled = (table.weight[rows, GLOBAL_SEGMENT] >= MIN_WEIGHT_GLOBAL) & ~adapting
        clipped = np.where(settled, np.clip(values, mean - CLIP_SIGMAS * sigma, mean + CLIP_SIGMAS * sigma), values)
        pull = np.where(outside & ~adapting, OUTSIDE_SHARE, 1.0)
        local = at.astimezone(self._zone)
        self._drift(rows, clipped, profile, sigma, by_calendar, passed_s, adapting, pull)
        for segment, horizon_s in (
            (local.weekday() * 24 + local.hour, WEEK_HORIZON_S),
            (WEEK_HOURS + local.hour, HOUR_HORIZON_S),
            (GLOBAL_SEGMENT, GLOBAL_HORIZON_S),
        ):
            weight = table.weight[rows, segment]
            rate = pull * _rate(weight, passed_s, horizon_s)
            # An hour that is new to a series is learned as it comes: the other hours do not speak for it.
            middle = table.mean[rows, segment]
            reach = CLIP_SIGMAS * np.maximum(sigma, RELATIVE_FLOOR * np.abs(middle))
            own = np.where(by_calendar | ~settled, clipped, np.clip(values, middle - reach, middle + reach))
            taken = np.where((weight < MIN_WEIGHT_GLOBAL) & ~outside, values, own)
            updated = middle + rate * (taken - middle)
            table.mean[rows, segment] = updated
            table.weight[rows, segment] = weight + 1.0
            if segment < WEEK_HOURS:
                continue
            part = local.hour if segment < GLOBAL_SEGMENT else DAY_HOURS
            off = np.abs(clipped - np.where(settled, mean, updated))
            off = np.where(adapting, table.deviation[rows, part], off)
            table.deviation[rows, part] += rate * (off - table.deviation[rows, part])
        weight = table.recent_weight[rows]
        rate = pull * _rate(weight, passed_s, RECENT_HORIZON_S)
        table.recent[rows] += rate * (clipped - table.recent[rows])
        table.recent_weight[rows] = weight + 1.0
        off = np.divide(values - mean, sigma, out=np.zeros_like(values), where=sigma > 0)
        self._remember(rows, np.nan_to_num(off), by_calendar, at)

    def _drift(
        self,
        rows: Rows,
        values: Array,
        profile: Array,
        sigma: Array,
        by_calendar: Array,
        passed_s: Array,
        adapting: Array,
        pull: Array,
    ) -> None:
        """How far the last hours were off, as a share of the profile: the level of today."""
        usable = by_calendar & (profile > 0) & (sigma < 0.5 * profile)
        off = np.divide(values - profile, profile, out=np.zeros_like(profile), where=usable)
        off = np.clip(off, np.where(adapting, -0.95, -MAX_DRIFT), np.where(adapting, 9.0, MAX_DRIFT))
        rate = np.where(usable, pull * -np.expm1(-passed_s / np.where(adapting, ADAPT_S, DRIFT_S)), 0.0)
        self._table.drift[rows] += rate * (off - self._table.drift[rows])

    def _remember(self, rows: Rows, sigmas: Array, by_calendar: Array, at: datetime) -> None:
        """Keeps how far each series went in each ten minutes of the day, and how often."""
        table = self._table
        slot = self._slot(at)
        size = np.clip(np.where(table.two_sided[rows], np.abs(sigmas), sigmas), 0.0, SLOT_CAP)
        size = np.where(by_calendar, size, 0.0)
        before = table.slot_now[rows]
        moved = before != slot
        done = moved & (before >= 0)
        if done.any():
            over, past, largest = rows[done], before[done], table.slot_max[rows[done]]
            beyond = largest > SLOT_SIGMAS
            table.slot_rate[over, past] += SLOT_RATE * (beyond - table.slot_rate[over, past])
            known = table.slot_size[over, past]
            table.slot_size[over, past] = np.where(beyond, np.where(known > 0, (known + largest) / 2, largest), known)
        table.slot_max[rows] = np.where(moved, size, np.maximum(table.slot_max[rows], size))
        table.slot_now[rows] = slot


def _rate(weight: Array, passed_s: Array, horizon_s: float) -> Array:
    by_count = 1.0 / np.minimum(weight.astype(np.float64) + 1.0, MEMORY_SAMPLES)
    return np.maximum(by_count, np.minimum(passed_s / horizon_s, 0.5))


def _between(table: Table, rows: Rows, here: int, there: int, share: float, least: float) -> tuple[Array, Array]:
    """The mean between the middle of one hour and of its neighbour, where both are known; the weight of ``here``."""
    weight = table.weight[rows, here].astype(np.float64)
    mean = table.mean[rows, here].astype(np.float64)
    other = table.mean[rows, there]
    return np.where(table.weight[rows, there] >= least, (1 - share) * mean + share * other, mean), weight
