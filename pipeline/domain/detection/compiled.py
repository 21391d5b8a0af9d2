"""The one door to numba: `compiled` turns a numeric function into machine code where numba is installed.

numba is an optional extra. Without it the same functions run as plain Python, with the same numbers, slower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

try:
    import numba
except ImportError:  # the extra is not installed: everything runs as plain Python
    numba = None

COMPILED: bool = numba is not None
"""True when `compiled` makes machine code."""

Function = TypeVar("Function", bound=Callable[..., Any])


def _cache_folder() -> str:
    """A folder of its own for each state of the sources: numba's own check misses a change in an imported file."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(here.glob("*.py")):
        digest.update(source.read_bytes())
    return str(here / "__pycache__" / f"compiled-{digest.hexdigest()[:16]}")


_CACHE_FOLDER = _cache_folder()


def compiled(function: Function) -> Function:
    """``function`` as machine code (no GIL, IEEE arithmetic with NaN); the function itself where numba is missing.

    A compiled function keeps its original as ``py_func`` and may call other compiled functions. The machine code is
    kept on disk between runs where the package's folder can be written.
    """
    if numba is None:
        return function
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _CACHE_FOLDER
    try:
        made: Function = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to keep it in
        made = numba.njit(nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = previous
    return made
