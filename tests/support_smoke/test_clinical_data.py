"""The clinical rows: real ones dealt out over dates, generated ones that repeat."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tests.support import clinical_data


def test_every_real_row_is_in_exactly_one_date(tmp_path: Path) -> None:
    """569 patients over three hive partitions, ids unique across them, 30 features beside the id."""
    written = clinical_data.write_visits(tmp_path)
    table = ds.dataset(tmp_path, partitioning="hive").to_table()
    assert list(written.values()) == [190, 190, 189]
    assert table.num_rows == len(set(table["visit_id"].to_pylist())) == 569
    assert table.column_names == ["visit_id", *clinical_data.feature_columns(), "dt"]
    assert len(clinical_data.feature_columns()) == 30


def test_generated_rows_repeat_with_their_seed(tmp_path: Path, seed: int) -> None:
    """The same seed gives the same bytes of data; another seed gives other rows; ids go on from file to file."""

    def generate(name: str, seed: int) -> pa.Table:
        files = clinical_data.write_generated_visits(
            tmp_path / name, rows=2_500, seed=seed, day=date(2026, 3, 9), rows_per_file=1_000, row_group_rows=300
        )
        assert [file.parent.name for file in files] == ["dt=2026-03-09"] * 3
        assert pq.ParquetFile(files[0]).num_row_groups == 4
        return pa.concat_tables(pq.ParquetFile(file).read() for file in files)

    first, again, other = generate("first", seed), generate("again", seed), generate("other", seed + 1)
    assert first.equals(again)
    assert not first.equals(other)
    assert first.schema == clinical_data.real_rows().schema
    assert len(set(first["visit_id"].to_pylist())) == first.num_rows == 2_500
