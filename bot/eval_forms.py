"""The forms of a case's files. ``bot/cases/README.md`` describes them for people who write one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from pipeline.domain.action import MAX_REPLICAS, Name
from pipeline.domain.activity import ActivityKind
from pipeline.domain.catalogue import Service
from pipeline.domain.changes import ChangeKind
from pipeline.domain.diagnosis import Category, Conclusion
from pipeline.domain.recording import Part
from pipeline.domain.severity import Severity


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Alert(_Form):
    """What somebody was paged with: its text, and the name that a runbook may carry."""

    text: Annotated[str, Field(min_length=1, max_length=2000)]
    name: Annotated[str, Field(max_length=200)] = ""


class Cited(_Form):
    """Evidence that has to be cited: one of the fields says which, and ``service`` may narrow it."""

    series: str = ""
    change: str = ""
    log: str = ""
    kind: Literal["", "topology", "target", "trace", "activity", "knowledge"] = ""
    service: str = ""


class Cause(_Form):
    """Where the trouble begins, and of what kind it is."""

    service: Annotated[str, Field(min_length=1)]
    category: Category


class Acceptable(_Form):
    """Answers that count as right beside the expected one."""

    services: tuple[str, ...] = ()
    categories: tuple[Category, ...] = ()


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text[:60]!r} is no regular expression: {error}") from error
    return text


class Expected(_Form):
    """What a good diagnosis says.

    ``also``: causes of other things that broke at the same time, each an incident of its own. ``forbidden``: regular
    expressions that nothing may match which is said as true. ``approve``: whether an Approve button is due; by default
    for memory and saturation, which the bot can cure. ``severity``: of the worst incident, any of these.
    """

    conclusion: Conclusion
    category: Category | None = None
    service: str = ""
    acceptable: Acceptable = Acceptable()
    also: tuple[Cause, ...] = ()
    evidence: tuple[Cited, ...] = ()
    forbidden: tuple[Annotated[str, Field(min_length=1), AfterValidator(_pattern)], ...] = ()
    approve: bool | Literal["either"] | None = None
    severity: tuple[Severity, ...] = ()

    @property
    def causes(self) -> tuple[Cause, ...]:
        """All of them, the first one first; none unless a cause is expected."""
        if self.category is None or not self.service:
            return ()
        return (Cause(service=self.service, category=self.category), *self.also)

    @property
    def offers(self) -> bool | None:
        """Whether an Approve button is due; None when both will do."""
        if self.approve is not None:
            return None if self.approve == "either" else self.approve
        return any(cause.category in (Category.MEMORY, Category.SATURATION) for cause in self.causes)


class CaseFile(_Form):
    """``case.yaml``."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")] = ""
    title: Annotated[str, Field(min_length=1, max_length=200)]
    notes: str = ""
    alert: Alert | None = None
    now: AwareDatetime
    begin: AwareDatetime | None = None
    interval_s: Annotated[float, Field(ge=5, le=300)] = 30.0
    services: Mapping[str, Service] = {}
    down: Mapping[Part, Annotated[str, Field(min_length=1, max_length=200)]] = {}
    expected: Expected


class InstanceFile(_Form):
    name: Name
    ready: bool = True


class TargetFile(_Form):
    """One workload of ``target.json``, as the platform shows it. ``unreadable``: why it shows nothing."""

    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    replicas_1h_ago: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = None
    generation: str = "1"
    instances: tuple[InstanceFile, ...] = ()
    unreadable: str = ""


class ChangeFile(_Form):
    service: Annotated[str, Field(min_length=1)]
    at: AwareDatetime
    kind: ChangeKind
    revision: Annotated[str, Field(min_length=1)]
    title: str
    author: str = ""


class LineFile(_Form):
    """A line, or with ``every_s`` and ``until`` the same line again and again; ``{n}`` in it counts up from 1."""

    at: AwareDatetime
    service: Annotated[str, Field(min_length=1)]
    text: str
    instance: str = ""
    every_s: Annotated[float, Field(ge=0.1)] | None = None
    until: AwareDatetime | None = None


class SpanFile(_Form):
    span_id: Annotated[str, Field(min_length=1)]
    parent_id: str = ""
    service: Annotated[str, Field(min_length=1)]
    operation: str
    started_at: AwareDatetime
    duration_s: Annotated[float, Field(ge=0)]
    error: bool = False


class TraceFile(_Form):
    trace_id: Annotated[str, Field(min_length=1)]
    spans: Annotated[tuple[SpanFile, ...], Field(min_length=1)]


class ActivityFile(_Form):
    kind: ActivityKind
    service: Annotated[str, Field(min_length=1)]
    at: AwareDatetime
    statement: Annotated[str, Field(min_length=1)]
    value: float
    instance: str = ""
