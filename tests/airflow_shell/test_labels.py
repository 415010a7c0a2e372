"""What a mapped task is called in the grid."""

from __future__ import annotations

import pytest

from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.operators.labels import partition_labels


def manifest(paths: dict[str, int], *partitions: list[tuple[int, int, int]]) -> Manifest:
    """``paths``: file → rows; each partition is a list of (file, start, end)."""
    return Manifest(
        input_uri="lake",
        format="parquet",
        id_column="id",
        schema=(),
        files=tuple(SourceFile(path=path, size=1, version="1", rows=rows) for path, rows in paths.items()),
        partitions=tuple(
            Partition(index=i, slices=tuple(FileSlice(file=f, start=a, end=b) for f, a, b in slices))
            for i, slices in enumerate(partitions)
        ),
        listing="1",
    )


@pytest.mark.parametrize(
    ("paths", "slices", "label"),
    [
        ({"lake/visits.parquet": 190}, [(0, 0, 190)], "visits.parquet (190)"),  # a whole file
        ({"lake/dt=2026-01-01/p.csv": 190}, [(0, 0, 190)], "dt=2026-01-01/p.csv (190)"),
        (
            {"lake/dt=2026-01-01/p.parquet": 250_000},
            [(0, 0, 100_000)],
            "dt=2026-01-01/p.parquet rows 0–99,999 (100,000)",
        ),
        (
            {"a/1.csv": 10, "a/2.csv": 10, "a/3.csv": 10},
            [(0, 0, 10), (1, 0, 10), (2, 0, 5)],
            "1.csv … 3.csv (3 files, 25)",
        ),
        (
            {"a/dt=1/1.csv": 10, "a/dt=1/2.csv": 10, "a/dt=2/1.csv": 10},
            [(0, 0, 10), (1, 0, 10)],
            "dt=1/1.csv … 2.csv (2 files, 20)",  # the folder once
        ),
        (
            {"a/dt=1/1.csv": 10, "a/dt=1/2.csv": 10, "a/dt=2/1.csv": 10},
            [(1, 0, 10), (2, 0, 10)],
            "dt=1/2.csv … dt=2/1.csv (2 files, 20)",
        ),
    ],
)
def test_labels(paths: dict[str, int], slices: list[tuple[int, int, int]], label: str) -> None:
    """Files and rows, with the count a person wants to see."""
    assert partition_labels(manifest(paths, slices)) == [label]


def test_long_names_fit_into_airflows_column() -> None:
    """Airflow keeps 250 characters; the end of a name tells files apart."""
    paths = {f"lake/dt=2026-01-01/{'x' * 300}-{number}.parquet": 10 for number in (1, 2)}
    both = manifest(paths, [(0, 0, 10), (1, 0, 10)], [(1, 2, 5)])
    labels = partition_labels(both)
    assert all(len(label) <= 250 for label in labels)
    assert "-1.parquet" in labels[0]
    assert labels[1].startswith("…")
