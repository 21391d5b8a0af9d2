"""Instances whose metrics a test dictates, served over HTTP, and a real Prometheus that scrapes them."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

DEADLINE_S = 60.0
BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0)


@dataclass(frozen=True)
class Load:
    """Steady requests, whose counters follow the clock: right at whatever moment somebody looks.

    ``shares`` of the requests last no longer than each of ``BOUNDS``; the counters start anew every ``restart_s``.
    """

    per_s: float
    status: str = "200"
    shares: Sequence[float] = (0.5, 0.9, 0.97, 1.0, 1.0, 1.0)
    metric: str = "http_server_request_duration_seconds"
    status_label: str = "http_response_status_code"
    restart_s: float | None = None

    def count(self) -> int:
        # Days of it already: a first look must not be taken for a rate.
        age_s = 1e6 + time.monotonic() if self.restart_s is None else time.monotonic() % self.restart_s
        return int(self.per_s * age_s)


@dataclass(frozen=True, eq=False)
class Metrics(Collector):
    """What one instance exports: ``gauges`` by name and labels, ``calls`` per second by (client, server)."""

    loads: Sequence[Load] = ()
    gauges: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]] | None = None
    calls: Mapping[tuple[str, str], float] | None = None

    def collect(self) -> Iterator[Metric]:
        families: dict[tuple[str, str], HistogramMetricFamily] = {}
        for load in self.loads:
            kind = (load.metric, load.status_label)
            family = families.setdefault(
                kind, HistogramMetricFamily(load.metric, "Durations.", labels=["http_route", load.status_label])
            )
            count = load.count()
            buckets = [
                (str(bound), float(int(count * share))) for bound, share in zip(BOUNDS, load.shares, strict=True)
            ]
            family.add_metric(["/", load.status], [*buckets, ("+Inf", float(count))], sum_value=count * 0.1)
        yield from families.values()
        for name, series in (self.gauges or {}).items():
            gauge = GaugeMetricFamily(name, "A gauge.", labels=[label for label, _ in next(iter(series))])
            for labels, value in series.items():
                gauge.add_metric([text for _, text in labels], value)
            yield gauge
        counter = CounterMetricFamily("traces_service_graph_request", "Calls.", labels=["client", "server"])
        for edge, per_s in (self.calls or {}).items():
            counter.add_metric(list(edge), Load(per_s).count())
        yield counter

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


class Instance:
    """One endpoint; ``body`` is asked at every scrape."""

    def __init__(self, service: str, name: str, body: Callable[[], bytes], headers: Mapping[str, str] | None = None):
        self.service, self.name = service, name
        sent = {"Content-Type": "text/plain; version=0.0.4", **(headers or {})}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = body()
                self.send_response(200)
                for header, value in sent.items():
                    self.send_header(header, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                with suppress(BrokenPipeError, ConnectionResetError):  # the scraper gave up on us
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE_S)


class World:
    """Instances, listed in a file_sd file."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "targets.json"
        self._listed: list[Instance] = []
        self._started: list[Instance] = []
        self._write()

    def start(self, service: str, name: str, metrics: Metrics | Callable[[], bytes], **headers: str) -> Instance:
        body = metrics.text if isinstance(metrics, Metrics) else metrics
        instance = Instance(service, name, body, {key.replace("_", "-"): value for key, value in headers.items()})
        self._started.append(instance)
        self._listed.append(instance)
        self._write()
        return instance

    def unlist(self, instance: Instance) -> None:
        self._listed.remove(instance)
        self._write()

    def stop(self) -> None:
        for instance in self._started:
            instance.stop()

    def _write(self) -> None:
        groups = [
            {"targets": [one.address], "labels": {"service": one.service, "instance_name": one.name}}
            for one in self._listed
        ]
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        fresh.replace(self.file)
