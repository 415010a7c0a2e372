"""Ed25519 keys of heads (RFC 8032): made, read, signed with, verified with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from airflow_provider_ai.core.audit_chain import Head, SignedHead
from airflow_provider_ai.exceptions import SpecError

_PEM = re.compile(r"(-----BEGIN [A-Z ]+-----)(.+)(-----END [A-Z ]+-----)", re.DOTALL)
_NO_KEY = "must be an Ed25519 {kind} key in PEM, without a password; `airflow-ai audit keygen` makes one"


class HeadSigner:
    """Signs heads.

    :param pem: the private key
    :raises SpecError: when it is none
    """

    def __init__(self, pem: str) -> None:
        try:
            key = serialization.load_pem_private_key(_in_lines(pem).encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise SpecError(f"signing_key {_NO_KEY.format(kind='private')}")
        self._key = key
        self.key_id = _key_id(key.public_key())

    def sign(self, head: Head) -> SignedHead:
        """The head, signed."""
        return SignedHead(head=head, key_id=self.key_id, signature=self._key.sign(head.signed_bytes()))


class HeadVerifier:
    """Verifies heads.

    :param pems: public keys: the one of now, and those from before it
    :raises SpecError: when one of them is none
    """

    def __init__(self, pems: Sequence[str]) -> None:
        self._keys = {_key_id(key): key for key in map(_public_key, pems)}

    def is_genuine(self, signed: SignedHead) -> bool:
        """Whether one of the keys has signed it."""
        key = self._keys.get(signed.key_id)
        if key is None:
            return False
        try:
            key.verify(signed.signature, signed.head.signed_bytes())
        except InvalidSignature:
            return False
        return True


def new_key_pair() -> tuple[str, str]:
    """A private and a public key, PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def _in_lines(pem: str) -> str:
    """A PEM that has lost its line ends, as in a form of one line or an environment variable."""
    found = _PEM.fullmatch(pem.replace("\\n", "\n").strip())
    if found is None:
        return pem
    begin, body, end = found.groups()
    return "\n".join([begin, *body.split(), end])


def _public_key(pem: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SpecError(f"the public key {_NO_KEY.format(kind='public')}")
    return key


def _key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]
