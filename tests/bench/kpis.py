"""Quality of the pager lane on labelled KPIs, at the default setting.

The folder of ``*.csv.gz`` (or ``*.csv``) files with the header ``timestamp,value,label`` is named by DETECTION_DATA.
The first half of each file is history, the second is scored. The baseline is a rolling z-score over the last hour at 3
sigmas, flagged as it is usually deployed: on 3 points in a row.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection.fleet import SeriesDetector
from pipeline.domain.detection.pages import Interval, Quality, judge, pages, pooled

HISTORY_SHARE = 0.5
WINDOW = 60
Z_SIGMAS = 3.0
Z_SUSTAIN = 3

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def run() -> None:
    folder = os.environ.get("DETECTION_DATA")
    if not folder:
        print("DETECTION_DATA is not set: name the folder with the labelled KPIs to measure quality")
        return
    files = sorted(Path(folder).glob("*.csv*"))
    ours: list[Quality] = []
    baseline: list[Quality] = []
    for file in files:
        ts, values, labels = _read(file)
        ours.append(_judged(ts, SeriesDetector("generic").replay(ts, values)[1], labels))
        baseline.append(_judged(ts, rolling_z_score(values), labels))
    print(f"{len(files)} series, scored over {pooled(ours).days:.0f} days (marks: F1 0.78, 0.10 false pages a day)")
    _print("sre-bot, default setting", ours)
    _print("rolling z-score, 1 h, 3 sigmas, 3 points", baseline)


def _print(name: str, qualities: list[Quality]) -> None:
    whole = pooled(qualities)
    print(
        f"{name}: page F1 {whole.f1:.3f} (precision {whole.precision:.3f}, recall {whole.recall:.3f}), "
        f"{whole.false_pages_per_day:.3f} false pages per series and day, median delay {whole.delay_s:.0f} s"
    )


def _read(file: Path) -> tuple[Floats, Floats, list[Interval]]:
    table = np.genfromtxt(file, delimiter=",", skip_header=1)
    ts, values, labelled = table[:, 0], table[:, 1], table[:, 2] > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], labelled, [False]]).astype(np.int8)))
    return ts, values, [(float(ts[a]), float(ts[b - 1])) for a, b in zip(edges[0::2], edges[1::2], strict=True)]


def _judged(ts: Floats, flags: Flags, labels: list[Interval]) -> Quality:
    since = float(ts[int(len(ts) * HISTORY_SHARE)])
    return judge(pages(ts, flags), labels, since=since, until=float(ts[-1]))


def rolling_z_score(values: Floats) -> Flags:
    """Flags [n]: more than `Z_SIGMAS` from the mean of the `WINDOW` points before, `Z_SUSTAIN` times in a row."""
    far = np.zeros(len(values), dtype=bool)
    if len(values) > WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(values[:-1], WINDOW)
        mean, sigma = windows.mean(axis=1), windows.std(axis=1)
        far[WINDOW:] = np.abs(values[WINDOW:] - mean) > Z_SIGMAS * sigma
    flags = far.copy()
    for back in range(1, Z_SUSTAIN):
        flags[back:] &= far[:-back]
        flags[:back] = False
    return flags
