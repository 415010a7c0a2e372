"""A set of row numbers of one partition, dense and small: one byte a row, so 5 million rows cost 5 MB.

Row numbers are positions in the partition, ``[0, size)``, in the order of its slices.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class RowSet:
    """Which rows of a partition have a property (finished, quarantined, …)."""

    __slots__ = ("_mask",)

    def __init__(self, size: int, rows: Iterable[int] = ()) -> None:
        self._mask: npt.NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
        self.add(rows)

    @property
    def size(self) -> int:
        """Rows of the partition, members or not."""
        return len(self._mask)

    def add(self, rows: Iterable[int] | npt.NDArray[np.integer]) -> None:
        """Add row numbers; IndexError when one lies outside ``[0, size)``."""
        index = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, dtype=np.int64)
        if len(index) and (index.min() < 0 or index.max() >= self.size):
            raise IndexError(f"row numbers must be in [0, {self.size})")
        self._mask[index] = True

    def add_range(self, start: int, end: int) -> None:
        """Add the rows ``[start, end)``."""
        if not 0 <= start <= end <= self.size:
            raise IndexError(f"row range must lie in [0, {self.size}), got [{start}, {end})")
        self._mask[start:end] = True

    def discard(self, rows: npt.NDArray[np.integer]) -> None:
        """Remove row numbers, members or not."""
        self._mask[rows] = False

    def __len__(self) -> int:
        return int(self._mask.sum())

    def __contains__(self, row: int) -> bool:
        return bool(self._mask[row])

    def covers(self, start: int, end: int) -> bool:
        """Whether every row of ``[start, end)`` is a member."""
        return bool(self._mask[start:end].all())

    def members(self) -> npt.NDArray[np.int64]:
        """The member rows, ascending."""
        return np.flatnonzero(self._mask)

    def missing(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """The rows of ``[start, end)`` that are not members, ascending."""
        return np.flatnonzero(~self._mask[start:end]) + start

    def ranges(self) -> list[tuple[int, int]]:
        """The members as maximal ranges ``[start, end)``, ascending: what a segment footer stores."""
        edges = np.diff(np.concatenate(([0], self._mask.view(np.int8), [0])))
        return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))
