"""The services that are watched: who owns them, how much they matter, where they run, and when they may be quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
)

from pipeline.domain.action import Name
from pipeline.domain.approval import ApprovalRule
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import Platform
from pipeline.domain.telemetry import Signal

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_DAY = timedelta(days=1)
MAX_DISCOVERED = 20_000
"""Services whose namespace is remembered; names may come from a label that somebody fills at random."""


class WorkloadAddress(BaseModel):
    """Where a service runs, as a person writes it; the registry resolves it to exactly one uid."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    platform: Platform
    namespace: Name
    name: Name


class Sensitivity(StrEnum):
    """How small a change of a signal is worth a page."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEK: tuple[Weekday, ...] = get_args(Weekday)
"""In the order of ``date.weekday()``."""


def _clock(value: object) -> object:
    # YAML 1.1 reads 22:30 without quotes as a number to the base of 60: 22 * 60 + 30.
    if isinstance(value, int):
        if not 0 <= value <= 24 * 60:
            raise ValueError("write a time of day in quotes, such as '22:30'")
        return time(value // 60 % 24, value % 60)
    return time() if value == "24:00" else value.zfill(len("22:30")) if isinstance(value, str) else value


def _zone(value: object) -> object:
    try:
        return ZoneInfo(str(value))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is no time zone that is known here, such as Europe/Berlin") from error


def _moment(value: object) -> object:
    # A day without a time begins at midnight.
    return datetime.combine(value, time()) if isinstance(value, date) and not isinstance(value, datetime) else value


def _on_the_wall(value: time) -> time:
    if value.tzinfo is not None:
        raise ValueError("a time of day stands in the timezone of its window: write it without an offset")
    return value


_Clock = Annotated[time, BeforeValidator(_clock), AfterValidator(_on_the_wall)]
_Zone = Annotated[tzinfo, BeforeValidator(_zone)]
_Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Quiet(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    timezone: _Zone = UTC
    reason: Annotated[str, Field(min_length=1, max_length=200)] = "muted in the catalogue"


class WeeklyMute(_Quiet):
    """Quiet from one time of day to another, on the wall clock of ``timezone``, on days that begin it.

    ``to`` at or before ``from`` is on the next day. A time that the clock skips is never, one that it shows twice is
    quiet both times: what counts is what the clock on the wall shows.
    """

    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = _WEEK
    begins: Annotated[_Clock, Field(alias="from")]
    ends: Annotated[_Clock, Field(alias="to")]

    def holds(self, at: datetime) -> bool:
        local = at.astimezone(self.timezone)
        today, yesterday = _WEEK[local.weekday()], _WEEK[(local - _DAY).weekday()]
        clock = local.time()
        if self.begins < self.ends:
            return today in self.days and self.begins <= clock < self.ends
        return (today in self.days and clock >= self.begins) or (yesterday in self.days and clock < self.ends)


class AbsoluteMute(_Quiet):
    """Quiet once, from one moment to another; without an offset they are on the wall clock of ``timezone``."""

    begins: Annotated[_Moment, Field(alias="from")]
    ends: Annotated[_Moment, Field(alias="to")]

    def holds(self, at: datetime) -> bool:
        return self._aware(self.begins) <= at < self._aware(self.ends)

    @property
    def is_never(self) -> bool:
        return self._aware(self.begins) >= self._aware(self.ends)

    def _aware(self, moment: datetime) -> datetime:
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=self.timezone)
        return zoned.astimezone(UTC)


def _forwards(mute: AbsoluteMute) -> AbsoluteMute:
    if mute.is_never:
        raise ValueError("the window ends before it begins")
    return mute


def _kind_of_mute(value: object) -> str:
    if not isinstance(value, Mapping):
        return "absolute" if isinstance(value, AbsoluteMute) else "weekly"
    begins = value.get("from")
    # A date has a dash, a time of day none; YAML makes dates of what looks like one.
    dated = isinstance(begins, date) or (isinstance(begins, str) and "-" in begins)
    return "absolute" if dated and "days" not in value else "weekly"


Mute = Annotated[
    Annotated[WeeklyMute, Tag("weekly")] | Annotated[AbsoluteMute, AfterValidator(_forwards), Tag("absolute")],
    Discriminator(_kind_of_mute),
]


class _Frozen(_Quiet):
    """Who is not changed: without any of the three conditions, nobody is. ``services`` may hold ``*`` and ``?``."""

    reason: Annotated[str, Field(min_length=1, max_length=200)] = "change freeze"
    services: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    tiers: Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1)] | None = None
    environments: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    def covers(self, service: ServiceName, tier: int, environments: Iterable[str]) -> bool:
        """Whoever meets each of the conditions that are written."""
        within = {one.casefold() for one in environments}
        return (
            (self.services is None or any(fnmatchcase(service, pattern) for pattern in self.services))
            and (self.tiers is None or tier in self.tiers)
            and (self.environments is None or any(one.casefold() in within for one in self.environments))
        )


class WeeklyFreeze(_Frozen, WeeklyMute):
    """Nothing is changed from one time of day to another."""


class AbsoluteFreeze(_Frozen, AbsoluteMute):
    """Nothing is changed from one moment to another, once."""


Freeze = Annotated[
    Annotated[WeeklyFreeze, Tag("weekly")] | Annotated[AbsoluteFreeze, AfterValidator(_forwards), Tag("absolute")],
    Discriminator(_kind_of_mute),
]


@dataclass(frozen=True, slots=True)
class Calendar:
    """When one service may be changed: outside of every freeze, and inside of a window where it has any."""

    freezes: tuple[WeeklyFreeze | AbsoluteFreeze, ...] = ()
    windows: tuple[WeeklyMute | AbsoluteMute, ...] = ()

    def frozen(self, at: datetime) -> str:
        """Why nothing may be changed at ``at`` (aware); empty when it may."""
        return next((one.reason for one in self.freezes if one.holds(at)), "")

    def is_open(self, at: datetime) -> bool:
        return not self.windows or any(one.holds(at) for one in self.windows)


class Objective(BaseModel):
    """A service level objective: this share of requests succeeds, over thirty days."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    objective: Annotated[float, Field(gt=0, lt=1)]


def _of_every_signal(value: object) -> object:
    return dict.fromkeys(Signal, value) if isinstance(value, str) else value


class Traits(BaseModel):
    """What can be said of one service, of all of a namespace, and of all there are.

    ``tier`` 1 matters most; ``financial`` (0..1) is the share of revenue that hangs on it; ``sensitivity`` is by
    signal, or one word for all. Where there are ``change_windows``, the bot changes something inside of them only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tier: Annotated[int, Field(ge=1, le=4)] = 3
    owner: str = "unowned"
    environment: str = "default"
    financial: Annotated[float, Field(ge=0, le=1)] = 0.0
    sensitivity: Annotated[Mapping[Signal, Sensitivity], BeforeValidator(_of_every_signal)] = {}
    muted: tuple[Mute, ...] = ()
    change_windows: tuple[Mute, ...] = ()
    slo: Objective | None = None


class Role(StrEnum):
    """What of a service can be acted on."""

    WORKLOAD = "target"
    CONFIG = "config"
    CERTIFICATE = "certificate"
    LOGS = "logs"
    NODE = "node"
    """Of a replica; not in the catalogue, for replicas move."""


class Service(Traits):
    """One service, and what of it can be acted on.

    ``target`` is what runs, ``config`` the repository or application that says how, ``certificate`` what it shows its
    callers, ``logs`` the files that it writes.
    """

    target: WorkloadAddress | None = None
    config: WorkloadAddress | None = None
    certificate: WorkloadAddress | None = None
    logs: WorkloadAddress | None = None

    def address(self, role: Role) -> WorkloadAddress | None:
        found: WorkloadAddress | None = getattr(self, role.value, None)
        return found


class Watch(Traits):
    """Every service that telemetry shows in ``namespace``, but those that ``exclude`` names (``*`` and ``?`` stand for
    what they do in a shell). With a ``provider`` each can be acted on there, under its own name."""

    namespace: Name
    provider: Platform | None = None
    exclude: tuple[str, ...] = ()

    def covers(self, service: ServiceName) -> bool:
        return not any(fnmatchcase(service, pattern) for pattern in self.exclude)

    def target_of(self, service: ServiceName) -> WorkloadAddress | None:
        """None where the service's name is no name of the platform's."""
        if self.provider is None:
            return None
        try:
            return WorkloadAddress(
                platform=self.provider, namespace=self.namespace, name=_NAME.validate_python(service)
            )
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class _Content:
    services: Mapping[ServiceName, Service]
    watch: Mapping[str, Watch]
    defaults: Traits
    freezes: tuple[WeeklyFreeze | AbsoluteFreeze, ...]
    approvals: tuple[ApprovalRule, ...]


class Catalogue:
    """Known services. Of each, what its own entry says counts; then what is said of its namespace, where telemetry has
    shown it there; then the defaults. Fields are taken whole: a list or a mapping is not joined with another's."""

    def __init__(
        self,
        services: Mapping[ServiceName, Service],
        *,
        watch: Sequence[Watch] = (),
        defaults: Traits | None = None,
        freezes: Sequence[WeeklyFreeze | AbsoluteFreeze] = (),
        approvals: tuple[ApprovalRule, ...] = (),
    ) -> None:
        by_namespace = {one.namespace: one for one in watch}
        self._content = _Content(services, by_namespace, defaults or Traits(), tuple(freezes), approvals)
        self._namespaces: dict[ServiceName, str] = {}
        self._applied: dict[ServiceName, Service] = {}

    def __getitem__(self, name: ServiceName) -> Service:
        applied = self._applied.get(name)
        if applied is None:
            applied = self._apply(name)
            if len(self._applied) < MAX_DISCOVERED:
                self._applied[name] = applied
        return applied

    def __iter__(self) -> Iterator[ServiceName]:
        return iter(self._content.services)

    @property
    def approvals(self) -> tuple[ApprovalRule, ...]:
        """Who may approve what, as far as the catalogue says; the settings say the rest."""
        return self._content.approvals

    def known(self, seen: Iterable[ServiceName]) -> frozenset[ServiceName]:
        """Listed services and those that telemetry has shown."""
        return frozenset(self._content.services) | frozenset(seen)

    def discover(self, namespaces: Mapping[ServiceName, str]) -> None:
        """Takes note of where telemetry has shown services."""
        for service, namespace in namespaces.items():
            if self._namespaces.get(service) == namespace:
                continue
            self._namespaces.pop(service, None)
            if len(self._namespaces) >= MAX_DISCOVERED:
                self._namespaces.pop(next(iter(self._namespaces)))
            self._namespaces[service] = namespace
            self._applied.pop(service, None)

    def sensitivity(self, service: ServiceName, signal: Signal) -> Sensitivity:
        return self[service].sensitivity.get(signal, Sensitivity.NORMAL)

    def muted(self, service: ServiceName, at: datetime) -> str:
        """Why ``service`` may be quiet at ``at`` (aware), or nothing when it may not."""
        return next((mute.reason for mute in self[service].muted if mute.holds(at)), "")

    def calendar(self, service: ServiceName, environment: str) -> Calendar:
        """When ``service`` may be changed. ``environment``: that of the incident, which may be another by now."""
        own = self[service]
        both = (environment, own.environment)
        freezes = tuple(one for one in self._content.freezes if one.covers(service, own.tier, both))
        return Calendar(freezes, own.change_windows)

    def environments(self, services: Iterable[ServiceName]) -> frozenset[str]:
        """Those of ``services`` and of all that are listed."""
        return frozenset(self[service].environment for service in self.known(services))

    def replace(self, other: Catalogue) -> None:
        """Takes the content of another in place of its own; what telemetry has shown stays. All at once."""
        self._content, self._applied = other._content, {}

    def _apply(self, name: ServiceName) -> Service:
        content = self._content
        own = content.services.get(name, Service())
        place = self._namespaces.get(name) or (own.target.namespace if own.target else "")
        watch = content.watch.get(place)
        if watch is not None and not watch.covers(name):
            watch = None
        target = watch.target_of(name) if watch else None
        if watch is None and not place:
            # A quota, for one, is measured of the namespace itself.
            watch = content.watch.get(name)
        said = {**_said(content.defaults), **(_said(watch) if watch else {}), "target": target, **_said(own)}
        return Service().model_copy(update=said)


def _said(traits: Traits) -> dict[str, object]:
    """The fields that somebody wrote, but those that are a watch's alone."""
    return {field: getattr(traits, field) for field in traits.model_fields_set if field in Service.model_fields}
