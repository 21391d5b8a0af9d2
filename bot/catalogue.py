"""The service catalogue's file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from pipeline.domain.approval import ApprovalRules
from pipeline.domain.catalogue import Catalogue, Freeze, Service, Traits, Watch
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.ports.catalogue import CatalogueSource

MAX_BYTES = 4_000_000
"""Of the file: about 20,000 services with everything there is to say of them."""


def _each_once(watch: tuple[Watch, ...]) -> tuple[Watch, ...]:
    twice = [namespace for namespace, times in Counter(one.namespace for one in watch).items() if times > 1]
    if twice:
        raise ValueError(f"the namespace {twice[0]} is watched twice")
    return watch


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    defaults: Traits = Traits()
    watch: Annotated[tuple[Watch, ...], AfterValidator(_each_once)] = ()
    services: dict[str, Service] = {}
    freezes: tuple[Freeze, ...] = ()
    approvals: ApprovalRules = ()


class _KeysOnce(yaml.SafeLoader):
    """YAML in which no key stands twice: of two entries for one service the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def load_catalogue(path: Path | None) -> Catalogue:
    """Reads ``path``; an empty catalogue without one. Raises ConfigurationError with one line a mistake."""
    if path is None:
        return Catalogue({})
    try:
        content = yaml.load(_text(path), Loader=_KeysOnce) or {}  # noqa: S506 # nosec B506 a SafeLoader
        file = _File.model_validate(content)
    except OSError as error:
        raise ConfigurationError(f"SRE_CATALOGUE: {path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"SRE_CATALOGUE: {path} is no YAML: {_where(error)}") from error
    except ValidationError as error:
        lines = [f"SRE_CATALOGUE: {path}: {'.'.join(map(str, e['loc']))}: {_plain(e['msg'])}" for e in error.errors()]
        raise ConfigurationError("\n".join(lines)) from error
    services = {ServiceName(name): service for name, service in file.services.items()}
    return Catalogue(services, watch=file.watch, defaults=file.defaults, freezes=file.freezes, approvals=file.approvals)


class CatalogueFile(CatalogueSource):
    """The catalogue, read again whenever its file has changed.

    Raises ConfigurationError when the file is wrong at the start; later on what was read last goes on to count, and
    ``problem`` says in one line what is wrong now (empty: nothing).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version = _version(path)
        self._catalogue = load_catalogue(path)
        self._problem = ""

    @property
    def problem(self) -> str:
        return self._problem

    def current(self) -> Catalogue:
        """Always the same object, with the newest content that was right."""
        version = _version(self._path)
        if version != self._version:
            try:
                self._catalogue.replace(load_catalogue(self._path))
                self._problem = ""
            except ConfigurationError as error:
                first, *more = str(error).splitlines()
                besides = f" (and {len(more)} more)" if more else ""
                self._problem = f"{first}{besides}; what was read before still counts"
            self._version = version
        return self._catalogue


def _text(path: Path) -> str:
    with path.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"SRE_CATALOGUE: {path} is larger than {MAX_BYTES // 1_000_000} MB")
    return content.decode()


def _where(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return str(error).splitlines()[0]


def _plain(message: str) -> str:
    own = message.removeprefix("Value error, ")
    return own[:1].lower() + own[1:]


def _version(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when the file does; None when there is none."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat else None
