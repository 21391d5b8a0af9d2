"""Adapters that call a file system: what hangs in there holds up nobody but themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from executors.targets.certificate_file import CertificateFileTarget
from executors.targets.log_files import LogFilesTarget
from pipeline.domain.action import operations
from pipeline.domain.errors import TemporaryError
from pipeline.ports.targets import Target
from tests.contract.targets.places import intent_for
from tests.contract.targets.stand import Opens
from tests.contract.targets.stand_certificate_file import FOLDER, FileStand, certificate_file_stand
from tests.contract.targets.stand_log_files import LogFilesStand, log_files_stand


def _log_files(stand: LogFilesStand, timeout_s: float) -> Target:
    return LogFilesTarget({"logs": stand.root}, timeout_s=timeout_s)


def _certificate_file(stand: FileStand, timeout_s: float) -> Target:
    return CertificateFileTarget({FOLDER: stand.folder}, authority=stand.authority, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("opens", "connect", "reads"),
    [
        (log_files_stand, _log_files, "executors.targets.log_files.LogFilesTarget._observe"),
        (certificate_file_stand, _certificate_file, "executors.targets.certificate_file.CertificateFileTarget._state"),
    ],
    ids=["log_files", "certificate_file"],
)
async def test_what_waits_for_a_thread_was_not_begun(
    opens: Opens, connect: Callable[[object, float], Target], reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opens() as stand:
        ref = await stand.target.resolve(stand.address)
        state = await stand.target.observe(ref)
        (operation,) = operations(await stand.action(state))
        before = await stand.facts()
        brief, patient = connect(stand, 0.2), connect(stand, 60.0)
        answers = threading.Event()
        monkeypatch.setattr(reads, lambda *_: answers.wait())
        hung = [asyncio.create_task(one.observe(ref)) for one in (brief, patient) for _ in range(8)]
        try:
            waiting = asyncio.create_task(patient.apply(ref, operation, intent_for(state)))
            await asyncio.sleep(0)  # each of them asks for a thread, in this order
            with pytest.raises(TemporaryError, match="was not begun"):
                await brief.apply(ref, operation, intent_for(state))
            await asyncio.wait_for(asyncio.to_thread(int), 30)  # the threads that all others share
            await patient.close()
            with pytest.raises(TemporaryError, match="was not begun"):
                await waiting
            with pytest.raises(TemporaryError, match="was not begun"):
                await patient.observe(ref)
        finally:
            answers.set()
            await asyncio.gather(*hung, return_exceptions=True)
            await brief.close()
        assert await stand.facts() == before
