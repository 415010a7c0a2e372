"""Files may differ in their columns where nothing is lost; where something would be, the plan is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_ai.adapters.datasets.parquet import ParquetFormat
from airflow_provider_ai.exceptions import InputError
from tests.adapters.datasets.data import plan, records, write_parquet, write_text

NS, US = pa.timestamp("ns"), pa.timestamp("us")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.int32(), pa.uint32(), pa.int64()),
        (pa.int64(), pa.uint64(), None),  # no integer holds both
        (pa.int32(), pa.uint64(), None),
        (pa.uint8(), pa.uint64(), pa.uint64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.string(), pa.binary(), None),  # bytes are not text
        (pa.string(), pa.int64(), None),
        (pa.bool_(), pa.int64(), None),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.decimal128(10, 2), pa.float64(), None),
        (US, NS, NS),
        (US, pa.timestamp("us", "UTC"), None),
        (US, pa.date32(), None),
        (pa.list_(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.list_(pa.int32()), pa.list_(pa.string()), None),
        (pa.list_(pa.int32()), pa.int32(), None),
        (
            pa.struct([("a", pa.int32())]),
            pa.struct([("b", pa.string())]),
            pa.struct([("a", pa.int32()), ("b", pa.string())]),
        ),
    ],
    ids=str,
)
def test_parquet_types_widen(one: pa.DataType, other: pa.DataType, both: pa.DataType | None) -> None:
    assert ParquetFormat().widen(one, other) == both
    assert (ParquetFormat().widen(other, one) is None) is (both is None)


def two_files(folder: Path, first: Any, second: Any) -> Path:
    write_parquet(folder / "a.parquet", {"id": ["a"], "v": first})
    write_parquet(folder / "b.parquet", {"id": ["b"], "v": second})
    return folder


def test_integers_among_floats_are_read_as_floats(tmp_path: Path) -> None:
    manifest = plan(two_files(tmp_path, [3], [0.5]))
    assert manifest.schema[1] == ("v", "double")
    values = [record["v"] for record in records(manifest)]
    assert [(value, type(value)) for value in values] == [(3.0, float), (0.5, float)]


def test_integers_that_a_float_would_round_are_refused(tmp_path: Path) -> None:
    assert plan(two_files(tmp_path, [2**53], [0.5])).rows == 2
    with pytest.raises(InputError) as caught:
        plan(two_files(tmp_path, [2**53 + 1], [0.5]))
    message = str(caught.value)
    assert f"column 'v' is int64 in {tmp_path}/a.parquet but double in other files" in message
    assert str(2**53 + 1) not in message


def test_types_that_nothing_holds_name_column_files_and_types(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        plan(two_files(tmp_path, [3], ["text"]))
    expected = f"column 'v' is int64 in {tmp_path}/a.parquet but string in {tmp_path}/b.parquet"
    assert expected in str(caught.value)


def test_columns_nobody_reads_may_differ(tmp_path: Path) -> None:
    manifest = plan(two_files(tmp_path, [3], ["text"]), needed=())
    assert manifest.schema == (("id", "string"), ("v", "mixed"))
    assert records(manifest, columns=()) == [{"id": "a"}, {"id": "b"}]


def test_the_conflict_is_found_beyond_equal_files(tmp_path: Path) -> None:
    for n in range(5):
        write_parquet(tmp_path / f"{n}.parquet", {"id": [n], "v": [1]})
    write_parquet(tmp_path / "9.parquet", {"id": [9], "v": [True]})
    with pytest.raises(InputError, match=r"int64 in .*/0\.parquet but bool in .*/9\.parquet"):
        plan(tmp_path)


def test_an_id_of_two_types_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": [1]})
    write_parquet(tmp_path / "b.parquet", {"id": ["1"]})
    with pytest.raises(InputError, match="column 'id' is int64"):
        plan(tmp_path, needed=())


def test_csv_files_agree_on_text_in_the_end(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "id,v,w,x\n1,1,1,\n")
    write_text(tmp_path / "b.csv", "id,v,w,x\nb,1.5,true,7\n")
    manifest = plan(tmp_path)
    assert manifest.schema == (("id", "string"), ("v", "double"), ("w", "string"), ("x", "int64"))
    assert records(manifest) == [{"id": "1", "v": 1.0, "w": "1", "x": None}, {"id": "b", "v": 1.5, "w": "true", "x": 7}]


def test_json_lines_hand_values_on_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "a.jsonl", '{"id":"a","v":1}\n')
    write_text(tmp_path / "b.jsonl", '{"id":"b","v":1.5,"w":[{"x":null}]}\n{"id":"c","v":"t"}\n')
    manifest = plan(tmp_path)
    assert manifest.schema == (("id", "string"), ("v", "json"), ("w", "json"))
    assert [record["v"] for record in records(manifest)] == [1, 1.5, "t"]
