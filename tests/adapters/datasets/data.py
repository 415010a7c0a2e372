"""Datasets for the tests, and short ways to plan and read them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_ai.adapters.datasets import DatasetReader, plan_dataset
from airflow_provider_ai.core.config import InputSettings
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.rowset import RowSet


def write_parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """A Parquet file of these columns; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def write_text(path: Path, text: str) -> Path:
    """A text file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def settings_of(path: Path | str, **changes: Any) -> InputSettings:
    """Settings with the id column ``id``."""
    return InputSettings(**{"uri": str(path), "id_column": "id", **changes})


def plan(path: Path | str, *, needed: tuple[str, ...] | None = None, **changes: Any) -> Manifest:
    """The plan of a dataset whose id column is ``id``."""
    return plan_dataset(settings_of(path, **changes), needed_columns=needed)


def records(
    manifest: Manifest, *, done: Mapping[int, Iterable[int]] | None = None, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """All records of all partitions that are not done, in order; checks that row numbers ascend."""
    reader = DatasetReader(columns=columns)
    found: list[dict[str, Any]] = []
    for part in manifest.partitions:
        finished = RowSet(part.rows, (done or {}).get(part.index, ()))
        rows: list[int] = []
        for block in reader.blocks(manifest, part, done=finished):
            assert len(block.rows) == len(block.records) > 0
            rows += block.rows
            found += map(dict, block.records)
        assert rows == finished.missing(0, part.rows).tolist()
    return found


def names(manifest: Manifest) -> list[str]:
    """The file names of a plan, in order."""
    return [Path(file.path).name for file in manifest.files]


def touch_later(path: Path, seconds: int = 10) -> None:
    """Give a file a later modification time and nothing else."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 1_000_000_000))
