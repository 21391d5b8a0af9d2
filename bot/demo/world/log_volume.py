"""A log directory with a size limit, standing for a small volume of its own."""

import os
from datetime import UTC, datetime
from pathlib import Path

# What ordinary users of a file system may fill; the rest is kept back, as ext4 does with its reserved blocks.
USABLE_RATIO = 0.97


class LogVolume:
    """Writes <directory>/service.log and refuses to grow the directory beyond 97 % of `size_bytes`."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.size_bytes = size_bytes
        self.log_file = directory / "service.log"

    def used_bytes(self) -> int:
        """Sum of the sizes of the files in the directory, as they are now; folders below it do not count."""
        with os.scandir(self.directory) as entries:
            return sum(_size_bytes(entry) for entry in entries)

    def free_bytes(self) -> int:
        """What may still be written."""
        return max(0, int(self.size_bytes * USABLE_RATIO) - self.used_bytes())

    def append(self, text: str) -> bool:
        """Append to the log; False when the volume (or the real disk below it) is full and nothing was kept."""
        data = text.encode()
        if len(data) > self.free_bytes():
            return False
        try:
            # Opened for each write and in append mode: a truncation from outside is followed at once.
            with self.log_file.open("ab") as file:
                file.write(data)
        except OSError:
            return False
        return True

    def truncate(self) -> None:
        """Empty the log file; its name and inode stay."""
        if self.log_file.exists():
            os.truncate(self.log_file, 0)


def _size_bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except FileNotFoundError:
        return 0  # somebody else's file, moved away since the directory was read


def verbose_lines(size_bytes: int) -> str:
    """About `size_bytes` of debug lines as a chatty service writes them."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = f"{stamp} DEBUG settlement ledger row compared: account=0x{os.urandom(8).hex()} delta=0.00 retries=0\n"
    return line * max(1, size_bytes // len(line))
