"""Data keys wrapped by a key of our own, from a keyring.

AES-256-GCM with a random nonce, not AES key wrap (RFC 3394): key wrap takes no additional data, and a wrapped key must
be bound to its tenant and purpose as KMS binds it. One nonce is spent for each data key, so the 2^32 of NIST SP 800-38D
§8.3 are out of reach. What AES sees is derived from the key (HKDF-SHA-256), so that the key may be used elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_ai.adapters.crypto.wrapping import DataKey
from airflow_provider_ai.core.envelope import KEY_BYTES, NONCE_BYTES, additional_data
from airflow_provider_ai.core.key_settings import LocalKeys
from airflow_provider_ai.exceptions import UnknownKeyError, WrongContextError

_INFO = b"airflow-provider-ai key wrap 1"


class LocalKeyWrapper:
    """A :class:`~airflow_provider_ai.adapters.crypto.wrapping.KeyWrapper` on a keyring."""

    def __init__(self, keys: LocalKeys) -> None:
        self._current = keys.current
        self._ciphers = {name: AESGCM(_derived(key)) for name, key in keys.keys}
        self._hash_key = keys.hash_key

    def make(self, binding: Mapping[str, str]) -> DataKey:
        """A new data key, wrapped by the current key."""
        plain = os.urandom(KEY_BYTES)
        return DataKey(plain, self._current, self._wrap(plain, binding))

    def unwrap(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> bytes:
        """The data key.

        :raises UnknownKeyError: the keyring does not hold the key
        :raises WrongContextError: it was wrapped with another binding, or changed
        """
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKeyError(
                f"data were encrypted under key {key_id[:64]!r}, which is not in the keyring: add it there as an older "
                "key, then retry; nothing is lost"
            )
        try:
            return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], additional_data("", binding))
        except (InvalidTag, ValueError):
            raise WrongContextError(
                f"a data key does not unwrap with key {key_id!r}: it is another tenant's or purpose's, it was changed, "
                "or the key under that id is not the one that wrapped it; it was not used"
            ) from None

    def wrap_anew(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> tuple[str, bytes]:
        """The data key, wrapped by the current key."""
        return self._current, self._wrap(self.unwrap(key_id, wrapped, binding), binding)

    def is_current(self, key_id: str) -> bool:
        """Whether this names the current key."""
        return key_id == self._current

    def hash_key(self, tenant: str) -> bytes:
        """The key of hashes."""
        return self._hash_key

    def _wrap(self, plain: bytes, binding: Mapping[str, str]) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self._current].encrypt(nonce, plain, additional_data("", binding))


def _derived(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_INFO).derive(key)
