"""Issuing a successor to a certificate in a PEM file. Nothing is written here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PublicKeyTypes
from cryptography.x509.oid import ExtensionOID

from pipeline.domain.errors import PermanentError

SHORTEST, LONGEST = timedelta(days=30), timedelta(days=90)
"""Between these the lifetime of the predecessor is kept."""
_BACKDATED = timedelta(hours=1)
"""So that a client whose clock is a little behind takes the certificate at once."""
_KEPT = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
)
_KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----\s*", re.DOTALL)


@dataclass(frozen=True)
class Bundle:
    """A PEM file: a certificate, what stands between it and its root, and its key where it lies in the same file."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: bytes
    """As PEM; empty when it is elsewhere."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hex: what ``openssl x509 -fingerprint -sha256`` prints."""
        return self.leaf.fingerprint(hashes.SHA256()).hex()

    @property
    def not_after(self) -> datetime:
        return self.leaf.not_valid_after_utc

    @property
    def self_signed(self) -> bool:
        return _is_issued_by(self.leaf, self.leaf)

    @property
    def names(self) -> str:
        """What it is for: its subject and other names, always written alike."""
        others = _extension(self.leaf, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
        listed = sorted(str(one) for one in others) if isinstance(others, x509.SubjectAlternativeName) else []
        return "\n".join((self.leaf.subject.rfc4514_string(), *listed))

    @property
    def pem(self) -> bytes:
        certificates = [one.public_bytes(serialization.Encoding.PEM) for one in (self.leaf, *self.chain)]
        return b"".join(certificates) + self.key


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs: a certificate authority, or the key of a certificate that signs itself (then without one)."""

    key: CertificateIssuerPrivateKeyTypes
    certificate: x509.Certificate | None = None


def read_bundle(content: bytes, where: str) -> Bundle:
    """Raises PermanentError when it is no certificate in PEM."""
    try:
        leaf, *chain = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise PermanentError(f"{where} holds no certificate in PEM: {error}") from error
    key = _KEY_BLOCK.search(content)
    return Bundle(leaf, tuple(chain), key.group(0) if key else b"")


def read_key(content: bytes, where: str) -> CertificateIssuerPrivateKeyTypes:
    """Raises PermanentError when there is no key that can sign, or one with a passphrase."""
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise PermanentError(f"the key in {where} has a passphrase, which the bot does not know") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PermanentError(f"{where} holds no private key in PEM: {error}") from error
    if not isinstance(
        key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    ):
        raise PermanentError(f"the key in {where} is of a kind that the bot does not sign with: {type(key).__name__}")
    return key


def read_authority(content: bytes, where: str) -> Authority:
    """A CA's certificate with its key. Raises PermanentError when one of them is missing, or they do not match."""
    bundle = read_bundle(content, where)
    if not bundle.key:
        raise PermanentError(f"{where} holds no private key: the authority's certificate and key belong in one file")
    key = read_key(bundle.key, where)
    if not matches(key, bundle):
        raise PermanentError(f"the key in {where} is not that of the first certificate in it")
    basic = _extension(bundle.leaf, ExtensionOID.BASIC_CONSTRAINTS)
    usage = _extension(bundle.leaf, ExtensionOID.KEY_USAGE)
    signs = not isinstance(usage, x509.KeyUsage) or usage.key_cert_sign
    if not isinstance(basic, x509.BasicConstraints) or not basic.ca or not signs:
        raise PermanentError(f"the certificate in {where} is not that of an authority: it may not sign others")
    return Authority(key, bundle.leaf)


def obstacle(old: Bundle, authority: x509.Certificate | None, now: datetime) -> str:
    """Why no successor can be issued; empty when one can. ``authority`` None: it would sign itself."""
    basic = _extension(old.leaf, ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        return "it is an authority's own certificate, which the bot does not renew"
    if now < old.leaf.not_valid_before_utc:
        return f"this machine's clock says {_day(now)}, before the certificate began: set the clock"
    if authority is None and not old.self_signed:
        return f"it was issued by {old.leaf.issuer.rfc4514_string()}, and no authority is set up here"
    if authority is not None:
        if not old.self_signed and old.leaf.issuer != authority.subject:
            return (
                f"it was issued by {old.leaf.issuer.rfc4514_string()}, and the authority here is"
                f" {authority.subject.rfc4514_string()}: renew it where it came from"
            )
        if not authority.not_valid_before_utc <= now < authority.not_valid_after_utc:
            began, ends = _day(authority.not_valid_before_utc), _day(authority.not_valid_after_utc)
            return f"the authority's own certificate is valid from {began} to {ends}, and now it is {_day(now)}"
    ends_at = _ends_at(old, authority, now)
    if ends_at <= old.not_after:
        return f"a new one would end {_day(ends_at)}, no later than this one ({_day(old.not_after)})"
    return ""


def issue(old: Bundle, signer: Authority, now: datetime) -> Bundle:
    """A certificate with the same subject, names and usages, checked before it is returned. Raises PermanentError.

    A key in the same file is replaced by a new one of the same kind. A key that is elsewhere stays, and so does its
    public half here: two files cannot be replaced at once, and nobody but its holder has it.
    """
    if words := obstacle(old, signer.certificate, now):
        raise PermanentError(words)
    began = now - _BACKDATED
    if signer.certificate is not None:
        began = max(began, signer.certificate.not_valid_before_utc)
    key = _new_key(old) if old.key else None
    signs = key if key is not None and signer.certificate is None else signer.key
    public = key.public_key() if key is not None else old.leaf.public_key()
    issuer = signer.certificate or old.leaf
    try:
        builder = (
            x509.CertificateBuilder()
            .subject_name(old.leaf.subject)
            .issuer_name(issuer.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(_ends_at(old, signer.certificate, now))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key()), critical=False)
        )
        for extension in old.leaf.extensions:
            if extension.oid in _KEPT:
                builder = builder.add_extension(extension.value, critical=extension.critical)
        leaf = builder.sign(signs, _digest(signs))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PermanentError(f"no certificate could be issued: {error}") from error
    chain = tuple(issuer if one.subject == issuer.subject else one for one in old.chain)
    new = Bundle(leaf, chain, _pem(key) if key is not None else b"")
    if words := faults(old, new, signer.certificate, now):
        raise PermanentError(f"the new certificate is not fit to go live: {words}")
    return new


def matches(key: CertificateIssuerPrivateKeyTypes, bundle: Bundle) -> bool:
    """Whether it is the key of this certificate."""
    return _raw(key.public_key()) == _raw(bundle.leaf.public_key())


def faults(old: Bundle, new: Bundle, authority: x509.Certificate | None, now: datetime) -> str:
    """Why ``new`` may not take the place of ``old``; empty when it may."""
    if not _is_issued_by(new.leaf, authority or new.leaf):
        return "its signature is not that of its issuer"
    if new.key and not matches(read_key(new.key, "the new file"), new):
        return "its key is another's"
    if not new.key and _raw(old.leaf.public_key()) != _raw(new.leaf.public_key()):
        return "its key is not the one that is in use"
    if new.names != old.names:
        return "it is for other names"
    if not new.leaf.not_valid_before_utc <= now < new.not_after:
        return "it is not valid now"
    return "" if new.not_after > old.not_after else "it ends no later than the old one"


def _ends_at(old: Bundle, authority: x509.Certificate | None, now: datetime) -> datetime:
    had = old.not_after - old.leaf.not_valid_before_utc
    ends = now + min(max(had, SHORTEST), LONGEST)
    return min(ends, authority.not_valid_after_utc) if authority is not None else ends


def _is_issued_by(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_oid(oid).value
    except (x509.ExtensionNotFound, ValueError):  # ValueError: the extensions cannot be read
        return None


def _new_key(old: Bundle) -> CertificateIssuerPrivateKeyTypes:
    public = old.leaf.public_key()
    match public:
        case ec.EllipticCurvePublicKey():
            return ec.generate_private_key(public.curve)
        case rsa.RSAPublicKey():
            return rsa.generate_private_key(public_exponent=65537, key_size=max(2048, public.key_size))
        case ed25519.Ed25519PublicKey():
            return ed25519.Ed25519PrivateKey.generate()
        case ed448.Ed448PublicKey():
            return ed448.Ed448PrivateKey.generate()
        case _:
            raise PermanentError(f"the bot makes no keys of the kind {type(public).__name__}")


def _digest(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    """Edwards curves bring their own: RFC 8410."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _raw(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
