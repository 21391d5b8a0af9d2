"""The stages from a reading to a diagnosis, built alike for `run` and `eval`: what is measured is what runs."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from bot.config import Settings
from bot.redacting import REDACTOR, redact
from pipeline.domain.anomaly import SENSITIVITY, Policy
from pipeline.domain.detection.logs import LogDetector, LogDetectorSettings
from pipeline.ports.catalogue import CatalogueSource
from pipeline.ports.clock import Clock
from pipeline.ports.knowledge import Knowledge
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets
from pipeline.stages.correlate import Correlator
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.observe import Observer, Sources
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.settings import LoopSettings
from pipeline.stages.toolbox import ToolLimits
from pipeline.stages.witnesses import Witnesses


@dataclass(frozen=True, slots=True)
class Diagnosing:
    """What sees, and says why."""

    logs: LogDetector
    observer: Observer
    detector: Detector
    correlator: Correlator
    investigator: Investigator
    proposer: Proposer
    diagnoser: Diagnoser


def diagnosing_of(
    settings: Settings,
    loop_settings: LoopSettings,
    store: Store,
    sources: Sources,
    targets: Targets,
    catalogue_source: CatalogueSource,
    knowledge: Knowledge,
    authors: Authors,
    clock: Clock,
) -> Diagnosing:
    """Builds them over these ports."""
    catalogue, model = catalogue_source.current(), settings.model
    policy = Policy(
        factor=lambda service, signal: SENSITIVITY[catalogue.sensitivity(service, signal)], muted=catalogue.muted
    )
    promised = {name: slo.objective for name in catalogue if (slo := catalogue[name].slo) is not None}
    zone = ZoneInfo(settings.telemetry.timezone)
    detector = Detector(store, loop_settings.detection, policy, promised, zone=zone)
    logs = LogDetector(LogDetectorSettings(warmup_s=settings.telemetry.log_warmup_s))
    witnesses = Witnesses(sources.traces, sources.activity, sources.logs)
    limits = ToolLimits(calls=model.tool_calls, result_bytes=model.tool_bytes, call_s=model.tool_s)
    ports = Ports(store, targets, catalogue, witnesses, knowledge)
    investigator = Investigator(ports, loop_settings.detection, limits, REDACTOR)
    proposer = Proposer(store, targets, catalogue, loop_settings)
    return Diagnosing(
        logs=logs,
        observer=Observer(
            sources,
            store,
            logs,
            detector.bank,
            catalogue_source,
            max_series=settings.telemetry.max_series,
            redact=redact,
        ),
        detector=detector,
        correlator=Correlator(store, catalogue, loop_settings.detection),
        investigator=investigator,
        proposer=proposer,
        diagnoser=Diagnoser(
            store, investigator, knowledge, authors, proposer, catalogue, clock, loop_settings, redact=redact
        ),
    )
