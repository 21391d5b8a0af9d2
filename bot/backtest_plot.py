"""Pictures of a backtest: the series with what was flagged, and the score or the forecast below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bot.whole_file import write_whole

FloatArray = npt.NDArray[np.float64]

MOST_POINTS = 6000
"""Points drawn a line: more than that, and neighbours are drawn as their extremes."""
NARROWEST = 1 / 500
"""A flagged stretch is drawn at least this share of the picture wide, or a single flag could not be seen."""
_LINE, _FLAGGED, _SCORE, _LABEL, _LIMIT = "#1264a3", "#e01e5a", "#4a154b", "#ecb22e", "#8d8d8d"


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn. ``ts`` (n,) epoch seconds, ascending; ``values`` and ``below`` (n,), NaN where there is none."""

    title: str
    ts: FloatArray
    values: FloatArray
    below: FloatArray
    below_title: str
    flagged: Sequence[tuple[float, float]]
    """Stretches, epoch seconds."""
    labels: Sequence[tuple[float, float]]
    limit: float | None = None


def draw(picture: Picture, path: Path) -> None:
    """Draws ``picture`` as PNG. Raises PermanentError when ``path`` cannot be written."""
    # Imported here: it takes a second or more, and most runs draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    # Matplotlib's annotations know neither datetimes on an axis nor these parts.
    canvas: Any = FigureCanvasAgg
    locator: Any = AutoDateLocator
    formatter: Any = ConciseDateFormatter
    figure = Figure(figsize=(14, 6.5), dpi=100, facecolor="white", layout="constrained")
    parts: Any = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above, below = parts
    first, last = float(picture.ts[0]), float(picture.ts[-1])
    narrowest = (last - first) * NARROWEST
    for axes in (above, below):
        for at, (start, end) in enumerate(picture.flagged):
            name = "flagged" if at == 0 else None
            wide = max(end - start, narrowest)
            axes.axvspan(_time(start), _time(start + wide), color=_FLAGGED, alpha=0.25, linewidth=0, label=name)
        axes.grid(axis="y", color="#eceaec", linewidth=1)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for at, (start, end) in enumerate(picture.labels):
        name = "labelled" if at == 0 else None
        wide = max(end - start, narrowest)
        above.axvspan(_time(start), _time(start + wide), ymin=0.97, color=_LABEL, linewidth=0, label=name)
    times, values = _drawn(picture.ts, picture.values)
    above.plot(times, values, color=_LINE, linewidth=1.1, label="value")
    if picture.limit is not None:
        above.axhline(picture.limit, color=_LIMIT, linewidth=1.4, linestyle=(0, (5, 3)), label="limit")
    times, values = _drawn(picture.ts, picture.below)
    below.plot(times, values, color=_SCORE, linewidth=1.0)
    below.set_ylabel(picture.below_title)
    below.set_ylim(bottom=0.0, top=None if picture.limit is not None else 1.02)
    above.set_title(picture.title, loc="left", parse_math=False)
    above.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, frameon=False)
    if first < last:
        above.set_xlim(_time(first), _time(last))
    ticks = locator(tz=UTC)
    below.xaxis.set_major_locator(ticks)
    below.xaxis.set_major_formatter(formatter(ticks, tz=UTC))
    below.set_xlabel("UTC")

    def write(part: Path) -> None:
        with part.open("wb") as file:
            canvas(figure).print_png(file)

    write_whole(path, write)


def _time(ts: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ts)


def _drawn(ts: FloatArray, values: FloatArray) -> tuple[list[datetime], FloatArray]:
    """The line to draw: all points, or of each run of neighbours the lowest and the highest."""
    run = -(-2 * len(ts) // MOST_POINTS)
    if run > 2:
        pad = -len(ts) % run
        folded = np.pad(values, (0, pad), constant_values=np.nan).reshape(-1, run)
        filled = np.isfinite(folded)
        low = np.where(filled, folded, np.inf).argmin(1)
        high = np.where(filled, folded, -np.inf).argmax(1)
        base = np.arange(len(folded)) * run
        picked = np.unique(np.minimum(np.concatenate((base + low, base + high)), len(ts) - 1))
        ts, values = ts[picked], values[picked]
    return [_time(at) for at in ts.tolist()], values
