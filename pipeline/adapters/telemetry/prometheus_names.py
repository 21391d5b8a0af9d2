"""Whose a row of an answer is: services, instances and namespaces out of labels. Pure; remembers what it was told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never
from urllib.parse import urlsplit

from pipeline.adapters.telemetry.conventions import GAUGES, NAMESPACE_LABELS, POD_LABEL, REQUESTS, Subject
from pipeline.adapters.telemetry.promql import OWNER_LABELS, RANK, SERVICE, PromQL, workload_of
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SeriesKey, Signal

_NAMESPACE_LABELS = tuple(dict.fromkeys((*(label for row in REQUESTS for label in row.namespace), *NAMESPACE_LABELS)))
_OWN_NAMES = tuple(row.service for row in REQUESTS if row.service)
_Labels = Mapping[str, str]
_Pod = tuple[str, str]


class Names:
    """Names services by the labels of ``promql``, pods by their labels or by the workload that owns them."""

    def __init__(self, promql: PromQL) -> None:
        self._promql = promql
        self._pods: dict[_Pod, str] = {}
        self._namespaces: dict[ServiceName, frozenset[str]] = {}

    @property
    def namespaces(self) -> dict[ServiceName, str]:
        """Of the services that run in one namespace alone."""
        return {service: next(iter(found)) for service, found in self._namespaces.items() if len(found) == 1}

    @property
    def ambiguous(self) -> dict[ServiceName, frozenset[str]]:
        """Services of several namespaces, whose figures are one."""
        return {service: found for service, found in self._namespaces.items() if len(found) > 1}

    def learn(self, rows: Iterable[_Labels]) -> None:
        """Takes the answer to ``PromQL.places`` in place of the one before."""
        ranked: dict[_Pod, tuple[int, str]] = {}
        places: set[tuple[str, str]] = set()
        for row in rows:
            pod, name = (row.get("namespace", ""), row.get(POD_LABEL, "")), self._pods_service(row)
            if name is not None:
                ranked[pod] = min(name, ranked.get(pod, name))
            elif (namespace := _first(row, _NAMESPACE_LABELS)) and (service := self._service(row)):
                places.add((service, namespace))
        self._pods = {pod: service for pod, (_, service) in ranked.items()}
        places.update((service, namespace) for (namespace, _), service in self._pods.items() if namespace)
        found: dict[ServiceName, set[str]] = {}
        for service, namespace in places:
            found.setdefault(ServiceName(service), set()).add(namespace)
        self._namespaces = {service: frozenset(spaces) for service, spaces in found.items()}

    def of_service(self, signal: Signal, row: _Labels) -> SeriesKey | None:
        """The series of a service as a whole; None when the row does not say whose it is."""
        service = row.get(SERVICE, "")
        return SeriesKey(ServiceName(service), signal) if service else None

    def of_gauge(self, signal: Signal, row: _Labels) -> tuple[int, SeriesKey] | None:
        """The row of ``GAUGES`` that a figure came by, and its series; None when it does not say whose it is."""
        rank = row.get(RANK, "")
        if not rank.isdecimal() or int(rank) >= len(GAUGES):
            return None
        if GAUGES[int(rank)].convention not in self._promql.conventions:
            return None
        service, instance = self._subject(GAUGES[int(rank)].subject, row)
        return (int(rank), SeriesKey(ServiceName(service), signal, instance)) if service and instance else None

    def target(self, row: _Labels) -> str:
        """What a scraped target is called; empty when it names no service."""
        named = self._named_by(row, self._promql.services)
        return named and (row.get(self._promql.instance, "") or named)

    def _subject(self, subject: Subject, row: _Labels) -> tuple[str, str]:
        match subject:
            case Subject.TARGET:
                return self._named_by(row, self._promql.services), row.get(self._promql.instance, "")
            case Subject.POD:
                pod = row.get(POD_LABEL, "")
                known = self._pods.get((row.get("namespace", ""), pod), "")
                return known or workload_of(pod), pod
            case Subject.PROBE:
                host = _host(row.get("instance", ""))
                # The pod that asked is not the service that was asked.
                names = [label for label in self._promql.services if label != POD_LABEL]
                return self._named_by(row, names) or host, host
            case Subject.CERTIFICATE:
                name = row.get("name", "")
                return re.sub(r"(?<=.)-(?:tls|cert|certificate)$", "", name), name
            case Subject.QUOTA:
                return row.get("namespace", ""), f"{row.get('resourcequota', '')} {row.get('resource', '')}".strip()
            case _:
                assert_never(subject)

    def _pods_service(self, row: _Labels) -> tuple[int, str] | None:
        """Whose a pod is, and how good a witness says so (its labels in the order of the settings, then its owner)."""
        for rank, label in enumerate(self._promql.pod_labels):
            if value := row.get(label, ""):
                return rank, value
        kind, owner = (row.get(label, "") for label in OWNER_LABELS)
        return (len(self._promql.pod_labels), _owner(row.get(POD_LABEL, ""), kind, owner)) if owner else None

    def _service(self, row: _Labels) -> str:
        """Of a row of ``places``, whose labels are those of one convention alone."""
        for names in (self._promql.services, *_OWN_NAMES):
            if service := self._named_by(row, names):
                return service
        return ""

    def _named_by(self, row: _Labels, labels: Sequence[str]) -> str:
        for label in labels:
            if value := row.get(label, ""):
                return {POD_LABEL: workload_of(value), "job": value.rpartition("/")[2]}.get(label, value)
        return ""


def _host(address: str) -> str:
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or address
    except ValueError:
        return address


def _owner(pod: str, kind: str, name: str) -> str:
    """The workload above a pod's owner: a ReplicaSet's name ends in a hash, a CronJob's Job's in a time."""
    match kind:
        case "ReplicaSet":
            return re.sub(r"-[bcdfghjklmnpqrstvwxz2456789]{5,10}$", "", name)
        case "Job":
            return re.sub(r"-[0-9]{8,}$", "", name)
        case "Node" | "<none>" | "":
            return workload_of(pod)
        case _:
            return name


def _first(row: _Labels, labels: Iterable[str]) -> str:
    return next((value for label in labels if (value := row.get(label, ""))), "")
