"""What metrics are called in the world, as data: which ones give which signal, and which labels name whose they are.

Sources of the names: OpenTelemetry's semantic conventions for HTTP and RPC metrics in their Prometheus form, old and
new; kube-state-metrics, cAdvisor and the kubelet; node_exporter; blackbox_exporter, x509-certificate-exporter and
cert-manager; Istio's standard metrics; Linkerd's proxy metrics; the span metrics and service graphs of Tempo and of the
OpenTelemetry Collector. Pure data: ``promql`` makes queries of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pipeline.adapters.telemetry.exposition import (
    CALLEE_LABEL,
    CALLER_LABEL,
    CALLS,
    CERT_END,
    DISK_FREE,
    DISK_SIZE,
    MEMORY_LIMIT,
    MEMORY_USED,
    PSEUDO_FILESYSTEMS,
    REQUEST_DURATION,
    SERVER_ERROR,
    STATUS_LABELS,
)
from pipeline.domain.telemetry import Signal


class Convention(StrEnum):
    """A family of metric names, in order of preference where nobody orders them otherwise."""

    KUBERNETES = "kubernetes"
    OTEL = "otel"
    RED = "red"
    NODE = "node"
    CERTIFICATES = "certificates"
    ISTIO = "istio"
    LINKERD = "linkerd"
    SPANMETRICS = "spanmetrics"
    SERVICEGRAPH = "servicegraph"


NAMESPACE_LABELS = ("namespace", "k8s_namespace_name")
"""Where an application's own series say in which namespace it runs; the first that a series has counts."""
POD_LABEL = "pod"
"""As the name of a service it stands for the pod's workload: its name without what the platform appended."""
WORKLOAD = r"(.+?)(?:(?:-[bcdfghjklmnpqrstvwxz2456789]{6,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}|-[0-9]+)?"
"""Anchored, in RE2 and in Python: the workload of a pod's name. Kubernetes appends letters that form no words:
https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go; a StatefulSet appends a number."""
GRPC_FAILURE = "2|4|12|13|14|15"
"""Status codes by which an OpenTelemetry server span counts as failed, as numbers and as names:
https://opentelemetry.io/docs/specs/semconv/rpc/grpc/"""
_GRPC_FAILURE_NAMES = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests that services answered.

    ``durations``: a histogram's base name, in units of ``unit_s`` seconds. ``counter``: the counter of requests, empty
    for the histogram's own count. ``failed``: matchers, each of which marks failed requests. ``only``: matchers that
    all series must meet. ``service`` and ``namespace``: labels that name whose they are, where the convention has its
    own. ``native``: the histogram may be a native one.
    """

    convention: Convention
    durations: str
    failed: tuple[str, ...]
    counter: str = ""
    unit_s: float = 1.0
    only: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    namespace: tuple[str, ...] = NAMESPACE_LABELS
    native: bool = False

    @property
    def count(self) -> str:
        return self.counter or f"{self.durations}_count"


_HTTP_FAILED = tuple(f'{label}=~"{SERVER_ERROR}"' for label in STATUS_LABELS)
_SPAN_FAILED = ('status_code="STATUS_CODE_ERROR"',)
_SPAN_ONLY = ('span_kind="SPAN_KIND_SERVER"',)

REQUESTS = (
    *(
        Requests(
            Convention.OTEL if metric.startswith("http_server") else Convention.RED, metric, _HTTP_FAILED, native=True
        )
        for metric in REQUEST_DURATION
    ),
    Requests(Convention.OTEL, "http_server_duration_milliseconds", _HTTP_FAILED, unit_s=0.001),
    Requests(
        Convention.OTEL,
        "rpc_server_call_duration_seconds",
        (f'rpc_response_status_code=~"{_GRPC_FAILURE_NAMES}|{GRPC_FAILURE}"',),
        native=True,
    ),
    Requests(
        Convention.OTEL,
        "rpc_server_duration_milliseconds",
        (f'rpc_grpc_status_code=~"{GRPC_FAILURE}"',),
        unit_s=0.001,
    ),
    Requests(
        Convention.ISTIO,
        "istio_request_duration_milliseconds",
        (f'response_code=~"{SERVER_ERROR}"', f'grpc_response_status=~"{GRPC_FAILURE}"'),
        counter="istio_requests_total",
        unit_s=0.001,
        # The client's proxy counts the same request as well.
        only=('reporter=~"destination|waypoint"',),
        service=("destination_canonical_service", "destination_workload"),
        namespace=("destination_workload_namespace",),
    ),
    Requests(
        Convention.LINKERD,
        "response_latency_ms",
        ('classification="failure"',),
        counter="response_total",
        unit_s=0.001,
        only=('direction="inbound"',),
        service=("deployment", "statefulset", "daemonset"),
    ),
    Requests(
        Convention.SPANMETRICS,
        "traces_spanmetrics_latency",
        _SPAN_FAILED,
        counter="traces_spanmetrics_calls_total",
        only=_SPAN_ONLY,
        service=("service", "service_name"),
        native=True,
    ),
    Requests(
        Convention.SPANMETRICS,
        "traces_span_metrics_duration_seconds",
        _SPAN_FAILED,
        counter="traces_span_metrics_calls_total",
        only=_SPAN_ONLY,
        service=("service_name",),
        native=True,
    ),
    Requests(
        Convention.SPANMETRICS,
        "traces_span_metrics_duration_milliseconds",
        _SPAN_FAILED,
        counter="traces_span_metrics_calls_total",
        unit_s=0.001,
        only=_SPAN_ONLY,
        service=("service_name",),
    ),
)


class Subject(StrEnum):
    """Whose a gauge is, and so by which labels its rows are told apart."""

    TARGET = "target"
    """Of the instance that was scraped: the service's and the instance's label of the settings."""
    POD = "pod"
    PROBE = "probe"
    """Of an address that blackbox_exporter asks; ``instance`` holds the address."""
    CERTIFICATE = "certificate"
    """Of a certificate that cert-manager renews; ``name`` is its name."""
    QUOTA = "quota"
    """Of a namespace."""


SUBJECT_LABELS: Mapping[Subject, tuple[str, ...]] = {
    Subject.TARGET: (),
    Subject.POD: ("namespace", POD_LABEL),
    Subject.PROBE: ("instance",),
    Subject.CERTIFICATE: ("exported_namespace", "namespace", "name"),
    Subject.QUOTA: ("namespace", "resourcequota", "resource"),
}


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric and its matchers. ``read``: ``fresh`` (a gauge no older than allowed), ``any`` or ``rate``."""

    metric: str
    only: tuple[str, ...] = ()
    read: Literal["fresh", "any", "rate"] = "fresh"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure of one instance: ``formula`` is PromQL in which ``{by}`` stands for the subject's labels, and every
    other name in braces for one of ``selectors`` (all of the alternatives together)."""

    convention: Convention
    signal: Signal
    subject: Subject
    formula: str
    selectors: Mapping[str, tuple[Selector, ...]] = field(default_factory=dict)


_CONTAINER = ('container!=""', 'container!="POD"', 'pod!=""')
# cAdvisor's series carry the labels of the kubelet that was scraped, and are none of that target's own.
_OWN = ('id=""', 'image=""')
_EACH = "namespace, pod, container"
_VOLUME = "namespace, persistentvolumeclaim"
_REAL_DISK = (f'fstype!~"{PSEUDO_FILESYSTEMS}"',)

GAUGES = (
    Gauge(
        Convention.KUBERNETES,
        Signal.MEMORY_RATIO,
        Subject.POD,
        f"max by ({{by}}) (max by ({_EACH}) ({{used}}) / (max by ({_EACH}) ({{limit}}) > 0))",
        {
            "used": (Selector("container_memory_working_set_bytes", _CONTAINER),),
            "limit": (
                Selector("kube_pod_container_resource_limits", ('resource="memory"',), "any"),
                Selector(MEMORY_LIMIT, _CONTAINER, "any"),
            ),
        },
    ),
    Gauge(
        Convention.KUBERNETES,
        Signal.CPU_RATIO,
        Subject.POD,
        f"max by ({{by}}) (sum by ({_EACH}) ({{used}}) / (max by ({_EACH}) ({{limit}}) > 0))",
        {
            "used": (Selector("container_cpu_usage_seconds_total", _CONTAINER, "rate"),),
            "limit": (Selector("kube_pod_container_resource_limits", ('resource="cpu"',), "any"),),
        },
    ),
    Gauge(
        Convention.KUBERNETES,
        Signal.DISK_RATIO,
        Subject.POD,
        f"max by ({{by}}) ((max by ({_VOLUME}) ({{used}}) / (max by ({_VOLUME}) ({{size}}) > 0))"
        f" * on ({_VOLUME}) group_right () group by ({_VOLUME}, pod) ({{mounted}}))",
        {
            "used": (Selector("kubelet_volume_stats_used_bytes"),),
            "size": (Selector("kubelet_volume_stats_capacity_bytes", (), "any"),),
            "mounted": (Selector("kube_pod_spec_volumes_persistentvolumeclaims_info", (), "any"),),
        },
    ),
    Gauge(
        Convention.KUBERNETES,
        Signal.QUOTA_RATIO,
        Subject.QUOTA,
        "max by ({by}) ({used}) / (max by ({by}) ({hard}) > 0)",
        {
            "used": (Selector("kube_resourcequota", ('type="used"',)),),
            "hard": (Selector("kube_resourcequota", ('type="hard"',), "any"),),
        },
    ),
    *(
        Gauge(
            Convention.RED,
            Signal.MEMORY_RATIO,
            Subject.TARGET,
            "max by ({by}) ({used}) / (max by ({by}) ({limit}) > 0)",
            {"used": (Selector(used, _OWN),), "limit": (Selector(MEMORY_LIMIT, _OWN),)},
        )
        for used in MEMORY_USED
    ),
    Gauge(
        Convention.NODE,
        Signal.DISK_RATIO,
        Subject.TARGET,
        "max by ({by}) (1 - {free} / ({size} > 0))",
        {"free": (Selector(DISK_FREE, _REAL_DISK),), "size": (Selector(DISK_SIZE, _REAL_DISK),)},
    ),
    Gauge(
        Convention.NODE,
        Signal.MEMORY_RATIO,
        Subject.TARGET,
        "1 - max by ({by}) ({free}) / (max by ({by}) ({size}) > 0)",
        {
            "free": (Selector("node_memory_MemAvailable_bytes"),),
            "size": (Selector("node_memory_MemTotal_bytes", (), "any"),),
        },
    ),
    Gauge(
        Convention.NODE,
        Signal.CPU_RATIO,
        Subject.TARGET,
        "1 - avg by ({by}) (sum by ({by}, cpu) ({idle}))",
        {"idle": (Selector("node_cpu_seconds_total", ('mode=~"idle|iowait"',), "rate"),)},
    ),
    Gauge(
        Convention.CERTIFICATES,
        Signal.CERT_REMAINING,
        Subject.TARGET,
        "min by ({by}) ({end}) - time()",
        {"end": (Selector(CERT_END),)},
    ),
    Gauge(
        Convention.CERTIFICATES,
        Signal.CERT_REMAINING,
        Subject.PROBE,
        "min by ({by}) ({end}) - time()",
        {"end": (Selector("probe_ssl_earliest_cert_expiry", ('instance!=""',)),)},
    ),
    Gauge(
        Convention.CERTIFICATES,
        Signal.CERT_REMAINING,
        Subject.CERTIFICATE,
        "min by ({by}) ({end}) - time()",
        {"end": (Selector("certmanager_certificate_expiration_timestamp_seconds", ('name!=""',)),)},
    ),
)


@dataclass(frozen=True, slots=True)
class Edges:
    """A counter of calls, and the labels that name who calls whom (the first that a series has)."""

    convention: Convention
    counter: str
    caller: tuple[str, ...]
    callee: tuple[str, ...]
    only: tuple[str, ...] = ()


EDGES = (
    Edges(Convention.SERVICEGRAPH, CALLS, (CALLER_LABEL,), (CALLEE_LABEL,)),
    Edges(
        Convention.ISTIO,
        "istio_requests_total",
        ("source_canonical_service", "source_workload"),
        ("destination_canonical_service", "destination_workload"),
        ('reporter=~"destination|waypoint"', 'source_workload!="unknown"', 'destination_workload!="unknown"'),
    ),
    Edges(
        Convention.LINKERD,
        "response_total",
        ("deployment", "statefulset", "daemonset"),
        ("dst_deployment", "dst_statefulset", "dst_daemonset"),
        ('direction="outbound"',),
    ),
)
