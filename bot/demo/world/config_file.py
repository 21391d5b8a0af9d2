"""A service's version-controlled settings, re-read while it runs."""

import tomllib
from pathlib import Path


class ConfigError(Exception):
    """A settings file that cannot be used; the message names the file and the reason."""


def read_upstream_timeout_ms(path: Path) -> int:
    """The setting `upstream_timeout_ms`: how long the service waits for what it calls, 1 ms to 60 s.

    Raises: ConfigError.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    value = settings.get("upstream_timeout_ms")
    if type(value) is not int or not 1 <= value <= 60_000:
        raise ConfigError(f"{path}: upstream_timeout_ms must be a whole number from 1 to 60000")
    return value


class ConfigFile:
    """The settings in force: the last good version of the file.

    A reader may meet the file while git is replacing it, so a version that cannot be read changes nothing.
    """

    def __init__(self, path: Path) -> None:
        """Raises: ConfigError when there is no good version to begin with."""
        self._path = path
        self.upstream_timeout_s = read_upstream_timeout_ms(path) / 1000

    def refresh(self) -> bool:
        """Read the file again; False when it could not be used and the settings stay as they were."""
        try:
            self.upstream_timeout_s = read_upstream_timeout_ms(self._path) / 1000
        except ConfigError:
            return False
        return True
