"""Certificates in PEM files on this machine, for the demo and small hosts."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from executors.targets.certificate_file_issue import (
    Authority,
    Bundle,
    issue,
    matches,
    obstacle,
    read_authority,
    read_key,
)
from executors.targets.certificate_file_store import (
    CertificateFile,
    Entry,
    MissingFile,
    Permit,
    Standing,
    day,
    open_to_all,
    read_secret,
)
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from executors.targets.own_threads import OwnThreads
from pipeline.domain.action import (
    Action,
    ActionKind,
    ManualAction,
    Operation,
    RenewAction,
    RenewCertificate,
    RollBackAction,
    RollBackTo,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import Revision, TargetRef, TargetState
from pipeline.ports.targets import Target

_T = TypeVar("_T")
_PLATFORM = "certificate_file"
_FOLDER = "write to and search the folder"
_AUTHORITY = "read the authority's file"
_FILE = "read the certificate file"
_OWNER = "keep the certificate file's owner"
_DAYS_BY_HAND = 90
_REST_OF_FILE = "/-BEGIN CERTIFICATE-/{c++} /-BEGIN /{p = !(/CERTIFICATE/ && c==1)} p"
"""awk: all blocks of a PEM file but the first certificate."""


class CertificateFileTarget(Target):
    """``namespace`` is one of ``folders``, ``name`` a file ``<name>.pem`` in it; no other file is read or written.

    ``authority``: one PEM file with the certificate and the key of the authority that issues here; None: only
    certificates that sign themselves are renewed. ``timeout_s`` bounds a call: a file system may hang.

    ``generation`` and ``rollout`` are the SHA-256 fingerprint of the certificate, in hex. The ``uid`` is made of where
    the file lies and what it is for (subject and names), so that a certificate for something else is another target.
    """

    def __init__(self, folders: Mapping[str, Path], *, authority: Path | None, timeout_s: float = 10.0) -> None:
        self._folders = dict(folders)
        self._authority = authority
        self._timeout_s = timeout_s
        self._threads = OwnThreads(_PLATFORM)
        self._key_inside: dict[str, bool] = {}  # by uid, learnt when read: a TargetRef does not say

    @property
    def platform(self) -> str:
        return _PLATFORM

    def declares(self) -> Declaration:
        guarded = "its fingerprint, compared under a lock on the folder right before it is replaced"
        needs = (_FOLDER, _OWNER, *((_AUTHORITY,) if self._authority else ()))
        return Declaration(
            offers=(Offer("renew", True, needs, guarded), Offer("roll_back", True, (_FOLDER, _OWNER), guarded)),
            observes=("until when the certificate is valid", "its fingerprint", "the certificate before it"),
            reads=(_FILE,),
            privileges="certificate-file-privileges.md",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        return await self._read(lambda: self._checks(ref))

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        def look() -> TargetRef:
            file = self._file(address.namespace, address.name)
            try:
                uid = _uid(file, file.read().bundle)
            except MissingFile as error:
                raise PermanentError(str(error)) from error
            return TargetRef(platform="certificate_file", namespace=address.namespace, name=address.name, uid=uid)

        return await self._read(look)

    async def observe(self, ref: TargetRef) -> TargetState:
        return await self._read(lambda: self._state(ref))

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        permit = Permit()
        try:
            change = partial(self._change, ref, operation, intent, permit)
            return await self._threads.run(change, within_s=self._timeout_s)
        except TimeoutError as error:
            said = f"{ref.describe()}: the file system did not answer within {self._timeout_s:g} s"
            if permit.withdraw():
                raise TemporaryError(f"{said}: nothing was replaced") from error
            raise OutcomeUnknown(said) from error
        finally:
            permit.withdraw()  # a call that was cancelled goes no further either

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        def shown() -> tuple[str, ...]:
            file, _ = self._standing(ref)
            match operation:
                case RenewCertificate():
                    what = "a new certificate for the same names"
                case RollBackTo(revision=revision):
                    what = f"the previous certificate, if its fingerprint is {revision}"
                case _:
                    raise not_offered(_PLATFORM, operation)
            only = f"only while the SHA-256 fingerprint in {file.path} is {generation}, with flock on {file.folder}"
            return (
                f"write {file.journal_path} (execution, step, fence, both fingerprints)",
                f"rename {what} to {file.path} and keep the present one as {file.path}.previous; {only}",
            )

        return await self._read(shown)

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        def made() -> str:
            file, standing = self._standing(ref)
            _unchanged(ref, standing, generation)
            new = self._successor(file, standing, operation)
            return f"made and checked in memory, nothing was written: it would end {day(new.not_after)}"

        return await self._read(made)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Whether the file holds what was asked for last. A service that reads its certificate only at its start does
        not know of it yet, and the file does not tell."""

        def look() -> bool:
            file, standing = self._standing(ref)
            match operation:
                case RenewCertificate():
                    return any(
                        one.operation == operation.op
                        and one.after == standing.bundle.fingerprint
                        and one.before_not_after < standing.bundle.not_after
                        for one in file.entries()
                    )
                case RollBackTo(revision=revision):
                    return standing.bundle.fingerprint == revision
                case _:
                    raise not_offered(_PLATFORM, operation)

        return await self._read(look)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, by the journal beside the file; takes up to the time-out of a call.

        The journal names both fingerprints before the file is replaced, and is read with the folder locked: whoever
        replaces holds that lock. So the operation was applied when the file holds
        what the journal promised, or the journal says that it was done. It was not when the fingerprint of before still
        stands, or another that nobody promised and ours never began. UNKNOWN when ours began and the file holds a third
        one, when the journal is not legible, and when the file is gone or for something else.
        """
        if not isinstance(operation, RenewCertificate | RollBackTo):
            raise not_offered(_PLATFORM, operation)
        return await wait_out(lambda: self._read(lambda: self._trace(ref, intent)), flight_s=self._timeout_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        if isinstance(action, ManualAction):
            return action.command
        path = self._folders.get(ref.namespace, Path(ref.namespace)) / f"{ref.name}.pem"
        live, new, kept = (shlex.quote(str(path) + ending) for ending in ("", ".new", ".previous"))
        match action:
            case RenewAction():
                # The key by its usual name, if it is not in the file: a person knows where it is.
                key = shlex.quote(str(path if self._key_inside.get(ref.uid) else path.with_suffix(".key")))
                made = f"openssl x509 -in {live} -signkey {key} -days {_DAYS_BY_HAND}"
                if self._authority is not None:
                    signer, extended = shlex.quote(str(self._authority)), "-copy_extensions copyall"
                    made = (
                        f"openssl x509 -x509toreq {extended} -in {live} -signkey {key}"
                        f" | openssl x509 -req {extended} -CA {signer} -CAkey {signer} -days {_DAYS_BY_HAND}"
                    )
                rest = f"awk {shlex.quote(_REST_OF_FILE)} {live}"
                copied = f"cp -p {live} {kept} && cp -p {live} {new}"  # -p: with its mode and owner
                return f"{copied} && {{ {made} && {rest}; }} > {new} && mv {new} {live}"
            case RollBackAction():
                return f"cp -p {kept} {new} && cp -p {live} {kept} && mv {new} {live}"
            case _:
                raise not_offered(_PLATFORM, action)

    async def close(self) -> None:
        self._threads.close()

    async def _read(self, look: Callable[[], _T]) -> _T:
        try:
            return await self._threads.run(look, within_s=self._timeout_s)
        except TimeoutError as error:
            raise TemporaryError(f"the file system did not answer within {self._timeout_s:g} s") from error

    def _file(self, namespace: str, name: str) -> CertificateFile:
        if namespace not in self._folders:
            allowed = ", ".join(sorted(self._folders)) or "none"
            raise PermanentError(f"{namespace} is no folder that the bot may touch (set up: {allowed})")
        return CertificateFile(self._folders[namespace], name)

    def _standing(self, ref: TargetRef) -> tuple[CertificateFile, Standing]:
        """Raises PreconditionFailed when it is not the certificate that ``ref`` means."""
        file = self._file(ref.namespace, ref.name)
        standing = file.read()
        if _uid(file, standing.bundle) != ref.uid:
            raise PreconditionFailed(f"{file.path} is for something else by now: {_listed(standing.bundle)}")
        self._key_inside[ref.uid] = bool(standing.bundle.key)
        return file, standing

    def _state(self, ref: TargetRef) -> TargetState:
        file, standing = self._standing(ref)
        refuses: dict[ActionKind, str] = {}
        revisions: tuple[Revision, ...] = ()
        try:
            self._signer(file, standing)
        except PermanentError as error:
            refuses["renew"] = str(error)
        try:
            previous = _previous(file, standing)
            ends = f"ends {day(previous.bundle.not_after)}"
            revisions = (Revision(previous.bundle.fingerprint, ends, previous.bundle.leaf.not_valid_before_utc),)
        except PermanentError as error:
            refuses["roll_back"] = str(error)
        return TargetState(
            ref=ref,
            generation=standing.bundle.fingerprint,
            rollout=standing.bundle.fingerprint,
            revisions=revisions,
            not_after=standing.bundle.not_after,
            refuses=refuses,
        )

    def _change(self, ref: TargetRef, operation: Operation, intent: Intent, permit: Permit) -> str:
        file = self._file(ref.namespace, ref.name)
        with file.locked():
            file, standing = self._standing(ref)
            _unchanged(ref, standing, intent.generation)
            _not_ours_already(file, intent)
            if isinstance(operation, RollBackTo):
                previous = _previous(file, standing)
                if previous.bundle.fingerprint != operation.revision:
                    raise PermanentError(
                        f"{operation.revision} is not kept any more: the previous one is {previous.bundle.fingerprint}"
                    )
                new, content, verb = previous.bundle, previous.content, "put back the previous certificate"
            else:
                new = self._successor(file, standing, operation)
                content, verb = new.pem, "renewed the certificate"
            entry = Entry(
                execution=intent.execution_id,
                step=intent.step,
                fence=intent.fence,
                operation="roll_back_to" if isinstance(operation, RollBackTo) else "renew_certificate",
                before=standing.bundle.fingerprint,
                before_not_after=standing.bundle.not_after,
                after=new.fingerprint,
                at=datetime.now(UTC),
            )
            file.replace(standing, content, entry, permit)
        return f"{verb} in {file.path}: it ends {day(new.not_after)} (was {day(standing.bundle.not_after)})"

    def _successor(self, file: CertificateFile, standing: Standing, operation: Operation) -> Bundle:
        match operation:
            case RenewCertificate():
                return issue(standing.bundle, self._signer(file, standing), _now())
            case RollBackTo():
                return _previous(file, standing).bundle
            case _:
                raise not_offered(_PLATFORM, operation)

    def _signer(self, file: CertificateFile, standing: Standing) -> Authority:
        """Who can sign its successor. Raises PermanentError, saying what is in the way."""
        bundle, inside = standing.bundle, None
        if bundle.key:
            if words := open_to_all(standing.like):
                raise PermanentError(f"{file.path} holds a private key and {words}")
            inside = read_key(bundle.key, str(file.path))  # one with a passphrase would lose it
        signer = self._authority_now()
        if words := obstacle(bundle, signer.certificate if signer else None, _now()):
            raise PermanentError(words)
        if signer is not None:
            return signer
        if inside is not None:
            return Authority(inside)
        try:
            key = read_key(read_secret(file.key_path), str(file.key_path))
        except MissingFile as error:
            raise PermanentError(f"it signs itself, and its key is neither in it nor in {file.key_path}") from error
        if not matches(key, bundle):
            raise PermanentError(f"the key in {file.key_path} is not that of {file.path}")
        return Authority(key)

    def _authority_now(self) -> Authority | None:
        if self._authority is None:
            return None
        try:
            return read_authority(read_secret(self._authority.resolve()), str(self._authority))
        except MissingFile as error:
            raise PermanentError(f"the authority that is set up is not there: {error}") from error

    def _trace(self, ref: TargetRef, intent: Intent) -> Finding | None:
        try:
            with self._file(ref.namespace, ref.name).locked():
                file, standing = self._standing(ref)
                entries = file.entries()
        except PermanentError:  # gone, for something else, or a journal that nobody can read
            return Finding.UNKNOWN
        stands = standing.bundle.fingerprint
        key = (intent.execution_id, intent.step, intent.generation)
        began = [one for one in entries if (one.execution, one.step, one.before) == key]
        if not began:
            return None if stands == intent.generation else Finding.NOT_APPLIED
        ours = began[-1]
        if ours.done or stands == ours.after:
            return Finding.APPLIED
        return None if stands == ours.before else Finding.UNKNOWN

    def _checks(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        file, standing = self._standing(ref)
        checks = [
            RightCheck(_FILE, True, str(file.path)),
            RightCheck(_FOLDER, os.access(file.folder, os.W_OK | os.X_OK, effective_ids=True), str(file.folder)),
        ]
        owner, us = standing.like.st_uid, os.geteuid()
        # Of root's capabilities a single one would do, which cannot be asked for without trying.
        keeps = True if us in (0, owner) else None
        checks.append(RightCheck(_OWNER, keeps, f"it belongs to uid {owner}, the bot runs as {us}"))
        if self._authority is not None:
            held = os.access(self._authority, os.R_OK, effective_ids=True)
            checks.append(RightCheck(_AUTHORITY, held, str(self._authority)))
        return tuple(checks)


def _uid(file: CertificateFile, bundle: Bundle) -> str:
    return hashlib.sha256(f"{file.path}\n{bundle.names}".encode()).hexdigest()[:32]


def _listed(bundle: Bundle) -> str:
    return ", ".join(bundle.names.split("\n"))[:200]


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _unchanged(ref: TargetRef, standing: Standing, generation: str) -> None:
    if standing.bundle.fingerprint != generation:
        raise PreconditionFailed(
            f"{ref.describe()} has changed: its fingerprint is {standing.bundle.fingerprint}, not {generation}"
        )


def _previous(file: CertificateFile, standing: Standing) -> Standing:
    """Raises PermanentError when nothing can be put back."""
    previous = file.previous()
    if previous is None or previous.bundle.fingerprint == standing.bundle.fingerprint:
        raise PermanentError(f"no certificate from before is kept beside {file.path}")
    if previous.bundle.names != standing.bundle.names:
        raise PermanentError(f"the one kept beside {file.path} is for other names: {_listed(previous.bundle)}")
    return previous


def _not_ours_already(file: CertificateFile, intent: Intent) -> None:
    """A request that comes late finds the fingerprint of before again once somebody has put that back."""
    for one in file.entries():
        # The fingerprint too: a bot with another database may have used the same execution id before.
        ours = (one.execution, one.before) == (intent.execution_id, intent.generation)
        if ours and (one.done or one.fence > intent.fence):
            raise PreconditionFailed(
                f"{file.path} has seen step {one.step} of execution {one.execution} with fence {one.fence}"
            )
