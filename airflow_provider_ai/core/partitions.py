"""The Splitter: which rows make which partition. Pure: facts about files in, partitions out.

Invariants, whatever the files: every row is in exactly one partition, partitions follow the order of the files and of
the rows in them, there are at most ``max_partitions``, and the same files give the same partitions.

A partition holds about ``rows_per_partition`` rows. Cuts are made between row groups, because a reader can skip a row
group but not part of one; only a row group (or a file that has none) of more than 1.5 × the target is cut inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from airflow_provider_ai.core.manifest import FileSlice, Partition, SourceFile


def plan_partitions(
    files: Sequence[SourceFile], *, rows_per_partition: int, max_partitions: int
) -> tuple[Partition, ...]:
    """Split the rows of ``files`` into partitions; empty when there is no row.

    Where the cap is not in the way, a partition has more than a quarter of ``rows_per_partition`` rows (the last one
    may have fewer) and at most 1.75 times as many. With the cap, the same holds of the larger target that meets it.
    """
    if rows_per_partition < 1 or max_partitions < 1:
        raise ValueError(
            f"rows_per_partition and max_partitions must be ≥ 1, got {rows_per_partition}, {max_partitions}"
        )
    target = max(rows_per_partition, -(-sum(file.rows for file in files) // max_partitions))
    while True:
        packed = _pack(files, target)
        if len(packed) <= max_partitions:
            return tuple(Partition(index=i, slices=_join(pieces)) for i, pieces in enumerate(packed))
        target = max(target + 1, -(-target * len(packed) // max_partitions))


def _pack(files: Sequence[SourceFile], target: int) -> list[list[FileSlice]]:
    """Pieces in order, closed as near to the target as their sizes allow."""
    packed: list[list[FileSlice]] = []
    current: list[FileSlice] = []
    rows = 0
    for piece in _pieces(files, target):
        if current and rows + piece.rows - target > target - rows:
            packed.append(current)
            current, rows = [], 0
        current.append(piece)
        rows += piece.rows
        if rows >= target:
            packed.append(current)
            current, rows = [], 0
    if current:
        packed.append(current)
    return _without_small_tail(packed, target)


def _without_small_tail(packed: list[list[FileSlice]], target: int) -> list[list[FileSlice]]:
    """A last partition of a few rows is not worth a task: it joins its neighbour while that stays within bounds."""
    if (
        len(packed) > 1
        and 4 * _rows(packed[-1]) <= target
        and 4 * (_rows(packed[-2]) + _rows(packed[-1])) <= 7 * target
    ):
        return [*packed[:-2], packed[-2] + packed[-1]]
    return packed


def _rows(pieces: Iterable[FileSlice]) -> int:
    return sum(piece.rows for piece in pieces)


def _pieces(files: Sequence[SourceFile], target: int) -> Iterator[FileSlice]:
    """The smallest units: row groups, and near-equal cuts of those larger than 1.5 × the target."""
    for number, file in enumerate(files):
        start = 0
        for group in file.row_groups or (file.rows,):
            count = max(1, round(group / target)) if 2 * group > 3 * target else 1
            edges = [start + group * cut // count for cut in range(count + 1)]
            yield from (FileSlice(file=number, start=a, end=b) for a, b in pairwise(edges) if b > a)
            start += group


def _join(pieces: Iterable[FileSlice]) -> tuple[FileSlice, ...]:
    """Adjacent pieces of one file as one slice."""
    joined: list[FileSlice] = []
    for piece in pieces:
        if joined and joined[-1].file == piece.file and joined[-1].end == piece.start:
            joined[-1] = FileSlice(file=piece.file, start=joined[-1].start, end=piece.end)
        else:
            joined.append(piece)
    return tuple(joined)
