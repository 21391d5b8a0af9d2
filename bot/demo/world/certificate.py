"""The certificate file of web: really made, really read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bot.demo.world.durable import replace_file


def write_certificate(path: Path, lifetime: timedelta) -> None:
    """Make a new self-signed certificate for web.demo.internal that ends `lifetime` from now; the key is not kept."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web.demo.internal")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("web.demo.internal")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    replace_file(path, certificate.public_bytes(serialization.Encoding.PEM))


def not_after(path: Path) -> datetime:
    """When the certificate in `path` ends. Raises: OSError, ValueError for a file that is no certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
