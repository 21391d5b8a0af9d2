"""The adapter of certificate files in a process that is killed: FOLDER AUTHORITY MOMENT EXECUTION GENERATION.

MOMENT "renaming": first it has no room to write and prints what it says to that and what is in the folder; then it is
killed right before it renames. "renamed": right after it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from executors.targets.certificate_file import CertificateFileTarget
from pipeline.domain.action import RenewCertificate
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import SreBotError
from pipeline.domain.execution import Intent
from pipeline.domain.ids import ExecutionId

_ROOM_BYTES = 64


async def _renew(folder: Path, authority: Path, moment: str, intent: Intent) -> None:
    live, renamed = str(folder.resolve() / "web.pem"), False

    def audit(event: str, args: tuple[Any, ...]) -> None:
        nonlocal renamed
        renames = event == "os.rename" and str(args[1]) == live
        if (renames and moment == "renaming") or (renamed and event == "open"):
            os.kill(os.getpid(), signal.SIGKILL)
        renamed = renamed or renames

    sys.addaudithook(audit)
    target = CertificateFileTarget({"web-certs": folder}, authority=authority, timeout_s=60.0)
    ref = await target.resolve(WorkloadAddress(platform="certificate_file", namespace="web-certs", name="web"))
    if moment == "renaming":
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM_BYTES, hard))
        try:
            await target.apply(ref, RenewCertificate(), intent)
        except SreBotError as error:
            names = sorted(one.name for one in folder.iterdir())
            print(f"{type(error).__name__}: {error}; left: {names}", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await target.apply(ref, RenewCertificate(), intent)


if __name__ == "__main__":
    _folder, _authority, _moment, _execution, _generation = sys.argv[1:]
    _intent = Intent(ExecutionId(int(_execution)), step=1, fence=1, generation=_generation)
    asyncio.run(_renew(Path(_folder), Path(_authority), _moment, _intent))
