"""Metrics from Amazon CloudWatch."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipeline.adapters.telemetry.aws_client import AwsClient
from pipeline.adapters.telemetry.cloudwatch_series import (
    CERTIFICATE_PERIOD_S,
    DATABASES,
    NAMESPACES,
    CloudWatchExpression,
    Listed,
    Math,
    Query,
    Series,
    Stat,
    disks_of,
    series_of,
)
from pipeline.adapters.telemetry.exposition import STALE_AFTER_S
from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.http import one_line
from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.adapters.telemetry.upstream import Lenient
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.telemetry import Reading, Sample, SeriesKey, Signal, SourceFailure

QUERIES_A_CALL = 500
"""GetMetricData takes no more."""
MAX_PAGES = 200
"""Of one listing or one answer: 100,000 metrics; it bounds a server that pages for ever."""
_CERTIFICATE_WINDOW = timedelta(hours=49)


class _Dimension(Lenient):
    Name: str
    Value: str


class _Metric(Lenient):
    Namespace: str
    MetricName: str
    Dimensions: tuple[_Dimension, ...] = ()


class _Metrics(Lenient):
    Metrics: tuple[_Metric, ...]
    NextToken: str | None = None


class _Database(Lenient):
    DBInstanceIdentifier: str
    AllocatedStorage: float = 0.0

    @property
    def size_bytes(self) -> float:
        return self.AllocatedStorage * 2**30


class _Databases(Lenient):
    DBInstances: tuple[_Database, ...]
    Marker: str | None = None


class _Message(Lenient):
    Code: str = ""
    Value: str = ""


class _Result(Lenient):
    Id: str
    Timestamps: tuple[datetime, ...] = ()
    Values: tuple[float, ...] = ()
    StatusCode: Literal["Complete", "InternalError", "PartialData", "Forbidden"] = "Complete"
    Messages: tuple[_Message, ...] = ()

    def refusal(self) -> TemporaryError | PermanentError | None:
        """Why this query has no value. PartialData is none: the next page has the rest."""
        said = one_line("; ".join(f"{message.Code}: {message.Value}" for message in self.Messages))
        if len(self.Timestamps) != len(self.Values):
            return TemporaryError("half an answer: times and values do not match")
        if self.StatusCode == "Forbidden":
            return PermanentError(said or "Forbidden")
        return TemporaryError(said or "InternalError") if self.StatusCode == "InternalError" else None


class _Data(Lenient):
    MetricDataResults: tuple[_Result, ...]
    NextToken: str | None = None
    Messages: tuple[_Message, ...] = ()


@dataclass(slots=True)
class _Known:
    """What the last listing of a namespace found, and when it was made."""

    metrics: tuple[Listed, ...] = ()
    at: datetime | None = None


class CloudWatchSource:
    """Finds services by the conventions of ``cloudwatch_series`` and reads their newest whole minutes.

    ``namespaces`` are listed every ``discover_s`` seconds; ``names`` gives the service of a resource whose own name is
    not it, ``only`` the wanted value of a dimension (``{"ClusterName": "prod"}``), and ``expressions`` are series of
    one's own. Amazon bills by the metric asked for: it is asked every ``poll_s`` seconds at most, and a ``read``
    between has nothing new. Minutes are taken ``delay_s`` after their end, when they no longer change. A sample's time
    is the end of its minute. ``total_timeout_s`` bounds a ``read`` with all its calls. Raises ConfigurationError.
    """

    def __init__(
        self,
        client: AwsClient,
        *,
        namespaces: Sequence[str] = NAMESPACES,
        names: Mapping[str, str] | None = None,
        only: Mapping[str, str] | None = None,
        expressions: Sequence[CloudWatchExpression] = (),
        poll_s: float = 60.0,
        delay_s: float = 60.0,
        discover_s: float = 600.0,
        total_timeout_s: float = 30.0,
    ) -> None:
        for namespace in namespaces:
            if namespace not in NAMESPACES:
                raise ConfigurationError(f"no convention for the namespace {namespace!r}; use {', '.join(NAMESPACES)}")
        if not 0 <= delay_s <= STALE_AFTER_S / 2:
            raise ConfigurationError(f"the CloudWatch delay is {delay_s:g} s; use 0 to {STALE_AFTER_S / 2:g}")
        self._client = client
        self._known = {namespace: _Known() for namespace in namespaces}
        self._names = names or {}
        self._only = only or {}
        self._allocated_bytes: Mapping[str, float] = {}
        self._own = tuple(expression.series() for expression in expressions)
        self._poll = timedelta(seconds=poll_s)
        self._delay = timedelta(seconds=delay_s)
        self._discover = timedelta(seconds=discover_s)
        self._total_timeout_s = total_timeout_s
        self._asked_at: datetime | None = None
        self._failures: tuple[SourceFailure, ...] = ()
        self._newest = NewestOnly()
        self._told: dict[SeriesKey, datetime] = {}

    @property
    def name(self) -> str:
        return "cloudwatch"

    async def read(self, now: datetime) -> Reading:
        """What is new since the last reading, oldest first; failures stay until it is asked again."""
        if self._asked_at is not None and timedelta(0) <= now - self._asked_at < self._poll:
            return Reading(failures=self._failures)
        self._asked_at = now
        failures: list[SourceFailure] = []
        samples: list[Sample] = []
        try:
            async with asyncio.timeout(self._total_timeout_s):
                samples = await self._ask_all(now, failures)
        except TimeoutError:
            said = TemporaryError(f"not read within {self._total_timeout_s:g} s")
            failures.append(failure_of(self.name, said))
        sifted = self._newest.sift(samples, now)
        self._remember(sifted.samples, now)
        self._failures = _joined(self.name, failures)
        return Reading(sifted.samples, (), self._failures, sifted.rejected)

    async def close(self) -> None:
        await self._client.close()

    async def _ask_all(self, now: datetime, failures: list[SourceFailure]) -> list[Sample]:
        """Oldest first. What was listed before the time ran out is kept for the next poll."""
        await self._list(now, failures)
        listed = [metric for known in self._known.values() for metric in known.metrics]
        disks = disks_of(listed, self._allocated_bytes, self._names)
        series = (*series_of(listed, self._names, self._only), *disks, *self._own)
        groups = ([one for one in series if one.period_s == period] for period in {one.period_s for one in series})
        parts = [part for group in groups for part in _parts(group)]
        answers = await asyncio.gather(*(self._ask(part, now, failures) for part in parts))
        return sorted((sample for answer in answers for sample in answer), key=lambda sample: sample.at)

    async def _list(self, now: datetime, failures: list[SourceFailure]) -> None:
        """Lists what is due. A namespace that cannot be listed keeps what was known of it."""
        for namespace, known in self._known.items():
            if known.at is not None and timedelta(0) <= now - known.at < self._discover:
                continue
            try:
                known.metrics = await self._metrics(namespace)
                if namespace == DATABASES and known.metrics:
                    self._allocated_bytes = await self._databases()
            except TemporaryError as error:
                failures.append(failure_of(self.name, error))
                return  # the others would fare no better, and their turn comes at the next poll
            except PermanentError as error:
                failures.append(failure_of(f"{self.name} {namespace}", error))
            else:
                known.at = now

    async def _metrics(self, namespace: str) -> tuple[Listed, ...]:
        found: list[Listed] = []
        # Without RecentlyActive it lists what was deleted in the last two weeks too. Certificates are too rare for it.
        request: dict[str, object] = {"Namespace": namespace}
        if namespace != "AWS/CertificateManager":
            request["RecentlyActive"] = "PT3H"
        for _ in range(MAX_PAGES):
            page = await self._client.call("cloudwatch", "list_metrics", request, _Metrics)
            found += [
                Listed(one.Namespace, one.MetricName, tuple(sorted((d.Name, d.Value) for d in one.Dimensions)))
                for one in page.Metrics
            ]
            if not page.NextToken:
                break
            request["NextToken"] = page.NextToken
        return tuple(found)

    async def _databases(self) -> Mapping[str, float]:
        """The size of each instance's storage, which no metric tells."""
        request: dict[str, object] = {}
        found: dict[str, float] = {}
        for _ in range(MAX_PAGES):
            page = await self._client.call("rds", "describe_db_instances", request, _Databases)
            found |= {one.DBInstanceIdentifier: one.size_bytes for one in page.DBInstances}
            if not page.Marker:
                break
            request["Marker"] = page.Marker
        return found

    async def _ask(self, part: Sequence[Series], now: datetime, failures: list[SourceFailure]) -> list[Sample]:
        ids, queries = _queries(part)
        period_s = part[0].period_s
        end = _floor(now - self._delay, period_s)
        if period_s == CERTIFICATE_PERIOD_S:
            start = end - _CERTIFICATE_WINDOW
        else:
            start = _floor(now - timedelta(seconds=STALE_AFTER_S + period_s), period_s)
        try:
            values, refused = await self._data(queries, start, end)
        except (TemporaryError, PermanentError) as error:
            failures.append(failure_of(self.name, error))
            return []
        failures.extend(failure_of(self.name, error) for error in refused)
        return [sample for one in part for sample in self._samples(one, [values[ids[q]] for q in one.queries], now)]

    async def _data(
        self, queries: Sequence[Mapping[str, object]], start: datetime, end: datetime
    ) -> tuple[Mapping[str, Mapping[datetime, float]], list[TemporaryError | PermanentError]]:
        """Each query's values by the start of their period, and why some queries were refused, each reason once."""
        request: dict[str, object] = {
            "MetricDataQueries": queries,
            "StartTime": start,
            "EndTime": end,
            "ScanBy": "TimestampAscending",
        }
        values: defaultdict[str, dict[datetime, float]] = defaultdict(dict)
        refused: dict[str, TemporaryError | PermanentError] = {}
        for _ in range(MAX_PAGES):
            page = await self._client.call("cloudwatch", "get_metric_data", request, _Data)
            for result in page.MetricDataResults:
                if (why := result.refusal()) is not None:
                    refused.setdefault(str(why), why)
                    continue
                starts = (at.astimezone(UTC) for at in result.Timestamps)
                values[result.Id].update(zip(starts, result.Values, strict=True))
            if not page.NextToken:
                break
            request["NextToken"] = page.NextToken
        return values, list(refused.values())

    def _samples(self, series: Series, answers: Sequence[Mapping[datetime, float]], now: datetime) -> Iterator[Sample]:
        moments = sorted({at for answer in answers for at in answer})
        if series.key.signal is Signal.CERT_REMAINING and series.period_s == CERTIFICATE_PERIOD_S:
            if moments and (left_s := series.combine([answer.get(moments[-1]) for answer in answers])) is not None:
                yield Sample(series.key, now, left_s - (now - moments[-1]).total_seconds())
            return
        told = self._told.get(series.key)
        for moment in moments:
            at = moment + timedelta(seconds=series.period_s)
            value = series.combine([answer.get(moment) for answer in answers])
            if value is not None and (told is None or at > told):
                yield Sample(series.key, at, value)

    def _remember(self, samples: Iterable[Sample], now: datetime) -> None:
        """Readings overlap: what was told is not told again, nor counted as out of order."""
        forget = now - timedelta(seconds=2 * STALE_AFTER_S)
        self._told = {key: at for key, at in self._told.items() if forget <= at <= now}
        for sample in samples:
            self._told[sample.key] = sample.at


def _joined(name: str, failures: Sequence[SourceFailure]) -> tuple[SourceFailure, ...]:
    """Each failure once, and one alone where all gave the same reason."""
    reasons = {failure.reason for failure in failures}
    return (SourceFailure(name, reasons.pop()),) if len(reasons) == 1 else tuple(dict.fromkeys(failures))


def _parts(series: Sequence[Series]) -> Iterator[list[Series]]:
    """As many series as one call takes. Queries that two of them share are counted twice, which only leaves room."""
    part: list[Series] = []
    size = 0
    for one in series:
        needs = sum(1 if isinstance(query, Stat) else 1 + len(query.stats) for query in one.queries)
        if part and size + needs > QUERIES_A_CALL:
            yield part
            part, size = [], 0
        part.append(one)
        size += needs
    if part:
        yield part


def _queries(part: Sequence[Series]) -> tuple[Mapping[Query, str], list[Mapping[str, object]]]:
    """Ids by query, and the request's MetricDataQueries; each query once."""
    ids: dict[Query, str] = {}
    wanted = {query for one in part for query in one.queries}
    entries: list[Mapping[str, object]] = []

    def add(query: Query, period_s: int) -> str:
        if query in ids:
            return ids[query]
        if isinstance(query, Math):
            inner = [add(stat, period_s) for stat in query.stats]
            entry: dict[str, object] = {"Expression": _filled(query.expression, inner), "Period": period_s}
        else:
            metric = {
                "Namespace": query.namespace,
                "MetricName": query.metric,
                "Dimensions": [{"Name": name, "Value": value} for name, value in query.dimensions],
            }
            entry = {"MetricStat": {"Metric": metric, "Period": period_s, "Stat": query.stat}}
        ids[query] = f"q{len(ids)}"
        entries.append({"Id": ids[query], "ReturnData": query in wanted, **entry})
        return ids[query]

    for one in part:
        for query in one.queries:
            add(query, one.period_s)
    return ids, entries


def _filled(expression: str, ids: Sequence[str]) -> str:
    """Placeholders by ids. Not ``format``: braces and percent signs have meanings of their own in expressions."""
    for number, one in enumerate(ids):
        expression = expression.replace(f"{{{number}}}", one)
    return expression


def _floor(at: datetime, period_s: int) -> datetime:
    return at - timedelta(seconds=at.timestamp() % period_s)
