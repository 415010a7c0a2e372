"""Memory follows the settings, not the dataset. Measured in fresh processes, as growth over what imports need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.adapters.datasets.data import write_text

ROWS = 1_000_000

MEASURE = """
import json, sys
import pyarrow.csv, pyarrow.compute, pyarrow.parquet, orjson
from airflow_provider_ai.adapters.datasets import DatasetReader, csv, hashing, jsonl, parquet, plan_dataset
from airflow_provider_ai.core.config import InputSettings
from airflow_provider_ai.core.rowset import RowSet

def peak_mib():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024

uri, target = sys.argv[1], int(sys.argv[2])
base = peak_mib()
manifest = plan_dataset(InputSettings(uri=uri, id_column="id", rows_per_partition=target), needed_columns=None)
planned = peak_mib() - base
rows = sum(len(block.rows) for part in manifest.partitions
           for block in DatasetReader().blocks(manifest, part, done=RowSet(part.rows)))
result = {"planned": planned, "read": peak_mib() - base, "rows": rows, "partitions": len(manifest.partitions)}
print(json.dumps(result | {"manifest_bytes": len(manifest.to_json())}))
"""


def measured(uri: Path, rows_per_partition: int = 100_000) -> dict[str, Any]:
    """Peak growth in MiB after planning, and after reading everything too."""
    command = [sys.executable, "-c", MEASURE, str(uri), str(rows_per_partition)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    print(done.stdout)
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["read"] >= result["planned"] > 1, "the measurement measures nothing"
    return result


@pytest.mark.parametrize("id_type", [pa.int64(), pa.string()], ids=str)
def test_one_row_group_of_millions_of_rows(tmp_path: Path, id_type: pa.DataType) -> None:
    """Read as one partition, so that each row is decoded once."""
    numbers = pa.array(np.random.default_rng(1).permutation(ROWS))
    notes = pc.binary_join_element_wise("a note about visit", numbers.cast(pa.string()), " ")
    table = pa.table({"id": numbers.cast(id_type), "note": notes, "x": np.zeros(ROWS)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=ROWS)
    result = measured(tmp_path, ROWS)
    assert (result["rows"], result["partitions"]) == (ROWS, 1)
    assert result["planned"] < 95
    assert result["read"] < 120


def test_wide_text(tmp_path: Path) -> None:
    """200 MB of text in one row group: blocks hold 8 MB of it."""
    schema = pa.schema([("id", pa.int64()), ("note", pa.string())])
    note = "lorem ipsum " * 3_400
    with pq.ParquetWriter(tmp_path / "a.parquet", schema, use_dictionary=False) as writer:
        table = pa.table({"id": range(5_000), "note": [f"{n} {note}" for n in range(5_000)]}, schema=schema)
        writer.write_table(table, row_group_size=5_000)
    result = measured(tmp_path)
    assert result["rows"] == 5_000
    assert result["read"] < 180


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_files(tmp_path: Path, kind: str) -> None:
    rows = 150_000
    row = "{},some text that is the same in every row,1.5" if kind == "csv" else '{{"id":{},"t":"some text","x":1.5}}'
    header = ["id,t,x"] if kind == "csv" else []
    write_text(tmp_path / f"a.{kind}", "\n".join([*header, *(row.format(n) for n in range(rows))]))
    result = measured(tmp_path, rows)
    assert result["rows"] == rows
    assert result["read"] < 150


def test_ten_thousand_files(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05d}.jsonl").write_text(f'{{"id":{2 * number},"t":"x"}}\n{{"id":{2 * number + 1}}}\n')
    result = measured(tmp_path, 1_000)
    assert (result["rows"], result["partitions"]) == (20_000, 20)
    assert result["read"] < 60
    assert result["manifest_bytes"] < 3_000_000
