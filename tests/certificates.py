"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import datetime as dt
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority", "client_context"]

DAY = dt.timedelta(days=1)
_PEM = serialization.Encoding.PEM


class Authority:
    """A CA that lives for one test; its certificate stands in `file`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"test authority {name}")
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            _begin(self._name, self._name, self._key, -DAY, DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_CA_USAGE, critical=True)
            .add_extension(key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(_PEM))

    def issue(
        self,
        folder: Path,
        name: str = "server",
        *,
        host: str = "127.0.0.1",
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = DAY,
        password: str | None = None,
    ) -> tuple[Path, Path]:
        """Sign a new key; return the files of certificate and key, put there whole or not at all.

        Args:
            folder: Where the files go: NAME.crt and NAME.key.
            name: Of the files.
            host: Name or IP address that it is for.
            begins: From when on it counts, from now.
            ends: Until when, from now.
            password: That the key is encrypted with.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _begin(_name(host), self._name, key, begins, ends)
            .add_extension(x509.SubjectAlternativeName([_subject(host)]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            _PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption(),
        )
        files = folder / f"{name}.crt", folder / f"{name}.key"
        for file, content in zip(files, (certificate.public_bytes(_PEM), private), strict=True):
            part = file.with_suffix(".part")
            part.touch(mode=0o600)
            part.write_bytes(content)
            part.replace(file)
        return files


def client_context(
    authority: Authority, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """Return the context of a client that believes `authority` and nobody else."""
    context = ssl.create_default_context(cafile=authority.file)
    context.maximum_version = newest
    return context


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: dt.timedelta,
    ends: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


_CA_USAGE = x509.KeyUsage(  # Python 3.13 verifies strictly (RFC 5280, 4.2.1.3)
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
