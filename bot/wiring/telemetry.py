"""Which telemetry provider stands behind which port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from bot.backtest import HistorySeries, QueryRange
from bot.config import Settings
from bot.config_telemetry import TelemetrySettings
from pipeline.adapters.telemetry.git_changes import GitChanges
from pipeline.adapters.telemetry.jaeger import JaegerSource
from pipeline.adapters.telemetry.log_files import LogFilesSource
from pipeline.adapters.telemetry.loki import LokiSource
from pipeline.adapters.telemetry.newrelic import NewRelicSource, NewRelicTopologySource
from pipeline.adapters.telemetry.newrelic_client import NerdGraph
from pipeline.adapters.telemetry.newrelic_logs import NewRelicLogsSource
from pipeline.adapters.telemetry.newrelic_traces import NewRelicTracesSource
from pipeline.adapters.telemetry.pixie import PixieActivitySource, PixieSource, PixieTopologySource
from pipeline.adapters.telemetry.pixie_client import Pixie
from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.adapters.telemetry.prometheus_api import PrometheusApi
from pipeline.adapters.telemetry.scrape import ScrapeSource
from pipeline.adapters.telemetry.tempo import TempoSource
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal
from pipeline.ports.activity import ActivitySource
from pipeline.ports.changes import ChangesSource
from pipeline.ports.logs import LogsSource
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.topology import TopologySource
from pipeline.ports.traces import TracesSource
from pipeline.stages.observe import Sources

if TYPE_CHECKING:
    from pipeline.adapters.telemetry.cloudwatch_series import CloudWatchExpression

NO_METRICS = (
    "PROMETHEUS_URL, SRE_SCRAPE_FILE, SRE_CLOUDWATCH, NEW_RELIC_ACCOUNT_ID or PIXIE_URL: at least one is needed,"
    " there is nothing to watch"
)


@dataclass(slots=True)
class _Found:
    """What is configured, while it is being put together."""

    metrics: list[MetricsSource] = field(default_factory=list)
    topology: list[TopologySource] = field(default_factory=list)
    logs: list[LogsSource] = field(default_factory=list)
    changes: list[ChangesSource] = field(default_factory=list)
    traces: list[TracesSource] = field(default_factory=list)
    activity: list[ActivitySource] = field(default_factory=list)

    def sources(self) -> Sources:
        return Sources(
            tuple(self.metrics),
            tuple(self.topology),
            tuple(self.logs),
            tuple(self.changes),
            tuple(self.traces),
            tuple(self.activity),
        )


def sources_of(settings: Settings) -> Sources:
    """Every telemetry source that is configured. Raises ConfigurationError when no metrics are."""
    telemetry = settings.telemetry
    found = _Found()
    if telemetry.scrape_file is not None:
        found.metrics.append(ScrapeSource(sd_file=telemetry.scrape_file, window_s=telemetry.window_s))
    if telemetry.prometheus_url:
        found.metrics.append(prometheus_of(telemetry))
    if telemetry.log_folder is not None:
        found.logs.append(LogFilesSource(telemetry.log_folder))
    if telemetry.changes_repo is not None:
        found.changes.append(GitChanges(telemetry.changes_repo, folder=telemetry.changes_folder))
    _grafana(telemetry, found)
    if telemetry.kubernetes_watch:
        _kubernetes(settings, found)
    if telemetry.cloudwatch or telemetry.cloudwatch_log_groups or telemetry.xray:
        _aws(telemetry, found)
    if telemetry.new_relic_account:
        _new_relic(telemetry, found)
    if telemetry.pixie_url:
        _pixie(telemetry, found)
    if not found.metrics:
        raise ConfigurationError(NO_METRICS)
    return found.sources()


def prometheus_of(telemetry: TelemetrySettings) -> PrometheusSource:
    """The Prometheus server as configured. Raises ConfigurationError."""
    access = _prometheus_access(telemetry)
    with _naming("PROMETHEUS_CONVENTIONS, PROMETHEUS_TENANT"):
        return PrometheusSource(
            telemetry.prometheus_url,
            service_label=telemetry.prometheus_service_label,
            instance_label=telemetry.prometheus_instance_label,
            window=f"{max(int(telemetry.window_s), 1)}s",
            extra_matchers=telemetry.prometheus_matchers,
            conventions=telemetry.prometheus_conventions,
            namespaces=telemetry.prometheus_namespaces,
            tenant=telemetry.prometheus_tenant,
            access=access,
            timeout_s=telemetry.timeout_s,
        )


@asynccontextmanager
async def open_history(settings: Settings) -> AsyncIterator[QueryRange]:
    """The same server's past, for ``sre-bot backtest``. Raises ConfigurationError when none is configured."""
    telemetry = settings.telemetry
    if not telemetry.prometheus_url:
        raise ConfigurationError("PROMETHEUS_URL: needed, it names the server that is asked")
    access = _prometheus_access(telemetry).with_header("X-Scope-OrgID", telemetry.prometheus_tenant)
    api = PrometheusApi(telemetry.prometheus_url, access, timeout_s=telemetry.timeout_s)

    async def ask(query: str, start: datetime, end: datetime, step: timedelta) -> Sequence[HistorySeries]:
        return await api.range(query, start, end, step.total_seconds())

    try:
        yield ask
    finally:
        await api.close()


def _prometheus_access(telemetry: TelemetrySettings) -> Access:
    user, password = telemetry.prometheus_user, telemetry.prometheus_password
    access = _access(telemetry, "PROMETHEUS_TOKEN", telemetry.prometheus_token)
    if not user:
        if password is not None:
            raise ConfigurationError("PROMETHEUS_USER: needed with PROMETHEUS_PASSWORD")
        return access
    with _naming("PROMETHEUS_TOKEN, PROMETHEUS_USER"):
        return replace(access, basic=(user, password.get_secret_value() if password is not None else ""))


def _grafana(telemetry: TelemetrySettings, found: _Found) -> None:
    """Logs and traces of an OpenTelemetry stack; its metrics are Prometheus' own."""
    if telemetry.loki_url:
        access = _access(telemetry, "LOKI_TOKEN", telemetry.loki_token)
        with _naming("LOKI_TENANT"):
            loki = LokiSource(
                telemetry.loki_url,
                service_label=telemetry.loki_service_label,
                instance_label=telemetry.loki_instance_label,
                matchers=telemetry.loki_matchers,
                tenant=telemetry.loki_tenant,
                access=access,
                timeout_s=telemetry.timeout_s,
            )
        found.logs.append(loki)
    if telemetry.jaeger_url:
        access = _access(telemetry, "JAEGER_TOKEN", telemetry.jaeger_token)
        with _naming("JAEGER_TENANT"):
            jaeger = JaegerSource(
                telemetry.jaeger_url,
                access=access,
                tenant=telemetry.jaeger_tenant,
                dependencies_lookback_s=telemetry.jaeger_lookback_s,
                timeout_s=telemetry.timeout_s,
            )
        found.traces.append(jaeger)
        found.topology.append(jaeger)
    if telemetry.tempo_url:
        access = _access(telemetry, "TEMPO_TOKEN", telemetry.tempo_token)
        with _naming("TEMPO_TENANT"):
            tempo = TempoSource(
                telemetry.tempo_url, tenant=telemetry.tempo_tenant, access=access, timeout_s=telemetry.timeout_s
            )
        found.traces.append(tempo)


def _kubernetes(settings: Settings, found: _Found) -> None:
    try:
        from executors.targets.kubernetes import configuration_for
        from pipeline.adapters.telemetry.kubernetes_logs import KubernetesSource
    except ImportError as error:
        raise ConfigurationError(
            'SRE_KUBERNETES_WATCH: the Kubernetes client is missing: pip install "sre-bot[kubernetes]"'
        ) from error
    with _naming("SRE_KUBERNETES_WATCH, SRE_KUBERNETES_CONTEXT"):
        configuration = configuration_for(settings.targets.kubernetes_context)
    cluster = KubernetesSource(
        configuration,
        namespaces=settings.telemetry.kubernetes_watch,
        service_label=settings.telemetry.kubernetes_service_label,
        max_pods=settings.telemetry.kubernetes_log_pods,
        timeout_s=settings.telemetry.timeout_s,
    )
    found.logs.append(cluster)
    found.changes.append(cluster)


def _aws(telemetry: TelemetrySettings, found: _Found) -> None:
    try:
        from pipeline.adapters.telemetry.aws_client import AwsClient
    except ImportError as error:
        raise ConfigurationError(
            'SRE_CLOUDWATCH, SRE_CLOUDWATCH_LOG_GROUPS, SRE_XRAY: boto3 is missing: pip install "sre-bot[aws]"'
        ) from error
    from pipeline.adapters.telemetry.cloudwatch import CloudWatchSource
    from pipeline.adapters.telemetry.cloudwatch_logs import CloudWatchLogsSource
    from pipeline.adapters.telemetry.cloudwatch_series import NAMESPACES
    from pipeline.adapters.telemetry.xray import XRayTopologySource, XRayTracesSource

    with _naming("AWS_REGION, SRE_AWS_PROFILE"):
        client = AwsClient(
            region=telemetry.aws_region or None,
            profile=telemetry.aws_profile or None,
            endpoint_url=telemetry.aws_endpoint_url or None,
            timeout_s=telemetry.timeout_s,
        )
    if telemetry.cloudwatch:
        expressions = _expressions(telemetry.cloudwatch_expressions)
        with _naming("SRE_CLOUDWATCH_NAMESPACES"):
            found.metrics.append(
                CloudWatchSource(
                    client,
                    namespaces=telemetry.cloudwatch_namespaces or NAMESPACES,
                    names=_pairs(telemetry.cloudwatch_names),
                    only=_pairs(telemetry.cloudwatch_only),
                    expressions=expressions,
                )
            )
    if telemetry.cloudwatch_log_groups:
        groups = _pairs(telemetry.cloudwatch_log_groups)
        of_services = {group: ServiceName(service) for group, service in groups.items()}
        with _naming("SRE_CLOUDWATCH_LOG_GROUPS"):
            found.logs.append(CloudWatchLogsSource(client, groups=of_services))
    if telemetry.xray:
        found.traces.append(XRayTracesSource(client))
        found.topology.append(XRayTopologySource(client))


class _Expression(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    service: str
    signal: Signal
    expression: str
    instance: str = ""


def _expressions(path: Path | None) -> list[CloudWatchExpression]:
    """Raises ConfigurationError with one line a mistake."""
    from pipeline.adapters.telemetry.cloudwatch_series import CloudWatchExpression

    if path is None:
        return []
    try:
        told = TypeAdapter(list[_Expression]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"SRE_CLOUDWATCH_EXPRESSIONS: {path} cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ConfigurationError(f"SRE_CLOUDWATCH_EXPRESSIONS: {path} is no YAML: {said}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg'].lower()}" for one in error.errors()]
        raise ConfigurationError("\n".join(f"SRE_CLOUDWATCH_EXPRESSIONS: {path}: {one}" for one in wrong)) from error
    return [CloudWatchExpression(ServiceName(one.service), one.signal, one.expression, one.instance) for one in told]


def _pairs(entries: Sequence[str]) -> dict[str, str]:
    """``name=value`` entries, as the settings have let them in."""
    divided = (entry.rpartition("=") for entry in entries)
    return {name.strip(): value.strip() for name, _, value in divided}


def _new_relic(telemetry: TelemetrySettings, found: _Found) -> None:
    if telemetry.new_relic_key is None:
        raise ConfigurationError("NEW_RELIC_API_KEY: needed with NEW_RELIC_ACCOUNT_ID")
    with _naming("NEW_RELIC_API_KEY"):
        client = NerdGraph(
            telemetry.new_relic_account,
            telemetry.new_relic_key.get_secret_value(),
            region=telemetry.new_relic_region,
            url=telemetry.new_relic_url or None,
            timeout_s=telemetry.timeout_s,
        )
    host, pod = telemetry.new_relic_host_service, telemetry.new_relic_pod_service
    with _naming("SRE_NEWRELIC_HOST_SERVICE, SRE_NEWRELIC_POD_SERVICE"):
        found.metrics.append(NewRelicSource(client, host_service=host, pod_service=pod))
    found.topology.append(NewRelicTopologySource(client))
    found.logs.append(NewRelicLogsSource(client))
    found.traces.append(NewRelicTracesSource(client))


def _pixie(telemetry: TelemetrySettings, found: _Found) -> None:
    if telemetry.pixie_key is None:
        raise ConfigurationError("PIXIE_API_KEY: needed with PIXIE_URL")
    if not telemetry.pixie_cluster:
        raise ConfigurationError("PIXIE_CLUSTER_ID: needed with PIXIE_URL; `px get viziers` shows it")
    with _naming("PIXIE_API_KEY, PIXIE_CLUSTER_ID"):
        client = Pixie(
            telemetry.pixie_url,
            telemetry.pixie_key.get_secret_value(),
            telemetry.pixie_cluster,
            timeout_s=telemetry.timeout_s,
        )
    found.metrics.append(PixieSource(client, namespace=telemetry.pixie_namespace))
    found.topology.append(PixieTopologySource(client, namespace=telemetry.pixie_namespace))
    found.activity.append(PixieActivitySource(client, namespace=telemetry.pixie_namespace))


def _access(telemetry: TelemetrySettings, variable: str, token: SecretStr | None) -> Access:
    """How an HTTP server of one's own is come to; ``variable`` holds the token. Raises ConfigurationError."""
    files = {
        "SRE_TELEMETRY_CA_FILE": telemetry.ca_file,
        "SRE_TELEMETRY_CLIENT_CERT": telemetry.client_cert,
        "SRE_TELEMETRY_CLIENT_KEY": telemetry.client_key,
    }
    for name, path in files.items():
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{name}: {path} is no file")
    with _naming(", ".join(name for name, path in files.items() if path is not None)):
        access = Access(ca_file=telemetry.ca_file, client_cert=telemetry.client_cert, client_key=telemetry.client_key)
        access.ssl_context()
    with _naming(variable):
        return access.with_header("Authorization", f"Bearer {token.get_secret_value()}" if token is not None else "")


@contextmanager
def _naming(variables: str) -> Iterator[None]:
    """Adapters know nothing of variables: what one of them finds wrong is told in one line with their names."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{variables}: {' '.join(str(error).split())}") from error
