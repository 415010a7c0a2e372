"""What a file format has to offer, and what it is given: the seam between planning, reading and the formats.

A format opens one file at a time and keeps a bounded part of it in memory. Errors name the file, the column and the
row, never a value: what a parser says about a value is dropped, not passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import InputChangedError, UnreadableFileError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

Rows = npt.NDArray[np.int64]
LOOK_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file to open. ``path`` is inside ``filesystem``."""

    filesystem: FileSystem
    path: str


@dataclass(frozen=True, slots=True)
class IdBatch:
    """Some ids of a file: ``values[i]`` is the id of row ``rows[i]`` of the file; null where the row has none."""

    rows: Rows
    values: pa.Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What planning learns of one file.

    :param columns: column name → its kind, in the format's own terms; in file order
    """

    rows: int
    row_groups: tuple[int, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockBounds:
    """How much of a file is turned into Python objects at once: ``rows``, and about so many ``bytes`` of data."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The rows ``[start, end)`` of a file, which are the rows ``base…`` of a partition, some of them done."""

    start: int
    end: int
    base: int
    done: RowSet

    def finished(self, start: int, end: int) -> bool:
        """Whether no row of the file's ``[start, end)`` is asked for."""
        a, b = self._clip(start, end)
        return a >= b or self.done.covers(a, b)

    def pending(self, start: int, end: int) -> Rows:
        """The rows of the file's ``[start, end)`` that are asked for, ascending."""
        a, b = self._clip(start, end)
        return self.done.missing(a, max(a, b)) + (self.start - self.base)

    def numbers(self, rows: Rows) -> list[int]:
        """Row numbers of the partition for rows of the file."""
        return list((rows + (self.base - self.start)).tolist())

    def narrowed(self) -> Window | None:
        """The window from its first to its last pending row; None when none is pending."""
        chunks = range(self.start, self.end, LOOK_ROWS)
        first = next((rows[0] for at in chunks if len(rows := self.pending(at, at + LOOK_ROWS))), None)
        last = next((rows[-1] for at in reversed(chunks) if len(rows := self.pending(at, at + LOOK_ROWS))), None)
        if first is None or last is None:
            return None
        start = int(first)
        return Window(start=start, end=int(last) + 1, base=self.base + start - self.start, done=self.done)

    def _clip(self, start: int, end: int) -> tuple[int, int]:
        shift = self.base - self.start
        return max(start, self.start) + shift, min(end, self.end) + shift


class FileFormat(Protocol):
    """One file format. Stateless."""

    def scan(self, file: DataFile, id_column: str, take: Callable[[IdBatch], None]) -> FileFacts:
        """Go through the file once, reading no more than planning needs, and hand every id to ``take``.

        A file without the id column gives no ids; the caller decides what that means.
        """
        ...

    def widen(self, one: Any, other: Any) -> Any | None:
        """The kind that holds every value of both kinds unchanged; None when there is none."""
        ...

    def describe(self, kind: Any) -> str:
        """The kind as the manifest records it."""
        ...

    def holds(self, file: DataFile, column: str, own: Any, planned: Any) -> bool:
        """Whether the column's values, of kind ``own``, are really unchanged as kind ``planned``."""
        ...

    def read(
        self, file: DataFile, columns: Sequence[str], kinds: Mapping[str, str], window: Window, bounds: BlockBounds
    ) -> Iterator[RowBlock]:
        """The pending rows of a window that is neither empty nor done at its ends, with these columns, in order.

        :param kinds: column name → kind as the manifest records it; columns the file lacks are None
        """
        ...


def row_range(start: int, count: int) -> Rows:
    """The row numbers ``start, start + 1, …``."""
    return np.arange(start, start + count, dtype=np.int64)


def steps(rows: int, size_bytes: int, bounds: BlockBounds) -> Iterator[tuple[int, int]]:
    """Cut ``rows`` rows of together ``size_bytes`` into ranges ``[start, end)`` within the bounds."""
    by_size = rows * bounds.bytes // max(size_bytes, 1)
    step = max(1, min(bounds.rows, by_size))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def blocks_of(numbers: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> RowBlock:
    """A block from its columns. Made in C, column by column: 0.1 µs a field."""
    rows = zip(*columns.values(), strict=True)
    return RowBlock(numbers, list(map(dict, map(zip, repeat(tuple(columns)), rows))))


@contextmanager
def unreadable(path: str, reason: str) -> Iterator[None]:
    """Turn a parser's complaint into :class:`UnreadableFileError` with a fixed reason.

    Trouble of the storage itself (an error number, an answer of S3) passes: it is not the file's, and a retry may help.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, UnicodeDecodeError):
        raise UnreadableFileError(f"{path}: {reason}") from None
    except FileNotFoundError:
        raise InputChangedError(f"{path}: removed while the dataset was being read; plan again") from None
    except PermissionError:
        raise UnreadableFileError(f"{path}: no permission to read it") from None
    except OSError as error:
        if error.errno is not None or "AWS Error" in str(error):
            raise
        raise UnreadableFileError(f"{path}: {reason}") from None
