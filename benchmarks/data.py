"""Generates the benchmark input: parquet files of visits, seeded, written row group by row group so memory stays flat.

    python -m benchmarks.data --rows 20000 --output /tmp/visits

Columns: `visit_id` int64, 0 to rows - 1; `a` float64 = visit_id + a fraction below one half, so that a server which is
only sent the columns still knows the record; `b` float64 standard normal; optionally `note`, text with `id=<visit_id>`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_WORDS = np.array(["stable", "febrile", "afebrile", "cough", "dyspnea", "denies", "improved", "worse", "discharged"])


def generate(
    folder: Path,
    *,
    rows: int,
    files: int = 1,
    rows_per_group: int = 10_000,
    note_words: int = 0,
    seed: int = 1,
) -> list[Path]:
    """Write `files` parquet files with `rows` rows in all into `folder`, and return them in order.

    The same arguments give the same rows. `note_words` > 0 adds the text column with so many words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bounds = [rows * at // files for at in range(files + 1)]
    paths = [folder / f"visits-{at:05d}.parquet" for at in range(files)]
    for at, path in enumerate(paths):
        _write(path, _groups(bounds[at], bounds[at + 1], rows_per_group, note_words, seed), note_words)
    return paths


def _write(path: Path, groups: Iterator[pa.RecordBatch], note_words: int) -> None:
    with pq.ParquetWriter(path, _schema(note_words), compression="zstd") as writer:
        for group in groups:
            writer.write_batch(group, row_group_size=max(group.num_rows, 1))


def _groups(start: int, stop: int, step: int, note_words: int, seed: int) -> Iterator[pa.RecordBatch]:
    for first in range(start, stop, step):
        yield _group(first, min(first + step, stop), note_words, np.random.default_rng((seed, first)))


def _group(first: int, stop: int, note_words: int, random: np.random.Generator) -> pa.RecordBatch:
    ids = np.arange(first, stop, dtype=np.int64)
    columns = [pa.array(ids), pa.array(ids + random.random(len(ids)) / 2), pa.array(random.standard_normal(len(ids)))]
    if note_words:
        words = _WORDS[random.integers(0, len(_WORDS), (len(ids), note_words))]
        columns.append(pa.array([f"id={key} {' '.join(row)}" for key, row in zip(ids, words, strict=True)]))
    return pa.record_batch(columns, schema=_schema(note_words))


def _schema(note_words: int) -> pa.Schema:
    fields = [("visit_id", pa.int64()), ("a", pa.float64()), ("b", pa.float64())]
    return pa.schema([*fields, ("note", pa.string())] if note_words else fields)


def main(arguments: list[str] | None = None) -> None:
    """Generate from command line arguments and print the files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description="Generate benchmark input.")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--rows-per-group", type=int, default=10_000)
    parser.add_argument("--note-words", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    settings = vars(options)
    for path in generate(settings.pop("output"), **settings):
        print(path)


if __name__ == "__main__":
    main()
