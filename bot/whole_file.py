"""Files that are written all or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.domain.errors import PermanentError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Has ``write`` make a file beside ``path`` and puts it in its place: ``path`` is new as a whole, or as it was.

    Raises PermanentError when it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        raise PermanentError(f"{path} cannot be written ({error.strerror or error}): name another place") from None
    finally:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
