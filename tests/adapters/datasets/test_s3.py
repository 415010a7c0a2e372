"""The same datasets on S3."""

from __future__ import annotations

import gzip
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_ai.adapters.datasets import (
    DatasetReader,
    listing_digest,
    plan_dataset,
    rewritten_files,
    verify_unchanged,
)
from airflow_provider_ai.core.config import InputSettings, StorageOptions
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import (
    DuplicateIdError,
    EmptyDatasetError,
    InputChangedError,
    NullIdError,
    UnreadableFileError,
)
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack

pytestmark = pytest.mark.real


@pytest.fixture
def options(ministack_server: MiniStack) -> StorageOptions:
    return StorageOptions(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, endpoint_url=ministack_server.url
    )


class Bucket:
    """Puts objects and plans them."""

    def __init__(self, server: MiniStack, name: str, options: StorageOptions) -> None:
        self.client = server.client("s3")
        self.name = name
        self.options = options

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def put_parquet(self, key: str, columns: dict[str, Any], **settings: Any) -> None:
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(pa.table(columns), sink, **settings)
        self.put(key, sink.getvalue().to_pybytes())

    def settings(self, path: str, **changes: Any) -> InputSettings:
        return InputSettings(uri=f"s3://{self.name}/{path}", id_column="id", **changes)

    def plan(self, path: str, **changes: Any) -> Manifest:
        return plan_dataset(self.settings(path, **changes), self.options, needed_columns=None)

    def records(self, manifest: Manifest, done: RowSet | None = None) -> list[dict[str, Any]]:
        reader = DatasetReader(self.options)
        return [
            dict(record)
            for part in manifest.partitions
            for block in reader.blocks(manifest, part, done=done or RowSet(part.rows))
            for record in block.records
        ]


@pytest.fixture
def lake(ministack_server: MiniStack, bucket: str, options: StorageOptions) -> Bucket:
    return Bucket(ministack_server, bucket, options)


def test_a_hive_dataset(lake: Bucket) -> None:
    for day in range(3):
        for part in range(4):
            ids = range(day * 100 + part * 10, day * 100 + part * 10 + 10)
            lake.put_parquet(f"visits/dt=2024-01-0{day + 1}/part {part}.parquet", {"id": ids, "v": [0.5] * 10})
    lake.put("visits/_SUCCESS", b"")
    lake.put("visits/dt=2024-01-01/_tmp/x.parquet", b"junk")
    manifest = lake.plan("visits/", rows_per_partition=50)
    assert (manifest.rows, len(manifest.files), len(manifest.partitions)) == (120, 12, 3)
    found = lake.records(manifest)
    assert found[0] == {"id": 0, "v": 0.5, "dt": "2024-01-01"}
    assert [record["id"] for record in found] == [day * 100 + n for day in range(3) for n in range(40)]
    assert lake.plan("visits/dt=2024-01-02/").rows == 40
    assert lake.plan("visits/*/part [01].parquet").rows == 60
    assert lake.plan("visits/**/*.parquet").listing == manifest.listing


@pytest.mark.parametrize("key", ["Zürich %20/日本 語+&=.parquet", "a#b?c/x.parquet"])
def test_odd_keys(lake: Bucket, key: str) -> None:
    lake.put_parquet(f"odd/{key}", {"id": [1]})
    assert lake.records(lake.plan("odd")) == [{"id": 1}]
    assert lake.records(lake.plan(f"odd/{key}")) == [{"id": 1}]


def test_text_files(lake: Bucket) -> None:
    lake.put("c/a.csv", b"id,v\n1,x\n")
    lake.put("c/b.csv.gz", gzip.compress(b"id,v\n2,y\n"))
    assert lake.records(lake.plan("c")) == [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]
    lake.put("j/a.jsonl", b'{"id":1}\n{"id":2}\n')
    assert lake.records(lake.plan("j")) == [{"id": 1}, {"id": 2}]


def test_a_large_object_is_read_in_parts(lake: Bucket) -> None:
    rows = 300_000
    texts = [f"{n:07d} some text" for n in range(rows)]
    lake.put_parquet("big.parquet", {"id": range(rows), "t": texts}, row_group_size=100_000, use_dictionary=False)
    manifest = lake.plan("big.parquet", rows_per_partition=rows)
    done = RowSet(rows)
    done.add_range(0, 250_000)
    assert [record["id"] for record in lake.records(manifest, done)] == list(range(250_000, rows))


def test_refusals(lake: Bucket) -> None:
    with pytest.raises(EmptyDatasetError):
        lake.plan("nothing/")
    with pytest.raises(EmptyDatasetError):
        plan_dataset(InputSettings(uri="s3://no-such-bucket/x/", id_column="id"), lake.options, needed_columns=None)
    lake.put_parquet("dup/a.parquet", {"id": [1, 2]})
    lake.put_parquet("dup/b.parquet", {"id": [3, 2]})
    with pytest.raises(
        DuplicateIdError, match=rf"{lake.name}/dup/b.parquet row 1 repeats {lake.name}/dup/a.parquet row 1"
    ):
        lake.plan("dup")
    lake.put_parquet("null/a.parquet", {"id": [1, None]})
    with pytest.raises(NullIdError, match=r"null/a\.parquet row 1"):
        lake.plan("null")
    lake.put("bad/a.parquet", b"not parquet at all")
    lake.put_parquet("bad/b.parquet", {"id": [1]})
    with pytest.raises(UnreadableFileError, match=r"bad/a\.parquet"):
        lake.plan("bad")


def test_changes(lake: Bucket) -> None:
    lake.put_parquet("x/a.parquet", {"id": [1]})
    lake.put_parquet("x/b.parquet", {"id": [2]})
    manifest = lake.plan("x")
    settings = lake.settings("x")
    assert listing_digest(settings, lake.options) == manifest.listing
    verify_unchanged(manifest, settings, lake.options)
    lake.put_parquet("x/b.parquet", {"id": [2, 3]})
    with pytest.raises(InputChangedError, match=rf"differ: 1 \(modified {lake.name}/x/b\.parquet\)"):
        verify_unchanged(manifest, settings, lake.options)
    with pytest.raises(InputChangedError, match=r"x/b\.parquet was modified after it was planned"):
        lake.records(manifest)
    lake.client.delete_object(Bucket=lake.name, Key="x/b.parquet")
    with pytest.raises(InputChangedError, match=r"x/b\.parquet was removed"):
        lake.records(manifest)


def test_a_rewrite_of_the_same_size_within_the_same_second(lake: Bucket) -> None:
    """A listing tells size and second only; the entity tag tells that the content is another one."""
    settings = lake.settings("y")
    manifest = None
    while manifest is None or listing_digest(settings, lake.options) != manifest.listing:  # until within one second
        lake.put("y/a.csv", b"id,v\n1,x\n")
        lake.put("y/b.csv", b"id,v\n2,x\n")
        manifest = lake.plan("y")
        assert rewritten_files(manifest, lake.options) == []
        verify_unchanged(manifest, settings, lake.options)
        lake.put("y/b.csv", b"id,v\n2,y\n")
    assert rewritten_files(manifest, lake.options) == [f"{lake.name}/y/b.csv"]
    with pytest.raises(InputChangedError, match=rf"differ: 1 \(modified {lake.name}/y/b\.csv\)"):
        verify_unchanged(manifest, settings, lake.options)
    with pytest.raises(InputChangedError, match=r"y/b\.csv was modified after it was planned"):
        lake.records(manifest)
