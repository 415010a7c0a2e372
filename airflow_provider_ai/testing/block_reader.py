"""Records that a test holds in a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_ai.core.manifest import Manifest, Partition
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.core.rowset import RowSet


class BlockReader:
    """Reads the records of ``files`` (one sequence a file, in the manifest's order) in blocks of ``block_rows``."""

    def __init__(self, files: Sequence[Sequence[Mapping[str, Any]]], *, block_rows: int = 1000) -> None:
        self._files = files
        self._block_rows = block_rows

    def blocks(self, manifest: Manifest, partition: Partition, *, done: RowSet) -> Iterator[RowBlock]:
        """The partition's rows that are not in ``done``, in order."""
        records = [record for piece in partition.slices for record in self._files[piece.file][piece.start : piece.end]]
        rows = [row for row in range(len(records)) if row not in done]
        for start in range(0, len(rows), self._block_rows):
            block = rows[start : start + self._block_rows]
            yield RowBlock(block, [records[row] for row in block])
