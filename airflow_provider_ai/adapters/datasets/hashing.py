"""64-bit hashes of ids, a whole Arrow array at a time.

Equal ids always have equal hashes, also when one file stores them as ``int32`` and another as ``int64`` or ``float``,
or as plain and as dictionary-encoded text. The hash is keyed; with a random key it tells nothing about the ids, and no
input can be built to collide.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as pt

from airflow_provider_ai.exceptions import InputError

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

LONG_ID_BYTES = 256
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)


def random_key() -> int:
    """A key for :func:`hash_ids`."""
    return secrets.randbits(64)


def hash_ids(values: pa.Array, key: int) -> Hashes:
    """64-bit hashes of ids without nulls; InputError when values of the type cannot be ids."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return hash_ids(values.storage, key)
    if pt.is_dictionary(kind):
        return hash_ids(values.dictionary_decode(), key)
    if pt.is_integer(kind):
        return _mixed(_whole(values), key)
    if pt.is_floating(kind):
        return _mixed(_canonical_floats(_numbers(values.cast(pa.float64()), np.float64)), key)
    if _is_text(kind):
        return _hash_bytes(*_text_bytes(values), key)
    if pt.is_nested(kind) or pt.is_boolean(kind) or pt.is_null(kind):
        raise InputError(f"the id column has type {kind}; an id must be text, a number, a date or time, or bytes")
    return _hash_bytes(*_fixed_bytes(values), key)


def _mix(x: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection that spreads every bit. In place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _mixed(values: Hashes, key: int) -> Hashes:
    return _mix(values ^ np.uint64(key))


def _whole(values: pa.Array) -> Hashes:
    kind = pa.uint64() if pt.is_unsigned_integer(values.type) else pa.int64()
    return _numbers(values.cast(kind), np.uint64)


def _numbers(values: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The 64-bit numbers of an array, not copied. ``to_numpy`` would do, but imports pandas (40 MB, half a second)."""
    numbers: npt.NDArray[Any] = np.frombuffer(values.buffers()[1], dtype=dtype)
    return numbers[values.offset : values.offset + len(values)]


def _canonical_floats(values: npt.NDArray[np.float64]) -> Hashes:
    """A whole float as the integer it equals, any other as its bits."""
    small = np.abs(values) < 2.0**63
    whole = small & (np.where(small, values, 0.5) % 1 == 0)
    return np.where(whole, np.where(whole, values, 0).astype(np.int64).view(np.uint64), values.view(np.uint64))


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pt.is_string,
            pt.is_large_string,
            pt.is_string_view,
            pt.is_binary,
            pt.is_large_binary,
            pt.is_binary_view,
        )
    )


def _text_bytes(values: pa.Array) -> tuple[Bytes, Integers, Integers]:
    """The bytes of all values, and where each starts and how long it is."""
    if pt.is_string_view(values.type) or pt.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    wide = pt.is_large_string(values.type) or pt.is_large_binary(values.type)
    _, offsets_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64 if wide else np.int32)
    offsets = offsets[values.offset : values.offset + len(values) + 1].astype(np.int64)
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    return data, offsets[:-1] - offsets[0], np.diff(offsets)


def _fixed_bytes(values: pa.Array) -> tuple[Bytes, Integers, Integers]:
    width = values.type.bit_width // 8
    data = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    data = data[values.offset * width : (values.offset + len(values)) * width]
    starts = np.arange(len(values), dtype=np.int64) * width
    return data, starts, np.full(len(values), width, dtype=np.int64)


def _hash_bytes(data: Bytes, starts: Integers, lengths: Integers, key: int) -> Hashes:
    """Eight bytes of every value at a time; a value joins as long as it has bytes left."""
    padded = np.zeros(len(data) + 8, dtype=np.uint8)
    padded[: len(data)] = data
    words: Hashes = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded, strides=(1,))
    hashes = _mixed(lengths.astype(np.uint64), key)
    for done, rows in _rounds(lengths):
        word = words[starts[rows] + done]
        left = np.minimum(lengths[rows] - done, 8).astype(np.uint64)
        word &= _ALL_BITS >> (np.uint64(64) - left * np.uint64(8))
        hashes[rows] = _mix(hashes[rows] ^ word)
    for row in np.flatnonzero(lengths > LONG_ID_BYTES).tolist():
        long_id = data[starts[row] : starts[row] + lengths[row]].tobytes()
        hashes[row] = int.from_bytes(
            hashlib.blake2b(long_id, digest_size=8, key=key.to_bytes(8, "big")).digest(), "big"
        )
    return hashes


def _rounds(lengths: Integers) -> Iterator[tuple[int, Integers]]:
    """Byte positions 0, 8, … with the values that reach beyond each; long values are left to a real hash function."""
    short = lengths <= LONG_ID_BYTES
    for done in range(0, LONG_ID_BYTES, 8):
        rows = np.flatnonzero(short & (lengths > done))
        if not len(rows):
            return
        yield done, rows
