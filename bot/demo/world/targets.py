"""The one list of running instances: written by the supervisor, read by Prometheus and by calling services."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bot.demo.world.durable import replace_file
from bot.demo.world.spec import ENVIRONMENT, NAMESPACE


@dataclass(frozen=True, slots=True)
class Target:
    """One instance that takes requests, at 127.0.0.1:`port`."""

    service: str
    instance_name: str
    port: int


def write_targets(path: Path, targets: Iterable[Target]) -> None:
    """Rewrite the file_sd file atomically, one group per instance.

    Format: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
    """
    groups = [
        {
            "targets": [f"127.0.0.1:{target.port}"],
            "labels": {
                "service": target.service,
                "instance_name": target.instance_name,
                "environment": ENVIRONMENT,
                "namespace": NAMESPACE,
            },
        }
        for target in targets
    ]
    replace_file(path, json.dumps(groups, indent=1).encode())


class TargetsView:
    """The addresses of one service, read again whenever the file changed, taken in turn."""

    def __init__(self, path: Path, service: str) -> None:
        self._path = path
        self._service = service
        self._seen: tuple[int, int] | None = None
        self._addresses: tuple[str, ...] = ()
        self._turn = 0

    def refresh(self) -> None:
        """Read the file if it was replaced; a missing file (the world is just starting) is an empty list."""
        try:
            stat = self._path.stat()
            if (seen := (stat.st_ino, stat.st_mtime_ns)) == self._seen:
                return
            groups = json.loads(self._path.read_text())
        except FileNotFoundError:
            self._seen, self._addresses = None, ()
            return
        self._seen = seen
        self._addresses = tuple(
            address for group in groups if group["labels"]["service"] == self._service for address in group["targets"]
        )

    def in_turn(self) -> tuple[str, ...]:
        """All addresses "host:port", beginning with the one whose turn it is (round robin)."""
        if not self._addresses:
            self.refresh()  # at the start of the world nobody may wait for the next regular look
        if not self._addresses:
            return ()
        start = self._turn % len(self._addresses)
        self._turn += 1
        return self._addresses[start:] + self._addresses[:start]
