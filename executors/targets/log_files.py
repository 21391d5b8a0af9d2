"""Log files on this machine: a copy is kept beside, compressed, then the file is emptied in place."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from executors.targets.late import wait_out
from executors.targets.log_truncation import (
    HEAD_BYTES,
    Entry,
    FileNow,
    Permit,
    freed_in_words,
    is_of,
    kept_in_words,
    refuse_by_record,
    verdict,
)
from executors.targets.log_truncation_copy import (
    Copy,
    copy_in,
    copy_name,
    disk_bytes,
    free_bytes,
    head_checksum,
)
from executors.targets.log_truncation_folder import (
    LogFolder,
    Record,
    careless_writers,
    identity,
    refusal,
)
from executors.targets.offers import not_offered
from executors.targets.own_threads import OwnThreads
from pipeline.domain.action import Action, LogFile, LogPath, ManualAction, Operation, TruncateAction, TruncateLog
from pipeline.domain.action_words import in_mib
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target

_T = TypeVar("_T")

_LIST = "list the folder and those of its services"
_WRITE = "read and write the log files"
_CREATE = "create files beside the logs, and in .sre-bot"
_ROUNDS = 5
"""How often what was written meanwhile is copied too, before the file is emptied."""
_LOOK_AROUND_S = 0.5
_PATH: TypeAdapter[str] = TypeAdapter(LogPath)


class LogFilesTarget(Target):
    """The logs of services in allow-listed folders, by the names that addresses call the folders by.

    A copy lies beside its log; where there is little room for it and more in ``copies``, a folder on another disk, it
    is kept there. With ``copies`` the record is kept there too, so that a disk that is full to the last byte can be
    emptied. ``timeout_s`` bounds everything up to the point of no return, half of it the copying.

    What is wanted of a log is only that it be there: ``generation`` is the identity of the folder, and stays while
    lines are written, files are rotated and replicas come and go. A plan names each file by its inode; that is compared
    on the open file, right before it is emptied, and again that it is no smaller than it was.
    """

    def __init__(self, folders: Mapping[str, Path], *, timeout_s: float = 10.0, copies: Path | None = None) -> None:
        self._folders = {name: LogFolder(name, _usable(name, folder), copies) for name, folder in folders.items()}
        self._copies = None if copies is None else _made(copies)
        self._timeout_s = timeout_s
        self._threads = OwnThreads("log_files")

    @property
    def platform(self) -> str:
        return "log_files"

    def declares(self) -> Declaration:
        return Declaration(
            offers=(Offer("truncate", False, (_WRITE, _CREATE), "the file's inode, its size as planned, the fence"),),
            observes=("log files, their inodes and sizes", "the record of what was emptied"),
            reads=(_LIST,),
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        return await self._aside(lambda: self._check(ref))

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        return await self._aside(lambda: self._resolve(address))

    async def observe(self, ref: TargetRef) -> TargetState:
        return await self._aside(lambda: self._observe(ref))

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        file = _file(operation)
        permit = Permit(self._timeout_s)
        try:
            truncate = partial(self._truncate, ref, file, intent, permit)
            return await self._threads.run(truncate, within_s=1.5 * self._timeout_s)
        except TimeoutError as error:
            if permit.withdraw():
                raise TemporaryError(f"copying {file.path} took too long: nothing was emptied") from error
            raise OutcomeUnknown(f"emptying {file.path} had begun and was not done in time") from error
        except OSError as error:
            if permit.withdraw():
                raise refusal(f"{file.path} cannot be emptied", error) from error
            raise OutcomeUnknown(f"emptying {file.path} had begun: {error}") from error
        finally:
            permit.withdraw()

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        file = _file(operation)
        await self.observe(ref)
        copy = f"{os.path.dirname(file.path)}/{copy_name(file, '<time>')}"
        copy += f" (or {self._copies})" if self._copies else ""
        only = f"only while it is {file.uid}, at least {file.size_bytes} bytes, below the folder {generation}"
        return (
            f"gzip {file.path}, or its newest part, into {copy}, fsync, read it back",
            f"ftruncate {file.path} 0 {only}",
        )

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        file = _file(operation)
        return await self._aside(lambda: self._rehearse(ref, file, generation))

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        file = _file(operation)
        return await self._aside(lambda: self._settled(ref, file))

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the folder's record and the file; takes up to ``timeout_s``.

        A line is forced into the record before the file is emptied, and another one after it. With the first alone the
        file tells: it is smaller than before, or begins otherwise. Whoever empties holds the record's lock, so that
        nobody is at work while it is read; without a line of ours it is NOT_APPLIED once no sender can take effect any
        more. UNKNOWN when the folder is another one, and the record with it, or when between the two lines the file
        was replaced by another.
        """
        file = _file(operation)
        return await wait_out(lambda: self._aside(lambda: self._look(ref, file, intent)), flight_s=self._timeout_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        """A shell line with gzip and truncate, which keeps all of each file."""
        match action:
            case TruncateAction(files=files):
                stamp = "$(date -u +%Y%m%dT%H%M%SZ)"
                lines = []
                for path in (shlex.quote(file.path) for file in files):
                    copy = f'{path}."{stamp}".gz'
                    lines.append(f'c={copy} && gzip -c {path} > "$c" && gzip -t "$c" && truncate -s 0 {path}')
                return " && ".join(lines)
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("log_files", action)

    async def close(self) -> None:
        self._threads.close()

    async def _aside(self, call: Callable[[], _T]) -> _T:
        """In a thread. Raises TemporaryError when the file system does not answer in time, or as ``refusal`` says."""
        try:
            return await self._threads.run(call, within_s=self._timeout_s)
        except TimeoutError as error:
            raise TemporaryError(f"the log folders did not answer within {self._timeout_s:g} s") from error
        except OSError as error:
            raise refusal("the log folders cannot be read", error) from error

    def _folder(self, name: str) -> LogFolder:
        if (folder := self._folders.get(name)) is None:
            allowed = ", ".join(sorted(self._folders)) or "none"
            raise PermanentError(
                f"{name} is no folder whose logs the bot may empty (allowed: {allowed}; SRE_TRUNCATE_FOLDERS sets them)"
            )
        return folder

    def _resolve(self, address: WorkloadAddress) -> TargetRef:
        folder = self._folder(address.namespace)
        with ExitStack() as held:
            root = folder.opened(held)
            if not folder.services(root, address.name):
                raise PermanentError(f"there is no folder {address.name} or {address.name}-N in {folder.root}")
            uid = _uid(root, address.name)
        return TargetRef(platform="log_files", namespace=address.namespace, name=address.name, uid=uid)

    def _opened(self, ref: TargetRef, held: ExitStack) -> tuple[LogFolder, int]:
        """Raises PreconditionFailed when it is not the folder that ``ref`` means."""
        folder = self._folder(ref.namespace)
        root = folder.opened(held)
        if _uid(root, ref.name) != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone: {folder.root} is another folder")
        return folder, root

    def _observe(self, ref: TargetRef) -> TargetState:
        with ExitStack() as held:
            folder, root = self._opened(ref, held)
            return TargetState(ref, _generation(root), files=folder.files(root, ref.name))

    def _check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        files = self._observe(ref).files
        root = self._folder(ref.namespace).root
        folders = {os.path.dirname(file.path) for file in files} | {str(one) for one in (self._copies,) if one}
        own = self._folder(ref.namespace).own
        folders.add(str(own if own.exists() else own.parent))
        read_write, enter = os.R_OK | os.W_OK, os.R_OK | os.W_OK | os.X_OK
        closed = [file.path for file in files if not os.access(file.path, read_write, effective_ids=True)]
        shut = sorted(one for one in folders if not os.access(one, enter, effective_ids=True))
        return (
            RightCheck(_LIST, True, f"{len(files)} log files found below {root}"),
            RightCheck(_WRITE, not closed, f"not {', '.join(closed[:3])}" if closed else "access(2) says so"),
            RightCheck(_CREATE, not shut, f"not in {', '.join(shut[:3])}" if shut else "access(2) says so"),
        )

    def _rehearse(self, ref: TargetRef, file: LogFile, generation: str) -> str:
        with ExitStack() as held:
            folder, root = self._opened(ref, held)
            _compared(folder, root, generation)
            place, _ = _opened_log(folder, root, ref, file, held)
            free = free_bytes(self._place_for(file, place))
        return f"{file.path} can be opened for writing; {in_mib(free)} are free for the copy"

    def _place_for(self, file: LogFile, beside: int) -> Path | int:
        """Where the copy goes. What compresses badly needs more than a quarter of the log; half of the room is used."""
        free = free_bytes(beside)
        if self._copies is None or free >= file.size_bytes / 2 or free_bytes(self._copies) <= free:
            return beside
        return self._copies

    def _settled(self, ref: TargetRef, file: LogFile) -> bool:
        with ExitStack() as held:
            folder, _ = self._opened(ref, held)
            folder.place(ref.name, file.path)
            try:
                now = os.lstat(file.path)
            except FileNotFoundError:
                return True
            if identity(now) != file.uid or now.st_size < file.size_bytes:
                return True
            # As large as it was: perhaps it was emptied and has filled up again at once.
            entries = folder.entries()
        planned = (file.path, file.uid, file.size_bytes)
        return any(one.phase == "done" and (one.path, one.uid, one.planned_bytes) == planned for one in entries)

    def _look(self, ref: TargetRef, file: LogFile, intent: Intent) -> Finding | None:
        with ExitStack() as held:
            try:
                folder, root = self._opened(ref, held)
            except PreconditionFailed:
                return Finding.UNKNOWN
            ours = [one for one in folder.entries() if is_of(one, file, intent)]
            now = None
            if ours:
                with suppress(PermanentError):
                    _, log = _opened_log(folder, root, ref, file, held, full=False)
                    now = FileNow(os.fstat(log).st_size, head_checksum(log, ours[-1].head_bytes))
            return verdict(ours, now)

    def _truncate(self, ref: TargetRef, file: LogFile, intent: Intent, permit: Permit) -> str:
        with ExitStack() as held:
            folder, root = self._opened(ref, held)
            _compared(folder, root, intent.generation)
            place, log = _opened_log(folder, root, ref, file, held)
            record = folder.record(held)
            refuse_by_record(record.entries(), file, intent)
            with copy_in(self._place_for(file, place), file) as copy:
                copy.make(log, until=time.monotonic() + self._timeout_s / 2)
                _opened_log(folder, root, ref, file, held)  # still the one of that name, and not emptied by another
                return _emptied(log, copy, record, file, intent, permit)


def _emptied(log: int, copy: Copy, record: Record, file: LogFile, intent: Intent, permit: Permit) -> str:
    """Past the copy: record, the last lines, and then the one call that takes effect. Returns what was done."""
    found = os.fstat(log)
    careless = careless_writers(found, until=time.monotonic() + _LOOK_AROUND_S)
    copy.go_on(log)
    copy.finish()
    head_bytes = min(HEAD_BYTES, found.st_size)
    entry = Entry(
        phase="began",
        execution=int(intent.execution_id),
        step=intent.step,
        fence=intent.fence,
        path=file.path,
        uid=file.uid,
        planned_bytes=file.size_bytes,
        size_bytes=found.st_size,
        head=head_checksum(log, head_bytes),
        head_bytes=head_bytes,
        copy_name=str(copy.where),
    )
    if not permit.begin():
        raise TemporaryError(f"copying {file.path} took too long: nothing was emptied")
    try:
        record.append(entry)
        reaches = copy.go_on(log)
        before, size = disk_bytes(log), os.fstat(log).st_size
        copy.needed = True
        os.ftruncate(log, 0)
    except OSError as error:
        copy.needed = False
        raise refusal(f"{file.path} cannot be emptied", error) from error
    took = copy.disk_bytes()
    done = entry.model_copy(update={"phase": "done", "freed_bytes": before - disk_bytes(log)})
    said = [
        f"emptied {file.path}: {freed_in_words(done.freed_bytes, took if copy.is_on_disk_of(found) else 0)}",
        kept_in_words(
            kept_bytes=reaches - copy.tail.start,
            size_bytes=reaches,
            copy=str(copy.where),
            copy_bytes=took,
            why_not_all=copy.tail.why_not_all,
        ),
    ]
    if size > reaches:
        said.append(f"{size - reaches} bytes written in the last moment are not in the copy")
    if careless:
        who = ", ".join(map(str, careless))
        said.append(f"process {who} does not append: the file will look as large as before, and take up what is new")
    try:
        record.append(done)
    except OSError as error:
        said.append(f"the record could not be completed: {error}")
    return "; ".join(said)


def _opened_log(
    folder: LogFolder, root: int, ref: TargetRef, file: LogFile, held: ExitStack, *, full: bool = True
) -> tuple[int, int]:
    """Descriptors of the log's folder and of the very file that was planned, with all that it held (``full``).

    Raises PreconditionFailed, or PermanentError for a path that is not the service's, or that the bot may not open.
    """
    place = folder.place(ref.name, file.path)
    try:
        within, log = folder.log(root, place, held)
    except OSError as error:
        raise refusal(f"{file.path} cannot be opened for writing", error) from error
    found = os.fstat(log)
    if not stat.S_ISREG(found.st_mode) or identity(found) != file.uid:
        raise PreconditionFailed(f"{file.path} is another file than the one planned ({file.uid}): it was rotated")
    if found.st_nlink != 1:
        raise PreconditionFailed(f"{file.path} has a second name elsewhere: it is left alone")
    if full and found.st_size < max(1, file.size_bytes):
        raise PreconditionFailed(f"{file.path} is smaller than planned: somebody else has emptied it")
    return within, log


def _compared(folder: LogFolder, root: int, generation: str) -> None:
    if _generation(root) != generation:
        raise PreconditionFailed(f"{folder.root} has changed: it is the folder {_generation(root)}, not {generation}")


def _generation(root: int) -> str:
    return identity(os.fstat(root))


def _uid(root: int, name: str) -> str:
    return f"{identity(os.fstat(root))}/{name}"


def _file(operation: Operation) -> LogFile:
    match operation:
        case TruncateLog(file=file):
            return file
        case _:
            raise not_offered("log_files", operation)


def _made(copies: Path) -> Path:
    try:
        copies.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"SRE_TRUNCATE_COPIES: {copies} cannot be made: {error}") from error
    return copies.resolve()


def _usable(name: str, folder: Path) -> Path:
    try:
        return Path(_PATH.validate_python(str(folder.resolve())))
    except ValidationError as error:
        raise ConfigurationError(
            f"SRE_TRUNCATE_FOLDERS: {name}={folder} has to be an absolute path of letters, digits and ._@%+=:,-"
        ) from error
