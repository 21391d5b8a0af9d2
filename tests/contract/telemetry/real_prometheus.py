"""A real Prometheus with flags of one's choice, and expositions that a test writes as text or as protobuf."""

import re
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 60.0
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


@contextmanager
def real_prometheus(directory: Path, sd_file: Path, *flags: str, interval_s: float = 1.0) -> Iterator[str]:
    """The URL of a Prometheus that scrapes the file's targets; what they say of others keeps its labels."""
    program = shutil.which("prometheus")
    assert program, "prometheus is needed: apt-get install prometheus"
    config = directory / "prometheus.yml"
    interval = f"{interval_s * 1000:.0f}ms"
    config.write_text(
        f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n"
        "scrape_configs:\n"
        "  - job_name: world\n"
        "    honor_labels: true\n"
        f"    file_sd_configs: [{{files: ['{sd_file}'], refresh_interval: 1s}}]\n"
    )
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        arguments = (f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}", *flags)
        fixed = ("--web.listen-address=127.0.0.1:0", "--scrape.discovery-reload-interval=1s")
        server = subprocess.Popen([program, *arguments, *fixed], stderr=output)
    try:
        deadline_s = time.monotonic() + DEADLINE_S
        # It listens before its store is open, and answers 503 until it says that it is ready.
        while "Server is ready" not in (said := log.read_text()):
            assert server.poll() is None, said
            assert time.monotonic() < deadline_s, said
            time.sleep(0.05)
        found = re.search(r'msg="Listening on" address=(\S+)', said)
        assert found, said
        yield f"http://{found[1]}"
    finally:
        server.kill()
        server.wait()


def line(name: str, value: float, /, **labels: str) -> str:
    """One line of the text format."""
    pairs = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {value:.17g}\n"


def histogram(name: str, count: float, shares: Mapping[float, float], /, **labels: str) -> str:
    """A classic histogram: of ``count`` requests these shares were no longer than each bound."""
    buckets = [*((f"{bound:g}", int(count * share)) for bound, share in shares.items()), ("+Inf", int(count))]
    return "".join(line(f"{name}_bucket", held, le=bound, **labels) for bound, held in buckets) + line(
        f"{name}_count", int(count), **labels
    )


def native_histogram(name: str, series: Mapping[tuple[tuple[str, str], ...], Mapping[int, int]]) -> bytes:
    """A MetricFamily of native histograms of schema 0, whose bucket ``n`` holds durations from 2^(n-1) s to 2^n s.

    Field numbers: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
    """
    family = _text(1, name) + _text(2, "Durations.") + _number(3, 4)
    for labels, buckets in series.items():
        whole = _number(1, sum(buckets.values())) + _double(2, 1.0) + _number(5, 0) + _double(6, 1e-9) + _number(7, 0)
        before_place, before_count = 0, 0
        for place, count in sorted(buckets.items()):
            whole += _bytes(12, _number(1, _signed(place - before_place)) + _number(2, 1))
            whole += _number(13, _signed(count - before_count))
            before_place, before_count = place + 1, count
        pairs = b"".join(_bytes(1, _text(1, label) + _text(2, text)) for label, text in labels)
        family += _bytes(4, pairs + _bytes(7, whole))
    return _varint(len(family)) + family


def _varint(value: int) -> bytes:
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(head) + bytes([value])


def _signed(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
