"""Arrow arrays from Python values and NumPy, without ``pa.array`` and ``pa.scalar``.

Those import pandas on their first call: 40 MB and half a second of CPU, in the middle of a run, for nothing. What is
rare (nested objects, numbers of mixed kinds, integers beyond 64 bits) is left to ``pa.array`` all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS = {float: np.float64, int: np.int64}


def int64_array(values: npt.NDArray[np.int64]) -> pa.Array:
    """NumPy to Arrow without a copy."""
    import pyarrow as pa

    return number_array(values, pa.int64())


def int64_from(values: Iterable[int], count: int) -> pa.Array:
    """``count`` Python integers; OverflowError beyond 64 bits."""
    return int64_array(np.fromiter(values, np.int64, count))


def number_array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """NumPy numbers as an Arrow type whose values have the same width (``int64`` as a timestamp, too)."""
    import pyarrow as pa

    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def text_array(values: Sequence[str]) -> pa.Array:
    """Text; UnicodeEncodeError for a lone surrogate."""
    return _text([value.encode() for value in values], None)


def repeated_text(value: str, count: int) -> pa.Array:
    """The same text ``count`` times."""
    import pyarrow as pa

    return pa.repeat(text_array([value])[0], count)


def bool_array(values: npt.NDArray[np.bool_]) -> pa.Array:
    """NumPy booleans, for example a filter's mask."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bitmap(values)])


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column of numbers without nulls."""
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int64)


def array_of(values: Sequence[Any]) -> pa.Array:
    """Typed by its values, as ``pa.array(values)`` does, with the same errors."""
    import pyarrow as pa

    kinds = set(map(type, values))
    missing = type(None) in kinds
    kinds.discard(type(None))
    kind = kinds.pop() if len(kinds) == 1 else None
    valid = np.fromiter((value is not None for value in values), np.bool_, len(values)) if missing else None
    try:
        if kind in _NUMBERS:
            filled = (0 if value is None else value for value in values) if missing else values
            return _numbers(np.fromiter(filled, _NUMBERS[kind], len(values)), valid)
        if kind is str:
            return _text([b"" if value is None else value.encode() for value in values], valid)
        if kind is list and not missing:
            return _lists(values)
    except (OverflowError, UnicodeEncodeError):
        pass  # pa.array decides what such values are
    return pa.array(values)


def _numbers(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None) -> pa.Array:
    import pyarrow as pa

    kind = pa.float64() if values.dtype == np.float64 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [_bitmap(valid), pa.py_buffer(values)])


def _text(encoded: Sequence[bytes], valid: npt.NDArray[np.bool_] | None) -> pa.Array:
    import pyarrow as pa

    buffers = [_bitmap(valid), pa.py_buffer(_offsets(encoded, np.int64)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers).cast(pa.string())


def _lists(values: Sequence[list[Any]]) -> pa.Array:
    import pyarrow as pa

    items = array_of(list(chain.from_iterable(values)))
    return pa.ListArray.from_arrays(number_array(_offsets(values, np.int32), pa.int32()), items)


def _offsets(values: Sequence[Any], width: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    offsets = np.zeros(len(values) + 1, dtype=width)
    np.cumsum(np.fromiter(map(len, values), dtype=width, count=len(values)), out=offsets[1:])
    return offsets


def _bitmap(valid: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    import pyarrow as pa

    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
