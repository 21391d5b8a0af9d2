"""Certificates in PEM files: renew and roll back, on real files."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from executors.targets.certificate_file import CertificateFileTarget
from pipeline.domain.action import RenewAction, RenewCertificate, RollBackAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.places import intent_for
from tests.contract.targets.stand import Opens, Stand

FOLDER, NAME = "web-certs", "web"
_NOBODY = 65534
Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def make_certificate(
    name: str = "web.example",
    *,
    by: Pair | None = None,
    began: timedelta = timedelta(days=-88),
    ends: timedelta = timedelta(days=2),
    authority: bool = False,
) -> Pair:
    """One that ``by`` signed, or it itself; ``began`` and ``ends`` are counted from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + began)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        names = [x509.DNSName(name), x509.DNSName(f"www.{name}")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(by[1] if by else key, hashes.SHA256()), key


@cache
def an_authority() -> Pair:
    return make_certificate("the authority", began=timedelta(days=-400), ends=timedelta(days=400), authority=True)


class _Watch:
    """Counts how often a file was replaced, and can hold a thread up in the first file that it opens after that.

    That is what a network file system does which stops answering. It is done by the interpreter's audit events
    (PEP 578), which name every rename and every opening before the kernel is asked.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.replaced = 0
        self.hangs = False
        self._of_thread = threading.local()
        self._answers = threading.Event()
        _watches()[self.path] = self

    def hang(self) -> None:
        self._answers.clear()
        self.hangs = True

    def release(self) -> None:
        self.hangs = False
        self._answers.set()

    def seen(self, event: str, path: str) -> None:
        if event == "os.rename" and path == self.path:
            self.replaced += 1
            self._of_thread.replaced = self.hangs
        elif event == "open" and getattr(self._of_thread, "replaced", False):
            self._of_thread.replaced = False
            self._answers.wait()


@cache
def _watches() -> dict[str, _Watch]:
    watches: dict[str, _Watch] = {}

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if watches and event in ("os.rename", "open"):
            for watch in tuple(watches.values()):
                watch.seen(event, str(args[1] if event == "os.rename" else args[0]))

    sys.addaudithook(audit)
    return watches


class FileStand(Stand):
    """``web.pem`` in a folder of its own, issued by an authority, ending in two days."""

    address = WorkloadAddress(platform="certificate_file", namespace=FOLDER, name=NAME)

    def __init__(self, root: Path, kind: Literal["renew", "roll_back"]) -> None:
        self.folder = root / "certs"
        self.folder.mkdir(mode=0o750)
        self.live = self.folder / f"{NAME}.pem"
        self.authority = root / "authority.pem"
        certificate, key = an_authority()
        self.authority.write_bytes(pem(certificate) + key_pem(key))
        self.authority.chmod(0o640)
        self.live.write_bytes(pem(make_certificate(by=an_authority())[0]))
        self.watch = _Watch(self.live)
        self._kind = kind
        self._lock = -1
        self._gave_up_root = False
        self.target: Target = self.connect()

    def connect(self, *, timeout_s: float = 20.0) -> Target:
        return CertificateFileTarget({FOLDER: self.folder}, authority=self.authority, timeout_s=timeout_s)

    async def action(self, state: TargetState) -> TargetAction:
        if self._kind == "roll_back":
            return RollBackAction(from_revision=state.rollout, to_revision=state.revisions[0].name)
        assert state.not_after is not None
        return RenewAction(not_after=state.not_after, keeps_previous=True)

    async def facts(self) -> object:
        like = self.live.stat()
        return self.live.read_bytes(), like.st_mode, like.st_uid, like.st_gid

    async def change_by_another(self) -> None:
        self.live.write_bytes(pem(make_certificate(by=an_authority())[0]))

    async def former(self, ref: TargetRef) -> TargetRef:
        self.live.write_bytes(pem(make_certificate("another.example", by=an_authority())[0]))
        return ref

    async def deny(self) -> None:
        """The folder is not ours to write to. Root may anyway, and gives its own rights up first."""
        self.folder.chmod(0o550)
        if os.geteuid() == 0:
            os.seteuid(_NOBODY)
            self._gave_up_root = True

    async def throttle(self) -> None:
        """Another process is at it: as far as flock goes, that is another opening of the folder."""
        self._lock = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    async def lose_answer(self) -> None:
        self.watch.hang()

    def another(self) -> Target:
        """One that gives up soon, to begin with; after a file hung, that ends, and there is time."""
        timeout_s = 20.0 if self.watch.hangs else 0.5
        self.watch.release()
        return self.connect(timeout_s=timeout_s)

    def writes(self) -> int:
        return self.watch.replaced

    async def renew(self) -> None:
        """So that there is one to go back to."""
        ref = await self.target.resolve(self.address)
        await self.target.apply(ref, RenewCertificate(), intent_for(await self.target.observe(ref)))
        self.watch.replaced = 0

    def close(self) -> None:
        if self._gave_up_root:
            os.seteuid(0)
        self.watch.release()
        del _watches()[self.watch.path]
        self.folder.chmod(0o750)
        if self._lock >= 0:
            os.close(self._lock)


@asynccontextmanager
async def certificate_file_stand(kind: Literal["renew", "roll_back"] = "renew") -> AsyncIterator[FileStand]:
    with tempfile.TemporaryDirectory(prefix="certs-") as root:
        Path(root).chmod(0o750)
        stand = FileStand(Path(root).resolve(), kind)
        try:
            if kind == "roll_back":
                await stand.renew()
            yield stand
        finally:
            stand.close()


STANDS: Mapping[str, Opens] = {
    "certificate_file: renew": certificate_file_stand,
    "certificate_file: roll_back": partial(certificate_file_stand, "roll_back"),
}
