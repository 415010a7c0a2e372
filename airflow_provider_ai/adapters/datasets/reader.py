"""Reads the rows of a planned partition, those that are done left out.

A file is opened only when it has a row to give, and only if it is still the file that was planned: size, version
and entity tag are compared first, so a rewritten input is an error and not a mix of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from airflow_provider_ai.adapters.datasets.columns import require_column
from airflow_provider_ai.adapters.datasets.formats import BlockBounds, DataFile, Window
from airflow_provider_ai.adapters.datasets.listing import current_version, entity_tag
from airflow_provider_ai.adapters.datasets.registry import file_format
from airflow_provider_ai.adapters.filesystems import open_filesystem
from airflow_provider_ai.core.config import StorageOptions, require
from airflow_provider_ai.core.manifest import Manifest, Partition, SourceFile
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import InputChangedError, UnreadableFileError


class DatasetReader:
    """Implements :class:`~airflow_provider_ai.core.ports.PartitionReader`.

    :param columns: columns of the records besides the id, which is always there; ``None`` for all
    :param block_rows: most rows of a block
    :param block_bytes: about how much data a block holds; wide rows make smaller blocks, of one row at least
    """

    def __init__(
        self,
        options: StorageOptions | None = None,
        *,
        columns: Sequence[str] | None = None,
        block_rows: int = 4096,
        block_bytes: int = 8 << 20,
    ) -> None:
        require(block_rows >= 1, "block_rows must be an integer ≥ 1", block_rows)
        require(block_bytes >= 1, "block_bytes must be an integer ≥ 1", block_bytes)
        self._options = options
        self._columns = columns
        self._bounds = BlockBounds(rows=block_rows, bytes=block_bytes)

    def blocks(self, manifest: Manifest, partition: Partition, *, done: RowSet) -> Iterator[RowBlock]:
        """The rows that are not in ``done``, in order. Values are Python objects, a column the file lacks is None.

        :raises InputChangedError: a file is not the one that was planned
        :raises MissingColumnError: a column is not in the plan
        """
        if done.size != partition.rows:
            raise ValueError(f"done must be a set over the partition's {partition.rows} rows, got one over {done.size}")
        columns = self._record_columns(manifest)
        filesystem, _ = open_filesystem(manifest.input_uri, self._options)
        base = 0
        for piece in partition.slices:
            window = Window(start=piece.start, end=piece.end, base=base, done=done).narrowed()
            base += piece.rows
            if window:
                planned = manifest.files[piece.file]
                yield from self._rows(DataFile(filesystem, planned.path), planned, manifest, columns, window)

    def _record_columns(self, manifest: Manifest) -> tuple[str, ...]:
        planned = [name for name, _ in manifest.schema]
        for name in self._columns or ():
            require_column(name, planned, where=f"the plan of {manifest.input_uri}", role="asked for")
        return tuple(dict.fromkeys((manifest.id_column, *(planned if self._columns is None else self._columns))))

    def _rows(
        self, file: DataFile, planned: SourceFile, manifest: Manifest, columns: Sequence[str], window: Window
    ) -> Iterator[RowBlock]:
        folders = {key: text for key, text in planned.partition_values if key in columns and key != manifest.id_column}
        own = [name for name in columns if name not in folders]
        _require_unchanged(file, planned)
        blocks = file_format(manifest.format).read(file, own, dict(manifest.schema), window, self._bounds)
        try:
            for block in blocks:
                yield _with_folders(block, folders) if folders else block
        except UnreadableFileError:
            _require_unchanged(file, planned)  # rewritten under our eyes is the better explanation
            raise


def _require_unchanged(file: DataFile, planned: SourceFile) -> None:
    now = current_version(file.filesystem, file.path)
    same = now == (planned.size, planned.version)
    if same and (not planned.etag or entity_tag(file.filesystem, file.path) == planned.etag):
        return
    what = "was removed" if now is None else "was modified"
    raise InputChangedError(
        f"{file.path} {what} after it was planned. A retry cannot help: put it back, or run with verb recompute to "
        "plan again"
    )


def _with_folders(block: RowBlock, folders: Mapping[str, str]) -> RowBlock:
    return RowBlock(block.rows, [{**record, **folders} for record in block.records])
