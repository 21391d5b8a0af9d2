"""TLS to a provider: a CA of one's own, a client certificate, and what is said when either does not fit."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.adapters.telemetry.upstream import Access, Upstream
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from tests.contract.telemetry.faults import FaultyServer


@asynccontextmanager
async def upstream_of(access: Access, tls: ssl.SSLContext | None) -> AsyncIterator[tuple[FaultyServer, Upstream]]:
    async def fine(_: web.Request) -> web.Response:
        return web.Response(text="fine")

    app = web.Application()
    app.router.add_get("/x", fine)
    async with FaultyServer(app, ssl_context=tls) as server:
        upstream = Upstream("vendor", server.url.replace("http:", "https:"), access=access)
        yield server, upstream
        await upstream.close()


@dataclass(frozen=True)
class Papers:
    """A CA, and what it signed: the server's and our certificate, each with its key (PEM files)."""

    ca: Path
    server: tuple[Path, Path]
    ours: tuple[Path, Path]
    locked_key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(*self.server)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "our CA")])

    def signed(name: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool = False) -> bytes:
        now = datetime.now(UTC)
        subject = ca_name if is_ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if not is_ca:
            address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(address, critical=False)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def written(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def pair(name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        return written(f"{name}.pem", signed(name, key)), written(f"{name}.key", _pem(key))

    locked = _pem(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"secret"))
    ca = written("ca.pem", signed("our CA", ca_key, is_ca=True))
    return Papers(ca, pair("server"), pair("bot"), written("locked.key", locked))


def _pem(
    key: ec.EllipticCurvePrivateKey,
    locked: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked or serialization.NoEncryption()
    )


async def test_a_ca_of_ones_own_and_a_client_certificate(papers: Papers) -> None:
    access = Access(ca_file=papers.ca, client_cert=papers.ours[0], client_key=papers.ours[1])
    async with upstream_of(access, papers.server_context()) as (_, upstream):
        assert await upstream.get("/x") == b"fine"


async def test_without_the_client_certificate_nothing_is_said(papers: Papers) -> None:
    async with upstream_of(Access(ca_file=papers.ca), papers.server_context()) as (server, upstream):
        with pytest.raises(TemporaryError):
            await upstream.get("/x")
        assert server.asked == 0


async def test_a_ca_that_we_do_not_trust_is_named(papers: Papers) -> None:
    async with upstream_of(Access(), papers.server_context()) as (server, upstream):
        with pytest.raises(PermanentError, match="certificate verify failed"):
            await upstream.get("/x")
        assert server.asked == 0


async def test_a_server_that_speaks_no_tls_is_named() -> None:
    async with upstream_of(Access(), None) as (_, upstream):
        with pytest.raises(TemporaryError, match="TLS: "):
            await upstream.get("/x")


def test_a_locked_key_is_refused_at_once_and_not_asked_for_on_the_terminal(papers: Papers) -> None:
    access = Access(ca_file=papers.ca, client_cert=papers.ours[0], client_key=papers.locked_key)
    with pytest.raises(ConfigurationError, match="TLS files cannot be used"):
        access.ssl_context()
