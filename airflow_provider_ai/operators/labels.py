"""What a person reads in Airflow's grid instead of a map index: file names and row numbers, never data."""

from __future__ import annotations

from pathlib import PurePosixPath

from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition

LONGEST_NAME = 80  # Airflow keeps 250 characters of a label


def partition_labels(manifest: Manifest) -> list[str]:
    """One label per partition, in order, e.g. ``dt=2026-01-01/part-0.parquet rows 0–99,999 (100,000)``."""
    return [_label(manifest, partition) for partition in manifest.partitions]


def _label(manifest: Manifest, partition: Partition) -> str:
    first, last = partition.slices[0], partition.slices[-1]
    if first.file != last.file:
        files = len({piece.file for piece in partition.slices})
        start, end = _name(manifest, first), _name(manifest, last)
        folder = start.rpartition("/")[0]
        if folder and end.startswith(f"{folder}/"):
            end = end.rpartition("/")[2]
        return f"{start} … {end} ({files:,} files, {partition.rows:,})"
    if partition.rows == manifest.files[first.file].rows:
        return f"{_name(manifest, first)} ({partition.rows:,})"
    return f"{_name(manifest, first)} rows {first.start:,}–{last.end - 1:,} ({partition.rows:,})"


def _name(manifest: Manifest, piece: FileSlice) -> str:
    """The file's name, with its folder where that is a hive partition."""
    path = PurePosixPath(manifest.files[piece.file].path)
    name = f"{path.parent.name}/{path.name}" if "=" in path.parent.name else path.name
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
