"""Metrics from a Prometheus server, or one that speaks its query API (Mimir, Thanos, VictoriaMetrics)."""

from __future__ import annotations

import asyncio
import base64
import re
from datetime import UTC, datetime
from math import isfinite
from typing import Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.adapters.telemetry.exposition import CALLEE_LABEL, CALLER_LABEL, STALE_AFTER_S
from pipeline.adapters.telemetry.http import HTTP_FAILURES, one_line, read_body, why
from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.adapters.telemetry.promql import PromQL, duration_s
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal, SourceFailure

_INSTANCE_SIGNALS = frozenset({Signal.MEMORY_RATIO, Signal.DISK_RATIO, Signal.CERT_REMAINING})
_CALLS, _DOWN = "calls", "targets down"


class _Lenient(BaseModel):
    # Servers of this API add fields of their own (warnings, stats, traceID).
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Row(_Lenient):
    metric: dict[str, str]
    value: tuple[float, float]

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.value[0], UTC)


class _Vector(_Lenient):
    resultType: Literal["vector"]
    result: tuple[_Row, ...]


class _Answer(_Lenient):
    status: Literal["success"]
    data: _Vector


class _Refusal(_Lenient):
    status: Literal["error"]
    error: str


class PrometheusSource:
    """Asks one PromQL query per signal, with the server's time as the samples' time.

    ``url`` is the part before ``/api/v1``. ``service_label`` and ``instance_label`` name the labels that carry them,
    ``window`` is the range of rates and the greatest age of a gauge (at least twice the scrape interval), and
    ``extra_matchers`` narrow every selector (``environment="prod"``). Authentication is a bearer token or a user and
    password; ``tenant`` is sent as X-Scope-OrgID. ``timeout_s`` bounds each query. Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        service_label: str = "service",
        instance_label: str = "instance",
        window: str = "1m",
        extra_matchers: str = "",
        bearer_token: str | None = None,
        basic_auth: tuple[str, str] | None = None,
        tenant: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("the Prometheus URL must start with http:// or https://")
        if bearer_token and basic_auth:
            raise ConfigurationError("Prometheus takes a bearer token or a user and password, not both")
        for label in (service_label, instance_label):
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label):
                raise ConfigurationError(f"{label!r} is no Prometheus label name")
        try:
            duration_s(window)
        except ValueError as error:
            raise ConfigurationError(f"the Prometheus window: {error}") from error
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._service_label = service_label
        self._instance_label = instance_label
        self._promql = PromQL(service_label, instance_label, window, extra_matchers)
        self._headers = {"X-Scope-OrgID": tenant} if tenant else {}
        if bearer_token:
            self._headers["Authorization"] = f"Bearer {bearer_token}"
        elif basic_auth:
            credentials = base64.b64encode(":".join(basic_auth).encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"
        self._timeout_s = timeout_s
        self._newest = NewestOnly()
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        return "prometheus"

    async def read(self, now: datetime) -> Reading:
        """All signals, call edges, and a failure for each query that gave none and each target that is down."""
        signals = self._promql.signals()
        names = [*(signal.value for signal in signals), _CALLS, _DOWN]
        queries = [*signals.values(), self._promql.calls(), self._promql.down()]
        outcomes = await asyncio.gather(*(self._ask(query, now) for query in queries))
        rows = {
            name: () if isinstance(outcome, str) else outcome for name, outcome in zip(names, outcomes, strict=True)
        }
        refused = {name: outcome for name, outcome in zip(names, outcomes, strict=True) if isinstance(outcome, str)}
        failures = [SourceFailure(f"{self.name} {name}", reason) for name, reason in refused.items()]
        if len(refused) == len(names) and len(set(refused.values())) == 1:
            failures = [SourceFailure(self.name, f"every query: {failures[0].reason}")]
        failures += [
            SourceFailure(
                f"{self.name} {row.metric.get(self._instance_label, 'target')}", "Prometheus cannot scrape it"
            )
            for row in rows[_DOWN]
        ]
        samples = [sample for signal in signals for row in rows[signal.value] for sample in self._sample(signal, row)]
        edges = [edge for row in rows[_CALLS] for edge in _edge(row)]
        sifted = self._newest.sift(samples, now)
        return Reading(sifted.samples, tuple(edges), tuple(failures), sifted.rejected)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, query: str, now: datetime) -> tuple[_Row, ...] | str:
        """The rows, or in one line why there are none."""
        try:
            rows = await self._post(query)
        except TemporaryError as error:
            return f"{error}; asked again at the next reading"
        except PermanentError as error:
            return f"{error}; it will fail again until the settings are changed"
        age_s = max(((now - row.at).total_seconds() for row in rows), default=0.0)
        return f"the answer is {age_s:.0f} s old and was ignored" if age_s > STALE_AFTER_S else rows

    async def _post(self, query: str) -> tuple[_Row, ...]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s), headers=self._headers
            )
        try:
            # No redirects: they would turn the POST into a GET and may carry the token elsewhere.
            async with self._session.post(self._url, data={"query": query}, allow_redirects=False) as response:
                status, body = response.status, await read_body(response)
        except HTTP_FAILURES as error:
            raise TemporaryError(why(error, timeout_s=self._timeout_s)) from error
        except ValueError as error:
            raise PermanentError(str(error)) from error
        if status != 200:
            said = f"HTTP {status}: {_said(body)}"
            raise TemporaryError(said) if status == 429 or status >= 500 else PermanentError(said)
        try:
            return _Answer.model_validate_json(body).data.result
        except ValidationError as error:
            raise PermanentError(f"not an answer of Prometheus' query API: {_said(body)}") from error

    def _sample(self, signal: Signal, row: _Row) -> tuple[Sample, ...]:
        """One sample, or none when the row does not say whose it is."""
        service = row.metric.get(self._service_label, "")
        instance = row.metric.get(self._instance_label, "") if signal in _INSTANCE_SIGNALS else ""
        if not service or (signal in _INSTANCE_SIGNALS and not instance):
            return ()
        return (Sample(SeriesKey(ServiceName(service), signal, instance), row.at, row.value[1]),)


def _edge(row: _Row) -> tuple[CallEdge, ...]:
    caller, callee = row.metric.get(CALLER_LABEL, ""), row.metric.get(CALLEE_LABEL, "")
    if not caller or not callee or not isfinite(row.value[1]):
        return ()
    return (CallEdge(ServiceName(caller), ServiceName(callee), row.value[1]),)


def _said(body: bytes) -> str:
    """Prometheus' own words for an error, else the beginning of what came."""
    try:
        return one_line(_Refusal.model_validate_json(body).error)
    except ValidationError:
        return one_line(body[:1000].decode(errors="replace")) or "no explanation"
