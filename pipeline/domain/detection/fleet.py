"""The streaming detector of a fleet: one point of every series a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection import kernel, state
from pipeline.domain.detection import layout as lay
from pipeline.domain.detection.clock import LocalClock, estimated_period_s
from pipeline.domain.detection.kinds import KINDS, SeriesKind, as_kind, gates, tuned
from pipeline.domain.detection.layout import Float64s
from pipeline.domain.errors import ConfigurationError, PermanentError

PAGES_AT = 0.5
"""A score of this or more is an anomaly: it pages at the default setting."""

Flags = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a fleet expects of its series at one time; arrays [n], NaN for a series that has seen nothing."""

    mean: Float64s
    sigma: Float64s
    """How far from the mean is usual; 0 only for a series that was always 0."""
    weight: Float64s
    """Points learned."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Values passed over since the start, of all series."""

    not_finite: int
    late: int
    """Behind the newest time of their series."""
    duplicate: int
    """For a time already judged: judged again, not learned again."""
    future: int
    """Ahead of a clock that then went on where it was."""


class FleetDetector:
    """Judges one point of every series a step, then learns it. State is arrays, about 2 kB a series.

    ``kinds``: the kind of each row, or a number of generic rows. ``period_s``: seconds between points, None to settle
    it from the first ones. ``zone``: whose hours the profiles follow (an IANA name). Errors: ConfigurationError for an
    unknown kind or zone or an impossible period.
    """

    def __init__(
        self, kinds: int | Sequence[SeriesKind | str], period_s: float | None = None, *, zone: str = "UTC"
    ) -> None:
        self._kinds = np.zeros(0, dtype=np.int8)
        self._clock = LocalClock(zone)
        self._zone = zone
        self._bank: _Bank | None = None
        self._early: list[tuple[float, Float64s]] = []
        self._last_ts = 0.0
        self.add([SeriesKind.GENERIC] * kinds if isinstance(kinds, int) else kinds)
        if period_s is not None:
            self._bank = _Bank.of(period_s, self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def period_s(self) -> float | None:
        """Seconds between points; None while not yet settled."""
        return self._bank.period_s if self._bank else None

    @property
    def ignored(self) -> Ignored:
        counts = self._bank.arrays.ignored.tolist() if self._bank else [0] * lay.REASONS
        return Ignored(*counts)

    def add(self, kinds: Sequence[SeriesKind | str]) -> None:
        """New rows at the end, one a kind."""
        new = np.array([KINDS.index(as_kind(kind)) for kind in kinds], dtype=np.int8)
        if self._bank:
            self._bank.add(len(self), new)
        self._kinds = np.concatenate([self._kinds, new])

    def step(self, ts: float, values: npt.ArrayLike) -> tuple[Float64s, Flags]:
        """Judges ``values`` [n] (NaN: no value) at ``ts`` (epoch seconds). Returns scores [n], 0..1, and anomalies [n].

        Errors: ConfigurationError when there is not one value a row.
        """
        points = np.array(values, dtype=np.float64)
        if points.shape != (len(self),):
            raise ConfigurationError(f"step needs one value for each of {len(self)} rows, not shape {points.shape}")
        scores = np.zeros((1, len(self)))
        self.judge_into(np.array([ts], dtype=np.float64), points.reshape(1, -1), scores)
        return scores[0], scores[0] >= PAGES_AT

    def judge_into(self, ts: Float64s, values: Float64s, scores: Float64s) -> None:
        """Many steps: ``values`` [times, n] at ``ts`` [times], oldest first; writes ``scores`` [times, n].

        The same scores as one `step` for each time. The arrays must be contiguous and writable float64.
        """
        at = 0
        while self._bank is None and at < len(ts):
            scores[at] = 0.0
            self._settle(float(ts[at]), values[at], scores[at])
            at += 1
        if self._bank is not None and at < len(ts):
            self._run(self._bank, ts[at:], values[at:], scores[at:])

    def expected(self, ts: float | None = None) -> Expected:
        """What the fleet expects at ``ts`` (epoch seconds), or at the time of the last step."""
        at = self._last_ts if ts is None else ts
        mean, sigma = np.full(len(self), np.nan), np.full(len(self), np.nan)
        if self._bank is None:
            return Expected(mean, sigma, np.zeros(len(self)))
        kernel.look(self._bank.arrays, at + self._clock.offset_s(at), self._bank.tuning, mean, sigma)
        return Expected(mean, sigma, self._bank.arrays.hot[: len(self), lay.COUNT].copy())

    def checkpoint(self) -> bytes:
        """The whole state, for `restore`."""
        settings = {"period_s": self.period_s, "zone": self._zone, "last_ts": self._last_ts}
        early_ts = np.array([ts for ts, _ in self._early], dtype=np.float64)
        early = np.full((len(self._early), len(self)), np.nan)
        for row, (_, values) in zip(early, self._early, strict=True):
            row[: len(values)] = values
        learned = state.trimmed(self._bank.arrays, len(self)) if self._bank else ()
        return state.packed(settings, [self._kinds, early_ts, early, *learned])

    @classmethod
    def restore(cls, data: bytes) -> FleetDetector:
        """The detector that wrote ``data``. PermanentError when the bytes cannot be used, saying what to do."""
        settings, (kinds, early_ts, early, *arrays) = state.unpacked(data)
        period_s, zone, last_ts = settings["period_s"], settings["zone"], settings["last_ts"]
        if not isinstance(period_s, float | int | None) or not isinstance(last_ts, float | int):
            raise PermanentError("the detection state's settings cannot be read: learn the baselines again")
        fleet = cls(0, zone=str(zone))
        fleet._kinds = kinds.astype(np.int8)
        if period_s is not None:
            fleet._bank = _Bank(period_s, tuned(period_s), gates(period_s), lay.Arrays(*arrays))  # type: ignore[arg-type]
        fleet._early = [(float(ts), row) for ts, row in zip(early_ts.astype(np.float64), early, strict=True)]
        fleet._last_ts = float(last_ts)
        return fleet

    def _settle(self, ts: float, values: Float64s, scores: Float64s) -> None:
        """Holds the first points until their distance is known, then learns them."""
        self._early.append((ts, values.copy()))
        period_s = estimated_period_s([at for at, _ in self._early])
        if period_s is None:
            return
        self._bank = _Bank.of(period_s, self._kinds)
        early, self._early = self._early, []
        for at, held in early:
            held_scores = np.zeros((1, len(held)))
            self._run(self._bank, np.array([at]), held.reshape(1, -1), held_scores)
        scores[:] = held_scores[0]

    def _run(self, bank: _Bank, ts: Float64s, values: Float64s, scores: Float64s) -> None:
        if len(ts) > 1 and not np.isfinite(ts).all():
            for at in range(len(ts)):
                self._run(bank, ts[at : at + 1], values[at : at + 1], scores[at : at + 1])
        elif isfinite(ts[-1]):
            self._last_ts = float(ts[-1])
            bank.judge(ts, self._clock.offsets_s(ts), values, self._kinds, scores)
        else:
            scores[:] = 0.0
            bank.arrays.ignored[lay.NOT_FINITE] += values.shape[1]


@dataclass(slots=True)
class _Bank:
    """What is learned of a fleet once the distance of its points is settled."""

    period_s: float
    tuning: Float64s
    gates: Float64s
    arrays: lay.Arrays

    @classmethod
    def of(cls, period_s: float, kinds: Kinds) -> _Bank:
        tuning = tuned(period_s)
        bank = cls(period_s, tuning, gates(period_s), state.empty(0, 0, tuning))
        bank.add(0, kinds)
        return bank

    def add(self, used: int, kinds: Kinds) -> None:
        novel = self.gates[kinds, lay.NOVEL] > 0.0
        self.arrays = state.grown(self.arrays, used, novel, self.tuning)

    def judge(self, ts: Float64s, offsets_s: Float64s, values: Float64s, kinds: Kinds, scores: Float64s) -> None:
        kernel.run(self.arrays, ts, offsets_s, values, self.tuning, self.gates, kinds, scores)


class SeriesDetector:
    """The streaming detector of one series: a fleet of one row, with the same numbers.

    ``kind``: what the series measures (a `SeriesKind` or its name). ``period_s``, ``zone``: as for `FleetDetector`.
    """

    def __init__(
        self, kind: SeriesKind | str = SeriesKind.GENERIC, period_s: float | None = None, *, zone: str = "UTC"
    ) -> None:
        self._fleet = FleetDetector([kind], period_s, zone=zone)
        self._ts = np.zeros(1)
        self._value = np.zeros((1, 1))
        self._score = np.zeros((1, 1))

    @property
    def period_s(self) -> float | None:
        """Seconds between points; None while not yet settled."""
        return self._fleet.period_s

    @property
    def ignored(self) -> Ignored:
        return self._fleet.ignored

    def update(self, ts: float, value: float) -> tuple[float, bool]:
        """Judges ``value`` at ``ts`` (epoch seconds), then learns it. Returns the score in 0..1 and whether it pages.

        A value that cannot be used (not finite, late, ahead of time) scores 0 and is counted in `ignored`.
        """
        self._ts[0] = ts
        self._value[0, 0] = value
        self._fleet.judge_into(self._ts, self._value, self._score)
        score = float(self._score[0, 0])
        return score, score >= PAGES_AT

    def replay(self, ts: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Float64s, Flags]:
        """`update` for each of many points, oldest first: scores and anomalies, one for each point."""
        times = np.array(ts, dtype=np.float64)
        points = np.array(values, dtype=np.float64).reshape(-1, 1)
        if times.shape != (len(points),):
            raise ConfigurationError(f"replay needs a time for each value: {times.size} and {len(points)} given")
        scores = np.zeros(points.shape)
        self._fleet.judge_into(times, points, scores)
        return scores[:, 0], scores[:, 0] >= PAGES_AT
