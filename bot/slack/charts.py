"""The incident's chart: the metric with its usual band, its bound, the anomaly, the action and the recovery."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

from bot.slack.wording import started_at, trend_in_words
from pipeline.domain.baseline import Expectation
from pipeline.domain.incident import Case
from pipeline.domain.telemetry import Sample, SeriesKey, Unit, format_value
from pipeline.domain.verification import Verdict

WIDTH_PX, HEIGHT_PX, DPI = 900, 380, 100
BAND_SIGMAS = 3.0
"""Half the width of the shaded band of what is usual."""
_LINE, _BAND, _BOUND, _ANOMALY, _ACTION, _RECOVERED, _INK = (
    "#1264a3",
    "#9ecbef",
    "#b3261e",
    "#f9d7d4",
    "#6b3fa0",
    "#1d7a4c",
    "#454245",
)
# Matplotlib's caches of fonts and units are not made for several threads.
_drawing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Chart:
    """A PNG and what it shows in words."""

    png: bytes
    alt_text: str


def chart_key(case: Case) -> SeriesKey:
    """The series that the case is about: the one that was verified, else that of the leading anomaly."""
    return case.verification.key if case.verification is not None else case.lead.key


async def render_chart(case: Case, samples: Sequence[Sample], expectation: Expectation) -> Chart:
    """Draws ``samples`` (one series, oldest first) in a worker thread. Raises ValueError when there are none."""
    usable = [sample for sample in samples if isfinite(sample.value)]
    if not usable:
        raise ValueError("no samples to draw")
    return Chart(await asyncio.to_thread(_draw, case, usable, expectation), trend_in_words(case))


def _draw(case: Case, samples: Sequence[Sample], expectation: Expectation) -> bytes:
    # Imported here: it takes a second or more, and only this thread should wait for it.
    from matplotlib import dates as matplotlib_dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    # Matplotlib's annotations know neither datetimes on an axis nor these parts.
    dates: Any = matplotlib_dates
    canvas: Any = FigureCanvasAgg
    key, unit = samples[0].key, samples[0].key.unit
    with _drawing:
        figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, facecolor="white", layout="constrained")
        axes: Any = figure.add_subplot()
        times = [sample.at.astimezone(UTC) for sample in samples]
        values = [sample.value for sample in samples]
        top = _marks(axes, case, expectation, samples)
        axes.plot(times, values, color=_LINE, linewidth=2.4, solid_capstyle="round", zorder=4)
        axes.set_ylim(0.0 if min(values) >= 0 else None, top)
        axes.set_xlim(times[0], times[-1] + max((times[-1] - times[0]) * 0.02, timedelta(seconds=5)))
        axes.set_title(key.describe(), loc="left", fontsize=16, color=_INK, pad=28, parse_math=False)
        axes.set_title("times in UTC", loc="right", fontsize=12, color=_INK, pad=31)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, unit)))
        axes.yaxis.set_major_locator(_few_ticks())
        axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=5, tz=UTC))
        short = times[-1] - times[0] < timedelta(minutes=6)
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S" if short else "%H:%M", tz=UTC))
        axes.tick_params(labelsize=14, colors=_INK, length=0)
        axes.grid(axis="y", color="#eceaec", linewidth=1)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#c9c7c9")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, fontsize=12, frameon=False, **_LEGEND)
        out = io.BytesIO()
        canvas(figure).print_png(out)
        return out.getvalue()


_LEGEND: dict[str, Any] = {"handlelength": 1.4, "columnspacing": 1.2, "borderaxespad": 0.1, "labelcolor": _INK}


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10])


def _marks(axes: Any, case: Case, expectation: Expectation, samples: Sequence[Sample]) -> float:
    """Draws band, bound, anomaly, action and recovery; returns the top of the y axis."""
    unit = samples[0].key.unit
    first, last = samples[0].at, samples[-1].at
    highest = max(sample.value for sample in samples)
    if expectation.known:
        half = BAND_SIGMAS * expectation.sigma
        low = max(expectation.mean - half, 0.0)
        made = " (generated)" if expectation.generated else ""
        axes.axhspan(low, expectation.mean + half, color=_BAND, alpha=0.45, linewidth=0, label=f"usual{made}", zorder=1)
        highest = max(highest, expectation.mean + half)
    bound = case.verification.bound if case.verification is not None else case.lead.bound
    if bound.threshold <= 3 * max(highest, 1e-9):
        label = f"bound {format_value(bound.threshold, unit)}"
        axes.axhline(bound.threshold, color=_BOUND, linewidth=1.6, linestyle=(0, (5, 3)), label=label, zorder=3)
        highest = max(highest, bound.threshold)
    recovered = _recovered_at(case, samples)
    began, ended = max(started_at(case), first), min(recovered or last, last)
    if began < ended:
        axes.axvspan(began, ended, color=_ANOMALY, alpha=0.6, linewidth=0, label="anomaly", zorder=0)
    action = case.execution.started_at if case.execution is not None else None
    if action is not None and first <= action <= last:
        axes.axvline(action, color=_ACTION, linewidth=2, label="action", zorder=5)
    if recovered is not None and first <= recovered <= last:
        axes.axvline(recovered, color=_RECOVERED, linewidth=2, linestyle=(0, (1, 1)), label="recovered", zorder=5)
    if unit is Unit.RATIO and highest > 0.5:
        return max(1.0, highest) * 1.04
    return highest * 1.12 if highest > 0 else 1.0


def _recovered_at(case: Case, samples: Sequence[Sample]) -> datetime | None:
    """When the metric came back to stay, as seen in the samples; None unless that was verified."""
    verification = case.verification
    if verification is None or verification.verdict is not Verdict.RECOVERED:
        return None
    back: datetime | None = None
    for sample in reversed(samples):
        if verification.bound.breached(sample.value):
            break
        back = sample.at
    return back if back is not None and back > started_at(case) else None


def _tick(value: float, unit: Unit) -> str:
    return "0" if value == 0 else format_value(value, unit)
