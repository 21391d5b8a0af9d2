"""`sre-bot eval --record`: writes an incident that is stored as the folder of a case."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from bot.eval_cases import CASE_FILE
from bot.eval_files import LONG_HEADER
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Conclusion
from pipeline.domain.errors import ConfigurationError, PermanentError
from pipeline.domain.ids import IncidentId, ServiceName, incident_label
from pipeline.domain.incident import Case
from pipeline.domain.logs import LogPattern
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.domain.topology import DependencyGraph
from pipeline.ports.store import Store

HISTORY = timedelta(hours=6)
BEFORE, AFTER = timedelta(minutes=10), timedelta(minutes=5)
"""What is replayed: from so long before the first anomaly to so long after the incident was opened."""
FINE = timedelta(hours=1)
"""Older history than this before the replay is thinned to a sample in ``THINNED``."""
THINNED = timedelta(minutes=2)
CHANGES = timedelta(hours=1)
GRAPH_AGE_S = 86_400.0


async def record_incident(store: Store, incident_id: IncidentId, folder: Path, catalogue: Catalogue) -> Path:
    """Writes ``folder/<label>``: samples around it, edges, changes, log patterns, the target, and what was diagnosed.

    Raises ConfigurationError when there is such a folder already or no such incident, PermanentError when its samples
    were deleted. Names of services, revisions and lines of logs go into the files as they are.
    """
    label = incident_label(incident_id)
    place = folder / label.lower()
    if place.exists():
        raise ConfigurationError(f"{place} is there already: name another folder")
    async with store.begin() as uow:
        case = await uow.incidents.case(incident_id)
        if case is None or not case.anomalies:
            raise ConfigurationError(f"{label} is not known here, or has no anomalies")
        began = min(item.anomaly.started_at for item in case.anomalies)
        begin, now = _seconds(began - BEFORE), _seconds(case.incident.opened_at + AFTER)
        graph = await uow.telemetry.graph(max_age_s=GRAPH_AGE_S)
        services = sorted(_around(case, graph))
        samples: dict[SeriesKey, Sequence[Sample]] = {}
        patterns: list[LogPattern] = []
        for service in services:
            samples.update(await uow.telemetry.service_window(service, begin - HISTORY))
            patterns += await uow.telemetry.log_patterns(service, begin)
        changes = [one for one in await uow.telemetry.changes(begin - CHANGES) if one.service in services]
    if not any(begin < sample.at <= now for told in samples.values() for sample in told):
        raise PermanentError(f"{label}: its samples are gone: they are kept for SRE_SAMPLES_KEEP_S")
    place.mkdir(parents=True)
    rows = [row for key in sorted(samples) for row in _rows(samples[key], begin, now)]
    _write_table(place / "metrics.csv", LONG_HEADER, rows)
    edges = sorted(edge for edge in graph.edges if edge[0] in services and edge[1] in services)
    if edges:
        _write_table(place / "edges.csv", ("caller", "callee"), edges)
    _write_json(place / "changes.json", [_change(one) for one in changes if one.at <= now])
    lines = [json.dumps(_line(one, now), ensure_ascii=False) for one in patterns if one.started_at < now]
    (place / "logs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if case.plan is not None and case.plan.target is not None:
        _write_json(place / "target.json", {case.incident.service: {"replicas": max(case.plan.replicas_before, 1)}})
    (place / CASE_FILE).write_text(_case_file(case, begin, now, services, catalogue), encoding="utf-8")
    return place


def _around(case: Case, graph: DependencyGraph) -> set[ServiceName]:
    service = case.incident.service
    own = {item.anomaly.key.service for item in case.anomalies} | {service}
    return own | graph.callees(service) | graph.callers(service)


def _rows(samples: Sequence[Sample], begin: datetime, now: datetime) -> Iterator[tuple[str, ...]]:
    kept: datetime | None = None
    for sample in samples:
        old = sample.at < begin - FINE
        if sample.at > now or (old and kept is not None and sample.at - kept < THINNED):
            continue
        kept = sample.at
        key = sample.key
        yield key.service, key.signal.value, key.instance, sample.at.isoformat(), f"{sample.value:.6g}"


def _change(change: ChangeEvent) -> dict[str, Any]:
    return {
        "service": change.service,
        "at": change.at.isoformat(),
        "kind": change.kind.value,
        "revision": change.revision,
        "title": change.title,
        "author": change.author,
    }


def _line(pattern: LogPattern, now: datetime) -> dict[str, Any]:
    """The sample of a pattern, as often as it came."""
    until = min(pattern.seen_at, now)
    line: dict[str, Any] = {
        "at": pattern.started_at.isoformat(),
        "service": pattern.service,
        "text": pattern.sample or pattern.template,
    }
    if pattern.count > 1 and until > pattern.started_at:
        every_s = max((until - pattern.started_at).total_seconds() / (pattern.count - 1), 0.1)
        line |= {"every_s": round(every_s, 2), "until": until.isoformat()}
    return line


def _case_file(
    case: Case, begin: datetime, now: datetime, services: Sequence[ServiceName], catalogue: Catalogue
) -> str:
    told: dict[str, Any] = {
        "title": f"{case.incident.service}: {case.incident.title}"[:200],
        "now": now.isoformat(),
        "begin": begin.isoformat(),
        "interval_s": 15,
        "services": {
            str(name): catalogue[name].model_dump(mode="json", exclude_defaults=True, exclude={"muted"})
            for name in services
        },
        "expected": _expected(case),
    }
    head = "# Recorded. What is expected is what the bot said then: read it, and write what was right.\n"
    return head + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110)


def _expected(case: Case) -> Mapping[str, Any]:
    diagnosis = case.diagnosis
    if diagnosis is None or diagnosis.conclusion is not Conclusion.CAUSE:
        conclusion = diagnosis.conclusion if diagnosis is not None else Conclusion.INSUFFICIENT_EVIDENCE
        return {"conclusion": conclusion.value}
    root = diagnosis.path.steps[0].service if diagnosis.path.steps else case.incident.service
    return {"conclusion": "cause", "category": diagnosis.category.value, "service": str(root)}


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _seconds(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=0)
