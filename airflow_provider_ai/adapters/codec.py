"""The codec between checkpoint bytes and storage. Identity for now: bytes are stored as they are."""

from __future__ import annotations

from collections.abc import Mapping


class IdentityCodec:
    """Stores what it is given."""

    name = "identity"

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """``data``."""
        return data

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        """``data``."""
        return data
