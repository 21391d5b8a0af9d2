"""A real Prometheus that lets in only whom it knows: by certificate over TLS, and by user and password."""

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.adapters.telemetry.upstream import Access
from tests.contract.metrics_world import World
from tests.contract.telemetry.real_prometheus import real_prometheus

USER, PASSWORD = "sre", "pass:word"
PASSWORD_BCRYPT = "$2b$04$abcdefghijklmnopqrstuu7govE5p0NSk1WUEk5C2Qm3hpPC6VJ66"
"""bcrypt of ``PASSWORD``, at the lowest cost."""


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / f"{name}.pem", folder / f"{name}.key"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    """The server's and ours."""
    folder = tmp_path_factory.mktemp("papers")
    return self_signed(folder, "server"), self_signed(folder, "ours")


@pytest.fixture(scope="module")
def url(papers: tuple[tuple[Path, Path], tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (certificate, key), (ours, _) = papers
    world, folder = World(tmp_path_factory.mktemp("world")), tmp_path_factory.mktemp("prometheus")
    config = folder / "web.yml"
    config.write_text(
        f"tls_server_config: {{cert_file: {certificate}, key_file: {key},"
        f" client_auth_type: RequireAndVerifyClientCert, client_ca_file: {ours}}}\n"
        f"basic_auth_users: {{{USER}: '{PASSWORD_BCRYPT}'}}\n"
    )
    with real_prometheus(folder, world.file, f"--web.config.file={config}") as url:
        yield url.replace("http:", "https:")


@pytest.mark.parametrize(
    ("user", "with_ca", "with_certificate", "said"),
    [
        ((USER, PASSWORD), True, True, ""),
        ((USER, "wrong"), True, True, "HTTP 401: Unauthorized; it will fail again until the settings are changed"),
        (None, True, True, "HTTP 401: Unauthorized; it will fail again until the settings are changed"),
        ((USER, PASSWORD), True, False, "asked again at the next reading"),
        ((USER, PASSWORD), False, True, "it will fail again until the settings are changed"),
    ],
)
async def test_who_is_let_in(
    papers: tuple[tuple[Path, Path], tuple[Path, Path]],
    url: str,
    user: tuple[str, str] | None,
    with_ca: bool,
    with_certificate: bool,
    said: str,
) -> None:
    (ca, _), ours = papers
    certificate, key = ours if with_certificate else (None, None)
    access = Access(basic=user, ca_file=ca if with_ca else None, client_cert=certificate, client_key=key)
    source = PrometheusSource(url, access=access, timeout_s=30)
    reading = await source.read(datetime.now(UTC))
    await source.close()
    if said:
        (failure,) = reading.failures
        assert failure.source == "prometheus"
        assert failure.reason.endswith(said)
    else:
        assert reading.failures == ()
