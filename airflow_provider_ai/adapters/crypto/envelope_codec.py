"""The codec that encrypts: what is stored can be read with the key and in its own place, and nowhere else.

``what`` of the context is the purpose of the data key: payloads, results, checkpoints, … have data keys of their own,
so that a role may be granted the use of some of them. All of the context, and the tenant, is bound to the bytes.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_ai.adapters.crypto.data_keys import DataKeys
from airflow_provider_ai.adapters.crypto.wrapping import KeyWrapper
from airflow_provider_ai.core.envelope import KEY_BYTES, WRITES_INTO, additional_data, open_up, seal_size
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.exceptions import WrongContextError

NAME = "aes-256-gcm"
_LARGE_BYTES = 128 * 1024
_BUFFER_BYTES = 17 * 1024 * 1024  # a whole checkpoint segment
_CONTEXTS = 1024
_INFO = b"airflow-provider-ai hashes 1 "


class EnvelopeCodec:
    """A :class:`~airflow_provider_ai.core.ports.Codec`. Thread-safe. Errors are EncryptionError."""

    name = NAME

    def __init__(self, keys: DataKeys, wrapper: KeyWrapper, *, tenant: str) -> None:
        self._keys = keys
        self._wrapper = wrapper
        self._tenant = tenant
        self._bound: dict[tuple[tuple[str, str], ...], tuple[str, bytes]] = {}
        self._buffers = threading.local()
        self._hash_keys: dict[bytes, bytes] = {}

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """The bytes, encrypted and bound to the context, of which ``what`` is the purpose."""
        purpose, additional = self._additional(context)
        held, nonce = self._keys.sealing(purpose, len(data))
        start = held.start_at(additional)
        size = seal_size(start, data)
        if not WRITES_INTO or len(data) < _LARGE_BYTES or size > _BUFFER_BYTES:
            return held.key.seal(start, nonce, data, additional)
        return held.key.seal_into(self._buffer(size), start, nonce, data, additional)

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """The bytes that were encoded under the same context.

        :raises CiphertextError: when they are none of these
        :raises KeyAccessError: when the key cannot be used
        """
        purpose, additional = self._additional(context)
        message = open_up(data)
        held = self._keys.opening(message.start)
        if held.purpose != purpose:
            raise WrongContextError(
                f"encrypted data are not {purpose!r}, as their place says: they were moved or changed, and not used"
            )
        return held.key.open(message, additional)

    def prepare(self, what: str) -> None:
        """See that data of this purpose can be encrypted, now and for some time, and named."""
        self._keys.prepare(what)
        self._hash_key(b"content")

    def digest(self, data: bytes) -> str:
        """64 hex digits that tell whether two bytes are the same to whoever has the hash key, and to nobody else."""
        return hmac.digest(self._hash_key(b"content"), data, "sha256").hex()

    def opaque(self, name: str) -> str:
        """A name from which nobody without the hash key can tell, or guess, what it was made of."""
        return hmac.digest(self._hash_key(b"name"), name.encode(), "sha256").hex()

    def record_key(self, record_id: object) -> str:
        """The opaque name of a record (:func:`airflow_provider_ai.core.identity.record_key`), keyed."""
        return record_key(record_id, secret=self._hash_key(b"record"))

    def _additional(self, context: Mapping[str, str]) -> tuple[str, bytes]:
        """Purpose and additional data; kept, because the records of a checkpoint all have the same."""
        key = tuple(context.items())
        found = self._bound.get(key)
        if found is None:
            if len(self._bound) >= _CONTEXTS:
                self._bound.clear()
            found = self._bound[key] = (context["what"], additional_data(self._tenant, context))
        return found

    def _buffer(self, size: int) -> memoryview:
        """Memory that is used again: for large messages the first touch of fresh memory costs more than AES."""
        buffer: bytearray = getattr(self._buffers, "memory", bytearray())
        if len(buffer) < size:
            buffer = self._buffers.memory = bytearray(size)
        return memoryview(buffer)

    def _hash_key(self, use: bytes) -> bytes:
        found = self._hash_keys.get(use)
        if found is None:
            info = _INFO + use + b" " + self._tenant.encode()
            secret = self._wrapper.hash_key(self._tenant)
            derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)
            found = self._hash_keys[use] = derived
        return found
