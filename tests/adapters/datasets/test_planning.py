"""What a plan holds, and every dataset that is refused: the message names files and rows, and never a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_ai.adapters.datasets import ids, listing_digest, plan_dataset, verify_unchanged
from airflow_provider_ai.adapters.datasets import planning as planning_module
from airflow_provider_ai.adapters.datasets.formats import unreadable
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.exceptions import (
    DuplicateIdError,
    EmptyDatasetError,
    InputChangedError,
    InputError,
    MissingColumnError,
    NullIdError,
    UnreadableFileError,
)
from tests.adapters.datasets.data import names, plan, records, settings_of, touch_later, write_parquet, write_text

SECRET = "canary-4711"
FORMATS = ("parquet", "csv", "jsonl")


def write_ids(folder: Path, name: str, kind: str, ids_of_rows: list[str | None], column: str = "id") -> Path:
    """A file with an id column and a column ``v``."""
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        return write_parquet(path, {column: pa.array(ids_of_rows, pa.string()), "v": range(len(ids_of_rows))})
    if kind == "csv":
        return write_text(path, "".join([f"{column},v\n", *(f"{i or ''},{v}\n" for v, i in enumerate(ids_of_rows))]))
    return write_text(path, "".join(json.dumps({column: i, "v": v}) + "\n" for v, i in enumerate(ids_of_rows)))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_plan_holds_the_whole_dataset(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path / "dt=2", "b", kind, ["c", "d", "e"])
    write_ids(tmp_path / "dt=1", "a", kind, ["a", "b"])
    manifest = plan(tmp_path)
    assert names(manifest) == [f"a.{kind}", f"b.{kind}"]
    assert manifest.schema == (("id", "string"), ("v", "int64"), ("dt", "string"))
    assert (manifest.format, manifest.id_column, manifest.input_uri) == (kind, "id", str(tmp_path))
    assert [file.rows for file in manifest.files] == [2, 3]
    assert [file.partition_values for file in manifest.files] == [(("dt", "1"),), (("dt", "2"),)]
    assert [file.size for file in manifest.files] == [Path(file.path).stat().st_size for file in manifest.files]
    assert manifest.rows == 5
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest == plan(tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_progress_is_told_file_by_file(tmp_path: Path, kind: str) -> None:
    for n in range(3):
        write_ids(tmp_path, str(n), kind, [str(n)])
    told: list[tuple[int, int]] = []
    plan_dataset(settings_of(tmp_path), needed_columns=None, on_progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("parallel", [False, True])
def test_a_missing_id_names_file_and_rows(
    tmp_path: Path, kind: str, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning_module, "is_local", lambda _: not parallel)
    write_ids(tmp_path, "a", kind, ["x", SECRET])
    write_ids(tmp_path, "b", kind, ["y", None, None, "z", None, None])
    with pytest.raises(NullIdError) as caught:
        plan(tmp_path)
    message = str(caught.value)
    assert "column 'id': 4 (" in message
    assert f"{tmp_path}/b.{kind} row 1, {tmp_path}/b.{kind} row 2, {tmp_path}/b.{kind} row 4, …" in message
    assert SECRET not in message


def test_nan_is_no_id(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": [1.0, float("nan"), None]})
    with pytest.raises(NullIdError, match=r": 2 \(.*a\.parquet row 1, .*a\.parquet row 2;"):
        plan(tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("spill_rows", [None, 3])  # all hashes in memory; almost none
def test_a_duplicate_id_names_both_rows_and_not_the_id(
    tmp_path: Path, kind: str, spill_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spill_rows:
        monkeypatch.setattr(ids.HashSet.__init__, "__defaults__", (spill_rows,))
    write_ids(tmp_path, "a", kind, ["p", SECRET, "q"])
    write_ids(tmp_path, "b", kind, ["r", "s", SECRET, "p", "p", "q"])
    with pytest.raises(DuplicateIdError) as caught:
        plan(tmp_path)
    message = str(caught.value)
    assert "earlier row: 4 (" in message
    first = f"{tmp_path}/b.{kind} row 2 repeats {tmp_path}/a.{kind} row 1"
    assert message.index(first) < message.index(f"{tmp_path}/b.{kind} row 3 repeats {tmp_path}/a.{kind} row 0")
    assert SECRET not in message


@pytest.mark.parametrize("kind", FORMATS)
def test_many_ids_without_duplicates_pass(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids.HashSet.__init__, "__defaults__", (300,))
    write_ids(tmp_path, "a", kind, [f"id {n}" for n in range(2_000)])
    assert plan(tmp_path).rows == 2_000


def test_a_constant_id_column_is_refused_with_its_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids.HashSet.__init__, "__defaults__", (300,))
    write_parquet(tmp_path / "a.parquet", {"id": [SECRET] * 5_000})
    with pytest.raises(DuplicateIdError, match=r"earlier row: 4999 \(.* row 1 repeats .* row 0,"):
        plan(tmp_path)


def test_a_small_dataset_needs_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_allowed(**_: Any) -> None:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(ids.tempfile, "TemporaryFile", none_allowed)
    write_parquet(tmp_path / "a.parquet", {"id": range(100_000)})
    assert plan(tmp_path).rows == 100_000


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_id_column_names_the_nearest(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path, "a", kind, ["1"], column="id")
    write_ids(tmp_path, "b", kind, ["2"], column="idd")
    with pytest.raises(MissingColumnError) as caught:
        plan(tmp_path)
    assert f"{tmp_path}/b.{kind} has no column 'id'" in str(caught.value)
    assert "Did you mean 'idd'? Columns there: idd, v" in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_needed_column_names_those_there_are(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path / "site=x", "a", kind, ["1"])
    with pytest.raises(
        MissingColumnError, match=r"no column 'w' \(needed by the request\)\. Columns there: id, v, site"
    ):
        plan(tmp_path, needed=("v", "w", "site"))
    with pytest.raises(MissingColumnError, match="no column 'w'"):
        plan(tmp_path, columns=("w",))
    assert plan(tmp_path, needed=("site",)).rows == 1


def test_a_missing_header_line_does_not_leak_the_first_record(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", f"17,{SECRET},2024-01-01\n18,x,2024-01-02\n")
    with pytest.raises(MissingColumnError, match="header line missing") as caught:
        plan(tmp_path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_files_without_rows_are_an_empty_dataset(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path, "a", kind, [])
    with pytest.raises(EmptyDatasetError, match=r"has no row \(files: 1\)"):
        plan(tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_file_among_others_contributes_nothing(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path, "a", kind, [])
    write_ids(tmp_path, "b", kind, ["1"])
    manifest = plan(tmp_path)
    assert [file.rows for file in manifest.files] == [0, 1]
    assert [piece.file for part in manifest.partitions for piece in part.slices] == [1]
    assert records(manifest) == [{"id": 1 if kind == "csv" else "1", "v": 0}]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_column_that_some_files_lack_is_null_there(tmp_path: Path, kind: str) -> None:
    write_ids(tmp_path, "a", kind, ["a"])
    write_ids(tmp_path, "b", kind, ["b"], column="v_and_id")
    if kind == "parquet":
        write_parquet(tmp_path / "b.parquet", {"w": ["x"], "id": ["b"]})
    elif kind == "csv":
        write_text(tmp_path / "b.csv", "w,id\nx,b\n")
    else:
        write_text(tmp_path / "b.jsonl", '{"w":"x","id":"b"}\n')
    assert records(plan(tmp_path)) == [{"id": "a", "v": 0, "w": None}, {"id": "b", "v": None, "w": "x"}]


def test_a_hive_folder_wins_over_a_column_of_its_name(tmp_path: Path) -> None:
    write_parquet(tmp_path / "site=x" / "a.parquet", {"id": [1], "site": [5]})
    write_parquet(tmp_path / "site=y" / "a.parquet", {"id": [2], "site": ["not a number"]})
    manifest = plan(tmp_path)
    assert manifest.schema == (("id", "int64"), ("site", "string"))
    assert records(manifest) == [{"id": 1, "site": "x"}, {"id": 2, "site": "y"}]


def test_an_id_never_comes_from_a_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "id=7" / "a.parquet", {"id": [1, 2]})
    assert records(plan(tmp_path)) == [{"id": 1}, {"id": 2}]
    write_parquet(tmp_path / "id=8" / "b.parquet", {"v": [1, 2]})
    with pytest.raises(MissingColumnError):
        plan(tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_unicode_and_spaces_in_names(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "Zürich %20 [x]" / "Ort=St.%20Gallen"
    write_ids(folder, "日本 語", kind, ["a"])
    assert records(plan(tmp_path / "Zürich %20 [x]")) == [{"id": "a", "v": 0, "Ort": "St. Gallen"}]


class TestChanges:
    """A plan is compared with the dataset without opening a file."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for n in range(3):
            write_parquet(tmp_path / f"{n}.parquet", {"id": [n]})
        return tmp_path

    def test_nothing_changed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        manifest = plan(folder)
        monkeypatch.setattr(planning_module, "file_format", None)
        assert listing_digest(settings_of(folder)) == manifest.listing
        verify_unchanged(manifest, settings_of(folder))

    def test_a_new_modification_time_alone_counts(self, folder: Path) -> None:
        manifest = plan(folder)
        touch_later(folder / "1.parquet")
        self.refused(manifest, folder, f"differ: 1 (modified {folder}/1.parquet)")

    def test_another_file_of_the_same_size_counts(self, folder: Path) -> None:
        manifest = plan(folder)
        size = (folder / "1.parquet").stat().st_size
        write_parquet(folder / "new", {"id": [9]}).replace(folder / "1.parquet")
        touch_later(folder / "1.parquet")
        assert (folder / "1.parquet").stat().st_size == size
        self.refused(manifest, folder, f"differ: 1 (modified {folder}/1.parquet)")

    def test_added_and_removed_files_count(self, folder: Path) -> None:
        manifest = plan(folder)
        (folder / "0.parquet").unlink()
        write_parquet(folder / "3.parquet", {"id": [3]})
        self.refused(manifest, folder, f"differ: 2 (added {folder}/3.parquet, removed {folder}/0.parquet)")

    def test_at_most_three_are_named(self, folder: Path) -> None:
        manifest = plan(folder)
        for n in range(10, 15):
            write_parquet(folder / f"{n}.parquet", {"id": [n]})
        self.refused(manifest, folder, f"10.parquet, added {folder}/11.parquet, added {folder}/12.parquet, …)")

    def test_everything_gone(self, folder: Path) -> None:
        manifest = plan(folder)
        for path in folder.iterdir():
            path.unlink()
        with pytest.raises(EmptyDatasetError):
            listing_digest(settings_of(folder))
        with pytest.raises(InputChangedError, match=r"differ: 3 \(removed "):
            verify_unchanged(manifest, settings_of(folder))

    def test_a_file_of_another_format(self, folder: Path) -> None:
        manifest = plan(folder)
        write_text(folder / "stray.csv", "id\n99\n")
        with pytest.raises(InputChangedError, match=r"differ: 1 \(added .*/stray\.csv\)"):
            verify_unchanged(manifest, settings_of(folder))

    def test_files_that_do_not_count_do_not_matter(self, folder: Path) -> None:
        manifest = plan(folder)
        write_text(folder / "_SUCCESS", "")
        write_text(folder / "README.md", "")
        verify_unchanged(manifest, settings_of(folder))

    def refused(self, manifest: Manifest, folder: Path, expected: str) -> None:
        assert listing_digest(settings_of(folder)) != manifest.listing
        with pytest.raises(InputChangedError) as caught:
            verify_unchanged(manifest, settings_of(folder))
        assert expected in str(caught.value)
        assert "run with verb recompute to plan again" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.parquet", b"", "empty \\(0 bytes\\)"),
        ("a.parquet", b"PAR1", "not a Parquet file, or truncated"),
        ("a.parquet", SECRET.encode() * 100, "not a Parquet file, or truncated"),
        ("a.csv", b"", "no header line"),
        ("a.csv", b"id,v\n1,\xff\xfe" + SECRET.encode() + b"\n", "not UTF-8"),
        ("a.csv", f"id,v\n1,2\n3,{SECRET},5\n".encode(), r"row 3 \(the header is row 1\) has 3 fields, not 2"),
        ("a.csv", f"id,v\n1,2\n{SECRET}\n".encode(), r"row 3 \(the header is row 1\) has 1 fields, not 2"),
        ("a.csv", b"id,v,v\n1,2,3\n", "must name every column once"),
        ("a.csv.gz", b"id,v\n1,2\n", "not readable as CSV"),
        ("a.jsonl", f'{{"id":1}}\n\n{{"id":{SECRET}}}\n'.encode(), r"line 3 is not valid JSON \(at column 7\)"),
        ("a.jsonl", f'{{"id":1}}\n"{SECRET}"\n'.encode(), "line 2 is not a JSON object"),
        ("a.jsonl", b'{"id":"\xff"}\n', "line 1 is not valid JSON"),
        ("a.jsonl", b'{"id":1}\n{"id":2', "line 2 is not valid JSON"),
        ("a.jsonl.gz", b'{"id":1}\n', "damaged"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"{tmp_path}/{name}: .*{reason}") as caught:
        plan(tmp_path)
    shown: BaseException | None = caught.value
    while shown:
        assert SECRET not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (pa.ArrowInvalid(SECRET), UnreadableFileError),
        (OSError(f"Corrupt snappy data {SECRET}"), UnreadableFileError),  # Arrow's own: no error number
        (PermissionError(13, "denied"), UnreadableFileError),
        (FileNotFoundError(2, "gone"), InputChangedError),
        (OSError(5, "Input/output error"), OSError),  # the disk's
        (OSError("When reading: AWS Error NETWORK_CONNECTION"), OSError),
    ],
)
def test_trouble_of_the_storage_is_not_the_files(error: Exception, becomes: type[Exception]) -> None:
    with pytest.raises(becomes) as caught, unreadable("x.parquet", "damaged"):
        raise error
    assert (caught.value is error) is (becomes is OSError)
    assert SECRET not in str(caught.value)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": range(10_000)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableFileError, match=r"a\.parquet: not a Parquet file, or truncated or damaged"):
        plan(tmp_path)


def test_a_damaged_parquet_page(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": [f"{n}" for n in range(10_000)]}, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:2_000] = bytes(1_996)
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=r"a\.parquet: .*damaged"):
        plan(tmp_path)


def test_two_parquet_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UnreadableFileError, match="two columns have the same name"):
        plan(tmp_path)


def test_an_id_type_that_names_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": [[1], [2]]})
    with pytest.raises(InputError, match=r"a\.parquet: the id column has type list"):
        plan(tmp_path)


def test_a_file_that_goes_while_planning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"id": [1]})
    planned = planning_module.list_dataset

    def then_removed(*args: Any) -> Any:
        listing = planned(*args)
        path.unlink()
        return listing

    monkeypatch.setattr(planning_module, "list_dataset", then_removed)
    with pytest.raises(InputChangedError, match=r"a\.parquet: removed"):
        plan(tmp_path)
