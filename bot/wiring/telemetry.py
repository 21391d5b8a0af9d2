"""Which telemetry provider stands behind which port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

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
    return PrometheusSource(
        telemetry.prometheus_url,
        service_label=telemetry.prometheus_service_label,
        instance_label=telemetry.prometheus_instance_label,
        window=f"{max(int(telemetry.window_s), 1)}s",
        extra_matchers=telemetry.prometheus_matchers,
        conventions=telemetry.prometheus_conventions,
        namespaces=telemetry.prometheus_namespaces,
        tenant=telemetry.prometheus_tenant,
        access=_prometheus_access(telemetry),
        timeout_s=telemetry.timeout_s,
    )


def prometheus_api_of(telemetry: TelemetrySettings) -> PrometheusApi:
    """The same server, for history. Raises ConfigurationError when none is configured."""
    if not telemetry.prometheus_url:
        raise ConfigurationError("PROMETHEUS_URL: needed, it names the server that is asked")
    access = _prometheus_access(telemetry).with_header("X-Scope-OrgID", telemetry.prometheus_tenant)
    return PrometheusApi(telemetry.prometheus_url, access, timeout_s=telemetry.timeout_s)


def _prometheus_access(telemetry: TelemetrySettings) -> Access:
    user, password = telemetry.prometheus_user, _plain(telemetry.prometheus_password)
    access = access_of(telemetry, telemetry.prometheus_token)
    return replace(access, basic=(user, password)) if user else access


def _grafana(telemetry: TelemetrySettings, found: _Found) -> None:
    """Logs and traces of an OpenTelemetry stack; its metrics are Prometheus' own."""
    if telemetry.loki_url:
        found.logs.append(
            LokiSource(
                telemetry.loki_url,
                service_label=telemetry.loki_service_label,
                instance_label=telemetry.loki_instance_label,
                matchers=telemetry.loki_matchers,
                tenant=telemetry.loki_tenant,
                access=access_of(telemetry, telemetry.loki_token),
                timeout_s=telemetry.timeout_s,
            )
        )
    if telemetry.jaeger_url:
        jaeger = JaegerSource(
            telemetry.jaeger_url,
            access=access_of(telemetry, telemetry.jaeger_token),
            tenant=telemetry.jaeger_tenant,
            dependencies_lookback_s=telemetry.jaeger_lookback_s,
            timeout_s=telemetry.timeout_s,
        )
        found.traces.append(jaeger)
        found.topology.append(jaeger)
    if telemetry.tempo_url:
        found.traces.append(
            TempoSource(
                telemetry.tempo_url,
                tenant=telemetry.tempo_tenant,
                access=access_of(telemetry, telemetry.tempo_token),
                timeout_s=telemetry.timeout_s,
            )
        )


def _kubernetes(settings: Settings, found: _Found) -> None:
    try:
        from executors.targets.kubernetes import configuration_for
        from pipeline.adapters.telemetry.kubernetes_logs import KubernetesSource
    except ImportError as error:
        raise ConfigurationError(
            'SRE_KUBERNETES_WATCH: the Kubernetes client is missing: pip install "sre-bot[kubernetes]"'
        ) from error
    cluster = KubernetesSource(
        configuration_for(settings.targets.kubernetes_context),
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

    client = AwsClient(
        region=telemetry.aws_region or None,
        profile=telemetry.aws_profile or None,
        endpoint_url=telemetry.aws_endpoint_url or None,
        timeout_s=telemetry.timeout_s,
    )
    if telemetry.cloudwatch:
        found.metrics.append(
            CloudWatchSource(
                client,
                namespaces=telemetry.cloudwatch_namespaces or NAMESPACES,
                names=_pairs("SRE_CLOUDWATCH_NAMES", telemetry.cloudwatch_names),
                only=_pairs("SRE_CLOUDWATCH_ONLY", telemetry.cloudwatch_only),
                expressions=_expressions(telemetry.cloudwatch_expressions),
            )
        )
    if telemetry.cloudwatch_log_groups:
        groups = _pairs("SRE_CLOUDWATCH_LOG_GROUPS", telemetry.cloudwatch_log_groups)
        of_services = {group: ServiceName(service) for group, service in groups.items()}
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
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"SRE_CLOUDWATCH_EXPRESSIONS: {path} cannot be read: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors()]
        raise ConfigurationError("\n".join(f"SRE_CLOUDWATCH_EXPRESSIONS: {path}: {one}" for one in wrong)) from error
    return [CloudWatchExpression(ServiceName(one.service), one.signal, one.expression, one.instance) for one in told]


def _pairs(variable: str, entries: Sequence[str]) -> dict[str, str]:
    """``a=b`` entries. Raises ConfigurationError."""
    pairs = {}
    for entry in entries:
        name, sign, value = entry.rpartition("=")
        if not sign or not name.strip() or not value.strip():
            raise ConfigurationError(f"{variable}: {entry!r} is not of the form name=value")
        pairs[name.strip()] = value.strip()
    return pairs


def _new_relic(telemetry: TelemetrySettings, found: _Found) -> None:
    if telemetry.new_relic_key is None:
        raise ConfigurationError("NEW_RELIC_API_KEY: needed with NEW_RELIC_ACCOUNT_ID")
    client = NerdGraph(
        telemetry.new_relic_account,
        telemetry.new_relic_key.get_secret_value(),
        region=telemetry.new_relic_region,
        url=telemetry.new_relic_url or None,
        timeout_s=telemetry.timeout_s,
    )
    found.metrics.append(
        NewRelicSource(
            client, host_service=telemetry.new_relic_host_service, pod_service=telemetry.new_relic_pod_service
        )
    )
    found.topology.append(NewRelicTopologySource(client))
    found.logs.append(NewRelicLogsSource(client))
    found.traces.append(NewRelicTracesSource(client))


def _pixie(telemetry: TelemetrySettings, found: _Found) -> None:
    if telemetry.pixie_key is None or not telemetry.pixie_cluster:
        raise ConfigurationError("PIXIE_API_KEY and PIXIE_CLUSTER_ID: needed with PIXIE_URL")
    client = Pixie(
        telemetry.pixie_url,
        telemetry.pixie_key.get_secret_value(),
        telemetry.pixie_cluster,
        timeout_s=telemetry.timeout_s,
    )
    found.metrics.append(PixieSource(client, namespace=telemetry.pixie_namespace))
    found.topology.append(PixieTopologySource(client, namespace=telemetry.pixie_namespace))
    found.activity.append(PixieActivitySource(client, namespace=telemetry.pixie_namespace))


def access_of(telemetry: TelemetrySettings, token: SecretStr | None) -> Access:
    """How every HTTP provider is come to. Raises ConfigurationError."""
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token is not None else {}
    return Access(
        headers=headers,
        ca_file=telemetry.ca_file,
        client_cert=telemetry.client_cert,
        client_key=telemetry.client_key,
    )


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
