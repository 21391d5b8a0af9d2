"""Apps, plans and slots as Azure keeps them, changed by what is asked of them and by time."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
GROUP = "shop-rg"
ROOT = f"/subscriptions/{SUBSCRIPTION}"
SLOW_S = 0.04
"""How long the platform takes for what it does by itself."""

_ids = itertools.count(1)


def now() -> datetime:
    return datetime.now(UTC)


def text(at: datetime) -> str:
    """Azure's clocks tick in tenths of a microsecond."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


@dataclass
class Process:
    pid: int
    started: datetime
    name: str = "w3wp"
    scm: bool = False

    @property
    def file(self) -> str:
        return f"D:\\Windows\\SysWOW64\\inetsrv\\{self.name}.exe"


@dataclass
class Worker:
    name: str
    state: str = "READY"
    processes: list[Process] = field(default_factory=list)
    answers: bool = True
    """Whether its own deployment site, which knows the processes, does."""


@dataclass
class Deployment:
    start: datetime
    message: str
    active: bool = True


@dataclass
class Slot:
    """``content`` is the code that runs; it moves in a swap, with its deployments."""

    content: str
    state: str = "Running"
    swap: tuple[str, str, datetime] | None = None
    deployments: list[Deployment] = field(default_factory=list)


@dataclass
class Plan:
    name: str
    tier: str = "PremiumV3"
    size: str = "P1v3"
    capacity: int = 2
    maximum: int = 30
    elastic_maximum: int | None = None
    per_site: bool = False
    provisioning: str = "Succeeded"


@dataclass
class Site:
    name: str
    plan: Plan
    kind: str = "app"
    created: datetime = field(default_factory=now)
    slots: dict[str, Slot] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    busy: str | None = None

    @property
    def production(self) -> Slot:
        return self.slots["production"]

    @property
    def linux(self) -> bool:
        return "linux" in self.kind


class World:
    """``log_is_late``: the activity log keeps to itself what happened. ``fails``: what the next long operation ends
    with."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.plans: dict[str, Plan] = {}
        self.events: list[dict[str, Any]] = []
        self.operations: dict[str, tuple[str, str]] = {}
        self.autoscale: list[dict[str, Any]] = []
        self.fails = ""
        self.log_is_late = False
        self._later: set[asyncio.TimerHandle] = set()

    def add(self, name: str, *, kind: str = "app", **plan: Any) -> Site:
        made = self.plans[f"{name}-plan"] = Plan(f"{name}-plan", **plan)
        site = self.sites[name] = Site(name, made, kind=kind)
        site.slots["production"] = Slot("code-1", deployments=[Deployment(now(), "release 1")])
        site.workers = [self._worker(site) for _ in range(max(made.capacity, 1))]
        return site

    def add_slot(self, site: Site, name: str, content: str) -> None:
        site.slots[name] = Slot(content, deployments=[Deployment(now(), f"release of {content}")])

    def recreate(self, site: Site) -> None:
        site.created = now()

    def swap(self, site: Site, source: str, destination: str) -> None:
        one, other, at = site.slots[source], site.slots[destination], now()
        one.content, other.content = other.content, one.content
        one.deployments, other.deployments = other.deployments, one.deployments
        one.swap = other.swap = (source, destination, at)

    def begin_swap(self, site: Site, source: str, destination: str) -> str:
        site.busy = operation = self._operation()

        def done() -> None:
            site.busy = None
            if not self._failed(operation):
                self.swap(site, source, destination)

        self._afterwards(done)
        return operation

    def begin_scale(self, plan: Plan, capacity: int, elastic_maximum: int | None) -> str:
        operation, plan.provisioning = self._operation(), "InProgress"

        def done() -> None:
            plan.provisioning = "Succeeded"
            if not self._failed(operation):
                self.scale(plan, capacity, elastic_maximum)

        self._afterwards(done)
        return operation

    def scale(self, plan: Plan, capacity: int, elastic_maximum: int | None = None) -> None:
        plan.capacity = capacity
        if plan.elastic_maximum is not None and elastic_maximum is not None:
            plan.elastic_maximum = elastic_maximum
        for site in self.sites.values():
            if site.plan is plan:
                del site.workers[capacity:]
                site.workers += [self._worker(site) for _ in range(capacity - len(site.workers))]

    def restart(self, site: Site) -> None:
        for worker in site.workers:
            worker.state = "UNKNOWN"
            worker.processes.clear()

        def done() -> None:
            for worker in site.workers:
                worker.state, worker.processes = "READY", self._processes(site)

        self._afterwards(done)

    def end_process(self, site: Site, worker: Worker, process: Process) -> None:
        worker.processes.remove(process)
        self._afterwards(lambda: worker.processes.insert(0, self._processes(site)[0]))

    def log(self, action: str, resource: str, request_id: str, *statuses: str) -> None:
        for status in statuses:
            self.events.append(
                {
                    "eventTimestamp": text(now()),
                    "operationName": {"value": action, "localizedValue": action},
                    "status": {"value": status, "localizedValue": status},
                    "resourceId": resource,
                    "httpRequest": {"clientRequestId": request_id, "method": "POST"},
                }
            )

    def close(self) -> None:
        for handle in self._later:
            handle.cancel()

    def _worker(self, site: Site) -> Worker:
        return Worker(f"{next(_ids):064x}", processes=self._processes(site))

    def _processes(self, site: Site) -> list[Process]:
        if site.linux:
            return []
        return [
            Process(1000 + next(_ids), now()),
            Process(1000 + next(_ids), now(), scm=True),
            Process(1000 + next(_ids), now(), name="DaaSRunner"),
        ]

    def _operation(self) -> str:
        operation = f"op-{next(_ids)}"
        self.operations[operation] = ("InProgress", "")
        return operation

    def _failed(self, operation: str) -> bool:
        failure, self.fails = self.fails, ""
        self.operations[operation] = ("Failed", failure) if failure else ("Succeeded", "")
        return bool(failure)

    def _afterwards(self, call: Any) -> None:
        self._later.add(asyncio.get_running_loop().call_later(SLOW_S, call))


def site_id(site: Site) -> str:
    return f"{ROOT}/resourceGroups/{GROUP}/providers/Microsoft.Web/sites/{site.name}"


def shown_site(site: Site, slot: Slot, resource: str) -> dict[str, Any]:
    plan = f"{ROOT}/resourceGroups/{GROUP}/providers/Microsoft.Web/serverfarms/{site.plan.name}"
    swap = slot.swap and {
        "sourceSlotName": slot.swap[0],
        "destinationSlotName": slot.swap[1],
        "timestampUtc": text(slot.swap[2]).removesuffix("Z"),
    }
    return {
        "id": resource,
        "name": site.name,
        "kind": site.kind,
        "location": "West Europe",
        "systemData": None,
        "properties": {
            "state": slot.state,
            "enabled": slot.state == "Running",
            "serverFarmId": plan,
            "reserved": site.linux,
            "slotSwapStatus": swap,
            "inProgressOperationId": site.busy,
            "siteConfig": None,
        },
    }
