"""Settings of the telemetry providers; each is used as soon as its address or names are set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import SecretStr

from bot.config_types import Count, Group, Positive, Variable


class TelemetrySettings(Group):
    scrape_file: Annotated[
        Path | None, Variable("SRE_SCRAPE_FILE", "path", "Prometheus file_sd file of /metrics endpoints to read")
    ] = None
    prometheus_url: Annotated[str, Variable("PROMETHEUS_URL", "URL", "a Prometheus server to query")] = ""
    prometheus_token: Annotated[
        SecretStr | None, Variable("PROMETHEUS_TOKEN", "text", "bearer token for that server")
    ] = None
    prometheus_tenant: Annotated[
        str, Variable("PROMETHEUS_TENANT", "text", "X-Scope-OrgID header, for Mimir, Cortex or Thanos")
    ] = ""
    prometheus_service_label: Annotated[
        str, Variable("PROMETHEUS_SERVICE_LABEL", "label", "the label that names the service")
    ] = "service"
    prometheus_instance_label: Annotated[
        str, Variable("PROMETHEUS_INSTANCE_LABEL", "label", "the label that names the replica, such as pod")
    ] = "instance"
    changes_repo: Annotated[
        Path | None, Variable("SRE_CHANGES_REPO", "path", "git clone whose commits are deployed; each is a change")
    ] = None
    changes_folder: Annotated[
        str, Variable("SRE_CHANGES_FOLDER", "path in it", "below it, a file's or folder's name is the service's")
    ] = "services"
    log_folder: Annotated[
        Path | None,
        Variable("SRE_LOG_FOLDER", "path", "folder of <service>-<n>.log files, on a host with no log server"),
    ] = None
    interval_s: Annotated[Positive, Variable("SRE_INTERVAL_S", "seconds", "how often telemetry is read")] = 15.0
    max_series: Annotated[
        Count, Variable("SRE_MAX_SERIES", "series", "more are turned away and counted: labels may explode overnight")
    ] = 50_000
    window_s: Annotated[
        Positive, Variable("SRE_RATE_WINDOW_S", "seconds", "the window over which rates and quantiles are taken")
    ] = 60.0
    catalogue: Annotated[
        Path | None, Variable("SRE_CATALOGUE", "path", "YAML of services: tier, owner, environment, target")
    ] = None
