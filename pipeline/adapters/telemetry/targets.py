"""Which endpoints to scrape: Prometheus' file_sd file, followed as it changes, and a fixed list.

Format: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.domain.errors import TemporaryError
from pipeline.domain.ids import ServiceName


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """One endpoint in Prometheus' text format, and whose figures it gives."""

    url: str
    service: ServiceName
    instance: str


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[str, ...]
    labels: dict[str, str] = Field(default_factory=dict)


_GROUPS = TypeAdapter(tuple[_Group, ...])


class TargetList:
    """The fixed targets and those of the file, each once. ``targets`` is what is known now."""

    def __init__(self, sd_file: Path | None, fixed: Sequence[ScrapeTarget]) -> None:
        self._sd_file = sd_file
        self._fixed = tuple(fixed)
        self._discovered: tuple[ScrapeTarget, ...] = ()
        self._read_version: tuple[int, int, int] | None = None

    @property
    def targets(self) -> tuple[ScrapeTarget, ...]:
        return tuple(dict.fromkeys((*self._fixed, *self._discovered)))

    def refresh(self) -> None:
        """Reads the file if it changed; TemporaryError, one line, when it is of no use: what was known then stays."""
        if self._sd_file is None:
            return
        try:
            stat = self._sd_file.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if version != self._read_version:
                self._discovered = parse_file_sd(self._sd_file.read_text(), as_json=self._sd_file.suffix == ".json")
                self._read_version = version
        except OSError as error:
            raise TemporaryError(f"{self._sd_file}: {error.strerror}") from error
        except ValueError as error:
            raise TemporaryError(f"{self._sd_file}: {error}") from error


def parse_file_sd(text: str, *, as_json: bool) -> tuple[ScrapeTarget, ...]:
    """The targets of a file_sd file; ValueError, one line, when it is malformed or a target names no service."""
    try:
        groups = _GROUPS.validate_python(json.loads(text) if as_json else yaml.safe_load(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"not in file_sd format: {first['msg']} at {where or 'the top'}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"neither JSON nor YAML can be read from it: {' '.join(str(error).split())[:120]}") from error
    return tuple(_target(address, group.labels) for group in groups for address in group.targets)


def _target(address: str, labels: dict[str, str]) -> ScrapeTarget:
    service = labels.get("service") or labels.get("job")
    if not service:
        raise ValueError(f"target {address} has neither a service nor a job label")
    return ScrapeTarget(
        url=f"{labels.get('__scheme__', 'http')}://{address}{labels.get('__metrics_path__', '/metrics')}",
        service=ServiceName(service),
        instance=labels.get("instance_name") or address,
    )
