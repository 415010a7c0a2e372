"""Frames: how records stand in an append-only log so that a reader can tell finished from torn from corrupt.

A frame is a 16-byte header (magic, payload length, CRC-32 of the payload, CRC-32 of the header so far; little endian)
and the payload. A process that dies while writing leaves a torn frame at the end and nothing after it; so bytes that
are no valid frame are a torn tail when no valid frame follows, and corruption when one does.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

MAGIC = b"AIF1"
_FIELDS = struct.Struct("<4sII")
_CHECK = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECK.size


class CorruptFrameError(ValueError):
    """A damaged frame with valid frames behind it. ``offset``: where the damage begins, in bytes."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"damaged at byte {offset}")
        self.offset = offset


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScan:
    """``payloads`` of the valid frames in order; the first ``valid_bytes`` are sound, ``torn_bytes`` follow."""

    payloads: list[bytes]
    valid_bytes: int
    torn_bytes: int


def encode_frame(payload: bytes) -> bytes:
    """Header and payload."""
    fields = _FIELDS.pack(MAGIC, len(payload), zlib.crc32(payload))
    return fields + _CHECK.pack(zlib.crc32(fields)) + payload


def scan_frames(data: bytes) -> FrameScan:
    """All valid frames from the start of ``data``; CorruptFrameError when the damage is not at the end."""
    payloads: list[bytes] = []
    offset = 0
    while offset < len(data):
        payload = _frame_at(data, offset)
        if payload is None:
            break
        payloads.append(payload)
        offset += HEADER_BYTES + len(payload)
    if offset < len(data) and _valid_frame_after(data, offset):
        raise CorruptFrameError(offset)
    return FrameScan(payloads=payloads, valid_bytes=offset, torn_bytes=len(data) - offset)


def _frame_at(data: bytes, offset: int) -> bytes | None:
    body = offset + HEADER_BYTES
    if body > len(data) or data[offset : offset + 4] != MAGIC:
        return None
    _, length, check = _FIELDS.unpack_from(data, offset)
    if _CHECK.unpack_from(data, body - _CHECK.size)[0] != zlib.crc32(data[offset : body - _CHECK.size]):
        return None
    payload = data[body : body + length]
    return payload if len(payload) == length and zlib.crc32(payload) == check else None


def _valid_frame_after(data: bytes, offset: int) -> bool:
    candidate = data.find(MAGIC, offset + 1)
    while candidate >= 0:
        if _frame_at(data, candidate) is not None:
            return True
        candidate = data.find(MAGIC, candidate + 1)
    return False
