"""The detectors as a small public API; ``pipeline/domain/detection/README.md`` shows how each is used.

They are the ones that run in the bot: what is measured of them here holds there. Pure: no clock, no files, no network.
"""

from __future__ import annotations

from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.detection.capacity import CapacityDetector, Forecast, forecast
from pipeline.domain.detection.fleet import FleetDetector, SeriesDetector
from pipeline.domain.detection.kinds import SeriesKind
from pipeline.domain.detection.logs import LogDetector, LogDetectorSettings, LogFinding
from pipeline.domain.detection.pages import Page, Quality, judge, pages
from pipeline.domain.detection.rca import Ranking, Table, rank
from pipeline.domain.detection.templates import TemplateMatch, TemplateMiner, mine
from pipeline.domain.detection.world import WorldDetector
from pipeline.domain.detection.world_incidents import Page as WorldPage

__all__ = [
    "CapacityDetector",
    "ChangeEvent",
    "ChangeKind",
    "FleetDetector",
    "Forecast",
    "LogDetector",
    "LogDetectorSettings",
    "LogFinding",
    "Page",
    "Quality",
    "Ranking",
    "SeriesDetector",
    "SeriesKind",
    "Table",
    "TemplateMatch",
    "TemplateMiner",
    "WorldDetector",
    "WorldPage",
    "forecast",
    "judge",
    "mine",
    "pages",
    "rank",
]
