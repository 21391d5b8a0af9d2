"""The services that are watched: who owns them, how much they matter, and where they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import Name


class WorkloadAddress(BaseModel):
    """Where a service runs, as a person writes it; the registry resolves it to exactly one uid."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    platform: Literal["local_process", "kubernetes"]
    namespace: Name
    name: Name


class Service(BaseModel):
    """One service. ``tier`` 1 matters most; ``financial`` (0..1) is the share of revenue that hangs on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tier: Annotated[int, Field(ge=1, le=4)] = 3
    owner: str = "unowned"
    environment: str = "default"
    financial: Annotated[float, Field(ge=0, le=1)] = 0.0
    target: WorkloadAddress | None = None


class Catalogue:
    """Known services; one that telemetry shows but nobody listed gets the defaults and no target."""

    def __init__(self, services: dict[ServiceName, Service]) -> None:
        self._services = services

    def __getitem__(self, name: ServiceName) -> Service:
        return self._services.get(name, Service())

    def __iter__(self) -> Iterator[ServiceName]:
        return iter(self._services)

    def known(self, seen: Iterable[ServiceName]) -> frozenset[ServiceName]:
        """Listed services and those that telemetry has shown."""
        return frozenset(self._services) | frozenset(seen)
