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
        if isinstance(rows, np.ndarray):
            self._check(rows.min(initial=0), rows.max(initial=0) if len(rows) else -1)
            self._mask[rows] = True
            return
        for row in rows:
            self._check(row, row)
            self._mask[row] = True

    def add_range(self, start: int, end: int) -> None:
        """Add the rows ``[start, end)``."""
        self._check(start, end - 1)
        self._mask[start:end] = True

    def discard_range(self, start: int, end: int) -> None:
        """Remove the rows ``[start, end)``, members or not."""
        self._mask[start:end] = False

    def discard(self, rows: Iterable[int]) -> None:
        """Remove row numbers, members or not."""
        for row in rows:
            self._mask[row] = False

    def update(self, other: RowSet) -> None:
        """Add all members of another set of the same partition."""
        self._mask |= other._mask

    def __len__(self) -> int:
        return int(self._mask.sum())

    def __contains__(self, row: int) -> bool:
        return bool(self._mask[row])

    def covers(self, start: int, end: int) -> bool:
        """Whether every row of ``[start, end)`` is a member."""
        return bool(self._mask[start:end].all())

    def mask(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """For each of the row numbers, whether it is a member."""
        picked: npt.NDArray[np.bool_] = self._mask[rows]
        return picked

    def members(self) -> npt.NDArray[np.int64]:
        """The member rows, ascending."""
        return np.flatnonzero(self._mask)

    def missing(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """The rows of ``[start, end)`` that are not members, ascending."""
        return np.flatnonzero(~self._mask[start:end]) + start

    def ranges(self) -> list[tuple[int, int]]:
        """The members as maximal ranges ``[start, end)``, ascending: what a segment footer stores."""
        outside = np.zeros(1, dtype=np.int8)
        edges = np.diff(np.concatenate((outside, self._mask.view(np.int8), outside)))
        return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))

    def _check(self, least: int, most: int) -> None:
        if least < 0 or most >= self.size:
            raise IndexError(f"row numbers must be in [0, {self.size}), got {least} to {most}")
