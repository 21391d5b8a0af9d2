"""Which telemetry provider stands behind which port."""

from __future__ import annotations

from pydantic import SecretStr

from bot.config import Settings
from bot.config_telemetry import TelemetrySettings
from pipeline.adapters.telemetry.git_changes import GitChanges
from pipeline.adapters.telemetry.log_files import LogFilesSource
from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.adapters.telemetry.scrape import ScrapeSource
from pipeline.domain.errors import ConfigurationError
from pipeline.ports.changes import ChangesSource
from pipeline.ports.logs import LogsSource
from pipeline.ports.metrics import MetricsSource
from pipeline.stages.observe import Sources


def sources_of(settings: Settings) -> Sources:
    """Every telemetry source that is configured. Raises ConfigurationError when no metrics are."""
    telemetry = settings.telemetry
    metrics: list[MetricsSource] = []
    logs: list[LogsSource] = []
    changes: list[ChangesSource] = []
    if telemetry.scrape_file is not None:
        metrics.append(ScrapeSource(sd_file=telemetry.scrape_file, window_s=telemetry.window_s))
    if telemetry.prometheus_url:
        metrics.append(prometheus_of(telemetry))
    if telemetry.log_folder is not None:
        logs.append(LogFilesSource(telemetry.log_folder))
    if telemetry.changes_repo is not None:
        changes.append(GitChanges(telemetry.changes_repo, folder=telemetry.changes_folder))
    if not metrics:
        raise ConfigurationError("PROMETHEUS_URL or SRE_SCRAPE_FILE: at least one is needed, there is nothing to watch")
    return Sources(metrics=tuple(metrics), logs=tuple(logs), changes=tuple(changes))


def prometheus_of(telemetry: TelemetrySettings) -> PrometheusSource:
    """The Prometheus server as configured. Raises ConfigurationError."""
    return PrometheusSource(
        telemetry.prometheus_url,
        service_label=telemetry.prometheus_service_label,
        instance_label=telemetry.prometheus_instance_label,
        window=f"{max(int(telemetry.window_s), 1)}s",
        bearer_token=_plain(telemetry.prometheus_token) or None,
        tenant=telemetry.prometheus_tenant or None,
    )


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
