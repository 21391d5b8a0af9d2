"""A small disk of its own for a PostgreSQL, that can be filled to the last byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.databases import open_directory

STUFFING = "stuffing"
PIECE_BYTES = 1_000_000


def may_mount() -> bool:
    """Whether a small disk can be had here."""
    return os.geteuid() == 0


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """A tmpfs of that size. Raises CalledProcessError where nothing may be mounted: root can."""
    with open_directory("sre-bot-disk-") as directory:
        place = directory / "disk"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "tmpfs", str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path) -> None:
    """Takes what room there is."""
    with (place / STUFFING).open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * PIECE_BYTES)
    # What a megabyte at a time could not take, a page at a time does.
    with (place / STUFFING).open("ab", buffering=0) as file, suppress(OSError):
        while True:
            if file.write(b"\0" * 4096) < 4096:
                return


def empty(place: Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(place / STUFFING)
