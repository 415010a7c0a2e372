"""The codec where nothing is encrypted: bytes are stored as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from airflow_provider_ai.core.envelope_mark import is_envelope
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.exceptions import EncryptedDataError


class IdentityCodec:
    """Stores what it is given. Refuses what was encrypted: taken for data, it would end as a corrupt file."""

    name = "identity"

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """``data``."""
        return data

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """``data``.

        :raises EncryptedDataError: when they are encrypted
        """
        if is_envelope(data):
            raise EncryptedDataError(
                "data are encrypted, and no keys are configured here: set the keys that they were written with "
                "([encryption] in a spec, keys_conn_id in Airflow), then retry; nothing is lost"
            )
        return data

    def prepare(self, what: str) -> None:
        """Nothing is needed."""

    def digest(self, data: bytes) -> str:
        """SHA-256, 64 hex digits."""
        return hashlib.sha256(data).hexdigest()

    def opaque(self, name: str) -> str:
        """``name``."""
        return name

    def record_key(self, record_id: object) -> str:
        """The opaque name of a record."""
        return record_key(record_id)
