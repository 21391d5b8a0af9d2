"""The certificate of web and the authority that issues it: really made, really read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bot.demo.world.durable import replace_file, replace_file_durably

_NAME = "web.demo.internal"
_LIFETIME = timedelta(days=90)
"""From issue to end, of every certificate: one that ends sooner was issued longer ago."""
_AUTHORITY_LIFETIME = timedelta(days=3650)
_AUTHORITY_SINCE = timedelta(days=365)
"""How long ago the authority began: before every certificate that it is said to have issued."""


def ensure_authority(path: Path) -> None:
    """Make an authority of our own (PEM: its certificate, then its key), unless there is one."""
    if path.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Demo World Authority")])
    begins = datetime.now(UTC) - _AUTHORITY_SINCE
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_only_signs_certificates(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    replace_file_durably(path, certificate.public_bytes(serialization.Encoding.PEM) + private, mode=0o600)


def issue_certificate(authority: Path, path: Path, ends_in: timedelta) -> None:
    """Have the authority issue a certificate for web.demo.internal that ends `ends_in` from now; its key is not kept.

    Raises: OSError, ValueError when the authority's file cannot be read.
    """
    content = authority.read_bytes()
    issuer = x509.load_pem_x509_certificate(content)
    issuer_key = serialization.load_pem_private_key(content, password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{authority}: the key is none of an elliptic curve")
    key = ec.generate_private_key(ec.SECP256R1())
    ends = datetime.now(UTC) + ends_in
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - _LIFETIME)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    replace_file(path, certificate.public_bytes(serialization.Encoding.PEM))


def not_after(path: Path) -> datetime:
    """When the certificate in `path` ends. Raises: OSError, ValueError for a file that is no certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


def _only_signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
