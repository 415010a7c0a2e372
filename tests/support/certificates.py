"""A certificate authority of one's own, in memory and in PEM files."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
PASSPHRASE = b"passphrase"


@dataclass(frozen=True, slots=True)
class Issued:
    """Paths of a PEM certificate and its key."""

    certificate: str
    key: str

    def server_context(self, *, clients_of: str | None = None, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """What a server with this certificate speaks; ``clients_of``: the CA file its clients must be of."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if newest is not None:
            context.maximum_version = newest
        if clients_of is not None:
            context.load_verify_locations(clients_of)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """Signs certificates; ``ca_file`` is its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._folder = folder
        self._issued = 0
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = _builder(self._name, self._name, self._key, -DAY, DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.ca_file = self._write("ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str = "127.0.0.1", *, starts: timedelta = -DAY, ends: timedelta = DAY) -> Issued:
        """A certificate for a host name or address, valid from now + ``starts`` to now + ``ends``."""
        return self._issue(host, starts, ends, self._key, self._name, serialization.NoEncryption())

    def issue_with_passphrase(self) -> Issued:
        """A certificate whose key file asks for a passphrase."""
        locked = serialization.BestAvailableEncryption(PASSPHRASE)
        return self._issue("127.0.0.1", -DAY, DAY, self._key, self._name, locked)

    def self_signed(self, host: str = "127.0.0.1") -> Issued:
        """A certificate no authority signed."""
        return self._issue(host, -DAY, DAY, None, None, serialization.NoEncryption())

    def _issue(
        self,
        host: str,
        starts: timedelta,
        ends: timedelta,
        signer: ec.EllipticCurvePrivateKey | None,
        issuer: x509.Name | None,
        lock: serialization.KeySerializationEncryption,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(name, issuer or name, key, starts, ends).add_extension(both, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        certificate = builder.sign(signer or key, hashes.SHA256())
        self._issued += 1
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        public = certificate.public_bytes(serialization.Encoding.PEM)
        return Issued(self._write(f"{self._issued}.pem", public), self._write(f"{self._issued}.key", private))

    def _write(self, name: str, data: bytes) -> str:
        path = self._folder / name
        path.write_bytes(data)
        return str(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, starts: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now + starts).not_valid_after(now + ends)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
