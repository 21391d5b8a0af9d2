"""The service catalogue's file."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    services: dict[str, Service] = {}


def load_catalogue(path: Path | None) -> Catalogue:
    """Reads ``path``; an empty catalogue without one. Raises ConfigurationError with one line a mistake."""
    if path is None:
        return Catalogue({})
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        file = _File.model_validate(content)
    except OSError as error:
        raise ConfigurationError(f"SRE_CATALOGUE: {path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"SRE_CATALOGUE: {path} is no YAML: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        lines = [f"SRE_CATALOGUE: {path}: {'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        raise ConfigurationError("\n".join(lines)) from error
    return Catalogue({ServiceName(name): service for name, service in file.services.items()})
