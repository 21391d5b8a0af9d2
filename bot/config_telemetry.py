"""Settings of the telemetry providers; each is used as soon as its address or names are set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from bot.config_types import Count, Group, Positive, Variable


def _an_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:
        usable = False
    if url and not usable:
        raise PydanticCustomError("address", "must be an address that starts with http:// or https://")
    return url


def _label(name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
        said = "{name} is no label name: it has letters, digits and underscores"
        raise PydanticCustomError("label", said, {"name": repr(name)})
    return name


def _labels(names: str) -> str:
    return ",".join(_label(name.strip()) for name in names.split(","))


def _namespaces(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            said = "{name} is no name of a Kubernetes namespace"
            raise PydanticCustomError("namespace", said, {"name": repr(name)})
    return names


def _named_values(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        name, _, value = entry.rpartition("=")
        if not name.strip() or not value.strip():
            said = "{entry} is not of the form name=value"
            raise PydanticCustomError("pair", said, {"entry": repr(entry)})
    return entries


Url = Annotated[str, AfterValidator(_an_address)]
Label = Annotated[str, AfterValidator(_label)]
Labels = Annotated[str, AfterValidator(_labels)]
Namespaces = Annotated[tuple[str, ...], AfterValidator(_namespaces)]
Pairs = Annotated[tuple[str, ...], AfterValidator(_named_values)]
"""``name=value`` each; the last ``=`` divides, for names may hold one."""


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone that is known here, such as Europe/Berlin") from error
    return name


class TelemetrySettings(Group):
    scrape_file: Annotated[
        Path | None, Variable("SRE_SCRAPE_FILE", "path", "Prometheus file_sd file of /metrics endpoints to read")
    ] = None
    prometheus_url: Annotated[Url, Variable("PROMETHEUS_URL", "URL", "a Prometheus server to query")] = ""
    prometheus_token: Annotated[
        SecretStr | None, Variable("PROMETHEUS_TOKEN", "text", "bearer token for that server")
    ] = None
    prometheus_tenant: Annotated[
        str, Variable("PROMETHEUS_TENANT", "text", "X-Scope-OrgID header, for Mimir, Cortex or Thanos")
    ] = ""
    prometheus_user: Annotated[str, Variable("PROMETHEUS_USER", "text", "user of basic authentication there")] = ""
    prometheus_password: Annotated[SecretStr | None, Variable("PROMETHEUS_PASSWORD", "text", "and the password")] = None
    prometheus_namespaces: Annotated[
        Namespaces,
        Variable("PROMETHEUS_NAMESPACES", "names, comma-separated", "watch services of these alone; empty: of all"),
    ] = ()
    prometheus_conventions: Annotated[
        tuple[str, ...],
        Variable("PROMETHEUS_CONVENTIONS", "names, comma-separated", "metric families, preferred first; empty: all"),
    ] = ()
    prometheus_matchers: Annotated[
        str, Variable("PROMETHEUS_MATCHERS", "PromQL matchers", 'narrow every query, such as cluster="eu"')
    ] = ""
    prometheus_service_label: Annotated[
        Labels,
        Variable("PROMETHEUS_SERVICE_LABEL", "labels, comma-separated", "the first that is there names the service"),
    ] = "service,service_name,app_kubernetes_io_name,app,pod"
    prometheus_instance_label: Annotated[
        Label, Variable("PROMETHEUS_INSTANCE_LABEL", "label", "the label that names the replica, such as pod")
    ] = "instance"
    loki_url: Annotated[Url, Variable("LOKI_URL", "URL", "a Loki to read logs from")] = ""
    loki_token: Annotated[SecretStr | None, Variable("LOKI_TOKEN", "text", "bearer token for it")] = None
    loki_tenant: Annotated[str, Variable("LOKI_TENANT", "text", "X-Scope-OrgID header")] = ""
    loki_service_label: Annotated[
        Label, Variable("LOKI_SERVICE_LABEL", "label", "the index label that names the service")
    ] = "service_name"
    loki_instance_label: Annotated[Label, Variable("LOKI_INSTANCE_LABEL", "label", "the label of the replica")] = "pod"
    loki_matchers: Annotated[
        str, Variable("LOKI_MATCHERS", "LogQL matchers", 'narrow every query, such as cluster="eu"')
    ] = ""
    jaeger_url: Annotated[Url, Variable("JAEGER_URL", "URL", "a Jaeger, for traces and who calls whom")] = ""
    jaeger_token: Annotated[SecretStr | None, Variable("JAEGER_TOKEN", "text", "bearer token for it")] = None
    jaeger_tenant: Annotated[str, Variable("JAEGER_TENANT", "text", "x-tenant header")] = ""
    jaeger_lookback_s: Annotated[
        float,
        Field(ge=0),
        Variable("JAEGER_DEPENDENCIES_LOOKBACK_S", "seconds", "where a daily job computes call edges"),
    ] = 0.0
    tempo_url: Annotated[Url, Variable("TEMPO_URL", "URL", "a Grafana Tempo, for traces")] = ""
    tempo_token: Annotated[SecretStr | None, Variable("TEMPO_TOKEN", "text", "bearer token for it")] = None
    tempo_tenant: Annotated[str, Variable("TEMPO_TENANT", "text", "X-Scope-OrgID header")] = ""
    kubernetes_watch: Annotated[
        Namespaces,
        Variable("SRE_KUBERNETES_WATCH", "names, comma-separated", "namespaces to read logs, events and rollouts of"),
    ] = ()
    kubernetes_service_label: Annotated[
        str, Variable("SRE_KUBERNETES_SERVICE_LABEL", "label", "names the service of a pod")
    ] = "app.kubernetes.io/name"
    kubernetes_log_pods: Annotated[
        Count, Variable("SRE_KUBERNETES_LOG_PODS", "pods", "of one namespace read at once, at most")
    ] = 100
    aws_region: Annotated[str, Variable("AWS_REGION", "region", "of CloudWatch and X-Ray; empty: boto3's own")] = ""
    aws_profile: Annotated[str, Variable("SRE_AWS_PROFILE", "name", "of the credentials; empty: boto3's own")] = ""
    aws_endpoint_url: Annotated[
        Url, Variable("SRE_AWS_ENDPOINT_URL", "URL", "one address for all AWS services, such as a VPC endpoint's")
    ] = ""
    cloudwatch: Annotated[
        bool,
        Variable("SRE_CLOUDWATCH", "true or false", "read CloudWatch metrics; Amazon bills each one"),
    ] = False
    cloudwatch_namespaces: Annotated[
        tuple[str, ...], Variable("SRE_CLOUDWATCH_NAMESPACES", "names, comma-separated", "AWS/ECS, …; empty: all known")
    ] = ()
    cloudwatch_names: Annotated[
        Pairs,
        Variable("SRE_CLOUDWATCH_NAMES", "resource=service, comma-separated", "whose instance or function"),
    ] = ()
    cloudwatch_only: Annotated[
        Pairs,
        Variable("SRE_CLOUDWATCH_ONLY", "dimension=value, comma-separated", "leave out other values: ClusterName=prod"),
    ] = ()
    cloudwatch_expressions: Annotated[
        Path | None,
        Variable("SRE_CLOUDWATCH_EXPRESSIONS", "path", "YAML list of {service, signal, expression, instance}"),
    ] = None
    cloudwatch_log_groups: Annotated[
        Pairs,
        Variable("SRE_CLOUDWATCH_LOG_GROUPS", "group=service, comma-separated", "log groups to read; empty: none"),
    ] = ()
    xray: Annotated[bool, Variable("SRE_XRAY", "true or false", "read traces and calls from AWS X-Ray")] = False
    new_relic_account: Annotated[
        int, Field(ge=0), Variable("NEW_RELIC_ACCOUNT_ID", "number", "metrics, logs, traces and calls from New Relic")
    ] = 0
    new_relic_key: Annotated[SecretStr | None, Variable("NEW_RELIC_API_KEY", "text", "a user key for NerdGraph")] = None
    new_relic_region: Annotated[
        Literal["us", "eu"], Variable("NEW_RELIC_REGION", "us or eu", "where the account lives")
    ] = "us"
    new_relic_url: Annotated[Url, Variable("NEW_RELIC_URL", "URL", "another address of NerdGraph")] = ""
    new_relic_host_service: Annotated[
        str, Variable("SRE_NEWRELIC_HOST_SERVICE", "attribute", "names the service of a host")
    ] = "service"
    new_relic_pod_service: Annotated[
        str, Variable("SRE_NEWRELIC_POD_SERVICE", "attribute", "names the service of a pod")
    ] = "deploymentName"
    pixie_url: Annotated[Url, Variable("PIXIE_URL", "URL", "gRPC-web address of a Pixie Cloud or Vizier")] = ""
    pixie_key: Annotated[SecretStr | None, Variable("PIXIE_API_KEY", "text", "API key for it")] = None
    pixie_cluster: Annotated[str, Variable("PIXIE_CLUSTER_ID", "UUID", "the cluster that is asked about")] = ""
    pixie_namespace: Annotated[str, Variable("SRE_PIXIE_NAMESPACE", "name", "read of it alone; empty: of all")] = ""
    ca_file: Annotated[
        Path | None,
        Variable("SRE_TELEMETRY_CA_FILE", "PEM file", "a CA of your own, for Prometheus, Loki, Jaeger and Tempo"),
    ] = None
    client_cert: Annotated[Path | None, Variable("SRE_TELEMETRY_CLIENT_CERT", "PEM file", "shown to these")] = None
    client_key: Annotated[Path | None, Variable("SRE_TELEMETRY_CLIENT_KEY", "PEM file", "of that certificate")] = None
    timeout_s: Annotated[Positive, Variable("SRE_TELEMETRY_TIMEOUT_S", "seconds", "bounds each request")] = 10.0
    log_warmup_s: Annotated[
        Positive, Variable("SRE_LOG_WARMUP_S", "seconds", "logs of a service are listened to before its patterns count")
    ] = 300.0
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
    timezone: Annotated[
        str,
        AfterValidator(_known_zone),
        Variable("SRE_TIMEZONE", "IANA name", "whose hours and weekdays the load follows, such as Europe/Berlin"),
    ] = "UTC"
    max_series: Annotated[
        Count, Variable("SRE_MAX_SERIES", "series", "more are turned away and counted: labels may explode overnight")
    ] = 50_000
    window_s: Annotated[
        Positive, Variable("SRE_RATE_WINDOW_S", "seconds", "the window over which rates and quantiles are taken")
    ] = 60.0
    catalogue: Annotated[
        Path | None, Variable("SRE_CATALOGUE", "path", "YAML of services: tier, owner, environment, target")
    ] = None
