"""What each instance exports at /metrics, under the names of OpenTelemetry, node_exporter and Tempo."""

from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bot.demo.world.log_volume import LogVolume
from bot.demo.world.spec import MEMORY_LIMIT_BYTES, ServiceSpec

# Finer than OpenTelemetry's default between 10 and 300 ms, where the healthy p99 lies: with a coarse bucket there the
# interpolated p99 would jump from edge to edge.
_SECONDS = tuple(
    ms / 1000
    for ms in (
        *(5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 160, 180, 200),
        *(250, 300, 400, 500, 650, 800, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 7500, 10000),
    )
)


class InstanceMetrics:
    """The registry of one instance; `not_after` reads a certificate's end as epoch seconds."""

    def __init__(
        self,
        spec: ServiceSpec,
        volume: LogVolume,
        certificate: Path | None,
        not_after: Callable[[Path], float] | None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves this one bare
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Gauge("container_spec_memory_limit_bytes", "Memory limit of the instance.", registry=self._registry).set(
            MEMORY_LIMIT_BYTES
        )
        self._durations = Histogram(
            "http_server_request_duration_seconds",
            "Duration of served requests.",
            ["http_route", "http_response_status_code"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        for status in (200, spec.failure_status):
            # Present at zero from the start: a rate over a series that begins with its first error misses it.
            self._durations.labels(spec.route, str(status))
        self._route = spec.route
        if spec.calls:
            edge = (spec.name, spec.calls)
            names = ["client", "server"]
            self.edge_requests = Counter(
                "traces_service_graph_request_total", "Requests between two services.", names, registry=self._registry
            ).labels(*edge)
            self.edge_failures = Counter(
                "traces_service_graph_request_failed_total",
                "Failed requests between two services.",
                names,
                registry=self._registry,
            ).labels(*edge)
            self.edge_seconds = Histogram(
                "traces_service_graph_request_server_seconds",
                "Duration as the called service saw it.",
                names,
                buckets=_SECONDS,
                registry=self._registry,
            ).labels(*edge)
        self._registry.register(_VolumeCollector(volume))
        if certificate is not None and not_after is not None:
            self._registry.register(_CertificateCollector(certificate, not_after))

    def served(self, status: int, duration_s: float) -> None:
        """Count one request of the service's route."""
        self._durations.labels(self._route, str(status)).observe(duration_s)

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


class _VolumeCollector(Collector):
    def __init__(self, volume: LogVolume) -> None:
        self._volume = volume

    def collect(self) -> Iterator[Metric]:
        mountpoint = [str(self._volume.directory)]
        size = GaugeMetricFamily("node_filesystem_size_bytes", "Size of the volume.", labels=["mountpoint"])
        size.add_metric(mountpoint, self._volume.size_bytes)
        yield size
        free = GaugeMetricFamily("node_filesystem_avail_bytes", "Bytes left on the volume.", labels=["mountpoint"])
        free.add_metric(mountpoint, self._volume.size_bytes - self._volume.used_bytes())
        yield free


class _CertificateCollector(Collector):
    def __init__(self, path: Path, not_after: Callable[[Path], float]) -> None:
        self._path = path
        self._not_after = not_after

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "x509_cert_not_after", "When the certificate ends, epoch seconds.", labels=["filepath"]
        )
        try:
            family.add_metric([str(self._path)], self._not_after(self._path))
        except (OSError, ValueError):
            # Caught in the middle of a careless rotation: no sample is the truth, and the scrape goes on.
            return
        yield family
