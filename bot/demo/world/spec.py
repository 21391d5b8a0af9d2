"""What the demo world consists of: its services, their capacity and the files of the data directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "demo"
NAMESPACE: Final = "demo"
MAX_REPLICAS: Final = 8
MIB: Final = 1024 * 1024
MEMORY_LIMIT_BYTES: Final = 160 * MIB  # of each instance
LOG_VOLUME_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service. A replica works on `slots` requests at once and lets `queue_limit` more wait.

    Its own work takes a log-normal time around `work_median_s`; a slot stays taken while the downstream
    answers, so one replica serves about slots / (own work + downstream) requests a second.
    """

    name: str
    route: str
    replicas: int
    slots: int
    queue_limit: int
    work_median_s: float
    work_sigma: float
    calls: str | None
    upstream_timeout_ms: int
    job_interval_s: float | None = None
    has_certificate: bool = False
    has_order_book: bool = False

    @property
    def failure_status(self) -> int:
        """The status its callers see when what it depends on fails: a relay's 502, else its own 500."""
        return 502 if self.calls else 500


# Checkout is the narrow place by intent: one slot held about 80 ms gives 12 requests/s a replica, so two are
# enough for the normal load and too few for the surge, which four carry at two thirds of their capacity.
SPECS: Final[dict[str, ServiceSpec]] = {
    spec.name: spec
    for spec in (
        ServiceSpec("web", "/shop/order", 1, 64, 64, 0.008, 0.10, "checkout", 8000, has_certificate=True),
        ServiceSpec("checkout", "/orders", 2, 1, 64, 0.055, 0.15, "payments", 4000, has_order_book=True),
        ServiceSpec("payments", "/charges", 2, 4, 64, 0.020, 0.25, None, 400),
        ServiceSpec("worker", "/jobs/settlement", 1, 2, 8, 0.030, 0.15, "payments", 4000, job_interval_s=1.0),
    )
}


@dataclass(frozen=True, slots=True)
class WorldPaths:
    """Where the world keeps its files, below `root` = <data dir>/world."""

    root: Path

    @property
    def targets(self) -> Path:
        """Scrape targets in Prometheus' file_sd format; callers find their downstream here too."""
        return self.root / "targets.json"

    @property
    def config_repo(self) -> Path:
        return self.root / "config-repo"

    @property
    def config_clone(self) -> Path:
        """The clone of the one developer of this world, who pushes to `config_repo`."""
        return self.root / "config-clone"

    @property
    def certificate(self) -> Path:
        return self.root / "certs" / "web.pem"

    @property
    def authority(self) -> Path:
        """Certificate and key of the authority that issues `certificate`; for its owner's eyes only."""
        return self.root / "certs" / "authority.pem"

    @property
    def order_book(self) -> Path:
        """While it is there, one replica of checkout at a time works with it."""
        return self.root / "order-book.lock"

    def config_file(self, service: str) -> Path:
        return self.config_repo / "services" / f"{service}.toml"

    def log_directory(self, instance: str) -> Path:
        return self.root / "logs" / instance

    def stderr_file(self, instance: str) -> Path:
        return self.root / "stderr" / f"{instance}.log"
