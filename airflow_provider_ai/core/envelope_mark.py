"""How encrypted bytes are told from others. Apart from the envelope itself, which costs the import of cryptography."""

from __future__ import annotations

from typing import Final

MAGIC: Final = b"\xa1AIE"
"""Begins with no byte that begins UTF-8, JSON or an Arrow file."""


def is_envelope(data: bytes) -> bool:
    """Whether bytes claim to be encrypted."""
    return data[: len(MAGIC)] == MAGIC
