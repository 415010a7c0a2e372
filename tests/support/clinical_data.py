"""Real clinical rows as a partitioned dataset: scikit-learn's bundled breast-cancer data, 569 patients, 30 columns.

Column names are those the model was trained with, in the same order; `visit_id` is unique across dates. The layout is
hive-partitioned parquet, `dt=YYYY-MM-DD/part-0.parquet`, with `dt` in the folder name only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ID_COLUMN = "visit_id"
DATES = (date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3))
CHUNK_ROWS = 65_536


@cache
def real_rows() -> pa.Table:
    """The 569 rows: `visit_id`, then the 30 feature columns as float64."""
    from sklearn.datasets import load_breast_cancer

    bundle = load_breast_cancer()
    names = [name.replace(" ", "_") for name in bundle.feature_names]
    return _table(names, np.asarray(bundle.data, dtype=np.float64), first=0)


def feature_columns() -> list[str]:
    """The 30 feature columns in the order the model was trained with."""
    return [name for name in real_rows().column_names if name != ID_COLUMN]


def write_visits(folder: Path, *, dates: Sequence[date] = DATES) -> dict[date, int]:
    """Deal the real rows out over ``dates``; rows per date."""
    table = real_rows()
    written = {}
    for position, day in enumerate(dates):
        share = table.take(pa.array(range(position, table.num_rows, len(dates))))
        pq.write_table(share, _part(folder, day, 0))
        written[day] = share.num_rows
    return written


def write_generated_visits(
    folder: Path,
    *,
    rows: int,
    seed: int,
    day: date = DATES[0],
    rows_per_file: int = 1_000_000,
    row_group_rows: int = CHUNK_ROWS,
) -> list[Path]:
    """Write ``rows`` rows of one date, drawn from the real ones with 1 % seeded jitter; the files in order.

    The same arguments give the same rows. Memory is bounded by :data:`CHUNK_ROWS`, not by ``rows``.
    """
    generator = np.random.default_rng(seed)
    files = []
    for number, start in enumerate(range(0, rows, rows_per_file)):
        files.append(_part(folder, day, number))
        with pq.ParquetWriter(files[-1], real_rows().schema) as writer:
            for chunk in _jittered(generator, start, min(start + rows_per_file, rows)):
                writer.write_table(chunk, row_group_size=row_group_rows)
    return files


def _jittered(generator: np.random.Generator, start: int, stop: int) -> Iterator[pa.Table]:
    names = feature_columns()
    source = np.column_stack([real_rows()[name].to_numpy() for name in names])
    for first in range(start, stop, CHUNK_ROWS):
        count = min(CHUNK_ROWS, stop - first)
        drawn = source[generator.integers(0, len(source), count)]
        yield _table(names, drawn * generator.normal(1.0, 0.01, drawn.shape), first=first)


def _table(names: Sequence[str], values: np.ndarray, *, first: int) -> pa.Table:
    ids = pa.array([f"V{number:09d}" for number in range(first, first + len(values))])
    columns = [pa.array(np.ascontiguousarray(values[:, position])) for position in range(len(names))]
    return pa.table([ids, *columns], names=[ID_COLUMN, *names])


def _part(folder: Path, day: date, number: int) -> Path:
    path = folder / f"dt={day.isoformat()}" / f"part-{number}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
