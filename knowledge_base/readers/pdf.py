"""PDF into Markdown, in a process of its own: a file made to hang or to fill the memory ends there."""

from __future__ import annotations

import asyncio
import os
import sys

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.domain.errors import PermanentError

DEADLINE_S = 60.0
"""A page takes pypdf about 20 ms; 500 pages on a busy machine stay below this."""
WORKER = "knowledge_base.readers.pdf_worker"
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")


class PdfText(BaseModel):
    """What the worker answers. ``error``: why there is nothing else; ``unread``: pages that were passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str = ""
    entries: dict[str, str] = {}
    body: str = ""
    unread: int = 0
    error: str = ""


async def read_pdf(content: bytes, *, deadline_s: float = DEADLINE_S) -> PdfText:
    """Reads a PDF within ``deadline_s``. Raises PermanentError with the reason, without the file's name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a folder of the same name where the command is run is not ours
        "-m",
        WORKER,
        str(int(deadline_s) + 1),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
    )
    try:
        async with asyncio.timeout(deadline_s):
            answer, _ = await process.communicate(content)
    except TimeoutError:
        raise PermanentError(f"not read within {deadline_s:g} s: split it, or take out its drawings") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found = PdfText.model_validate_json(answer)
    except ValidationError:
        raise PermanentError("damaged, or no PDF that can be read") from None
    if found.error:
        raise PermanentError(found.error)
    return found
