"""The input of a fault test: records whose ids and text are secrets, so that one that leaks is found by its name."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SECRETS = ("visit-secret-", "canary-note-")
_ROW_GROUP = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Records ``[0, rows)`` in ``files`` parquet files of one folder.

    :param numbers: ids are integers instead of text
    :param version: of the contents; another one gives other rows under other ids
    """

    folder: Path
    rows: int
    files: int = 2
    numbers: bool = False
    version: int = 0

    @property
    def ids(self) -> list[int | str]:
        """All ids in order."""
        first = self.version * 1_000_000
        numbers = range(first, first + self.rows)
        return list(numbers) if self.numbers else [f"{SECRETS[0]}{number:07d}" for number in numbers]

    @property
    def paths(self) -> list[Path]:
        """The files in order."""
        return [self.folder / f"visits-{at:02d}.parquet" for at in range(self.files)]

    @property
    def sources(self) -> dict[int | str, tuple[str, int]]:
        """Where each record stands: file and row in it."""
        found: dict[int | str, tuple[str, int]] = {}
        for path, (start, end) in zip(self.paths, self._bounds, strict=True):
            found |= {key: (str(path), row) for row, key in enumerate(self.ids[start:end])}
        return found

    def write(self) -> Dataset:
        """Write the files, replacing what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, (start, end) in zip(self.paths, self._bounds, strict=True):
            pq.write_table(self._table(start, end), path, row_group_size=_ROW_GROUP)
        return self

    @property
    def _bounds(self) -> list[tuple[int, int]]:
        edges = [self.rows * at // self.files for at in range(self.files + 1)]
        return list(pairwise(edges))

    def _table(self, start: int, end: int) -> pa.Table:
        ids = self.ids[start:end]
        notes = [f"{SECRETS[1]}{number}" for number in range(start, end)]
        return pa.table({"visit_id": ids, "a": [float(n) for n in range(start, end)], "note": notes})
