"""CSV columns have the kind of all their values, and are read as they were planned."""

from __future__ import annotations

import csv as python_csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.adapters.datasets import csv as csv_module
from airflow_provider_ai.exceptions import UnreadableFileError
from tests.adapters.datasets.data import plan, records, write_text


def column(folder: Path, cells: list[str]) -> tuple[str, list[Any]]:
    """Kind and values of a column with these cells, as they stand in the file."""
    path = write_text(folder / "a.csv", "".join(["id,v\n", *(f"r{n},{cell}\n" for n, cell in enumerate(cells))]))
    manifest = plan(path)
    return dict(manifest.schema)["v"], [record["v"] for record in records(manifest)]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", ""], "int64", [1, -2, None]),
        (["1", "NA", "null"], "int64", [1, None, None]),
        ([" 1", "2 "], "int64", [1, 2]),
        (["1", "2.5", "1e3"], "double", [1.0, 2.5, 1000.0]),
        (["1.5", "nan", "NULL"], "double", [1.5, None, None]),
        (["007", "12"], "string", ["007", "12"]),  # the zeros mean something
        (["-01", "5"], "string", ["-01", "5"]),
        (["0", "0.5", "-0.5"], "double", [0.0, 0.5, -0.5]),
        (["inf", "1"], "string", ["inf", "1"]),  # JSON has no infinity
        (["1e999", "1"], "string", ["1e999", "1"]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808"], "string", ["9223372036854775808"]),  # no number here holds it
        (["-9223372036854775808", "5"], "int64", [-(2**63), 5]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),  # a float would round the first
        (["true", "False", "TRUE", ""], "bool", [True, False, True, None]),
        (["true", "1"], "string", ["true", "1"]),
        (["2024-01-01", "2024-01-02"], "string", ["2024-01-01", "2024-01-02"]),
        (["", ""], "null", [None, None]),
        (["a", "", '""', "NA"], "string", ["a", None, "", "NA"]),
        (['"a,b"', '"say ""x"""', '"two\nlines"'], "string", ["a,b", 'say "x"', "two\nlines"]),
        (["ü", "日本"], "string", ["ü", "日本"]),
    ],
)
def test_the_kind_of_a_column(tmp_path: Path, cells: list[str], kind: str, values: list[Any]) -> None:
    assert column(tmp_path, cells) == (kind, values)


def test_the_last_value_of_a_long_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", 2_000)
    kind, values = column(tmp_path, [*("1" for _ in range(3_000)), "x"])
    assert (kind, values[0], values[-1]) == ("string", "1", "x")


@pytest.mark.parametrize(
    ("ids", "kind", "values"),
    [
        (["1", "-2", "0"], "int64", [1, -2, 0]),
        (["1", "01"], "string", ["1", "01"]),  # two different ids
        (["1", "+1", " 1", "1.0", "-0", "0"], "string", ["1", "+1", " 1", "1.0", "-0", "0"]),
        (["NA", "null"], "string", ["NA", "null"]),  # an id may be called so
        (["99999999999999999999", "1"], "string", ["99999999999999999999", "1"]),
        (["2024-01-01"], "string", ["2024-01-01"]),
    ],
)
def test_ids_are_never_made_equal(tmp_path: Path, ids: list[str], kind: str, values: list[Any]) -> None:
    manifest = plan(write_text(tmp_path / "a.csv", "".join(["id\n", *(f"{each}\n" for each in ids)])))
    assert manifest.schema == (("id", kind),)
    assert [record["id"] for record in records(manifest)] == values


@pytest.mark.parametrize(
    "text",
    [
        "id,v\n1,x\n2,y\n",
        "id,v\r\n1,x\r\n2,y\r\n",
        "\ufeffid,v\n1,x\n2,y",  # with a byte order mark, without a last line end
        "id,v\n\n1,x\n\n2,y\n\n",
        '"id","v"\n"1","x"\n"2","y"\n',
    ],
)
def test_the_usual_variations(tmp_path: Path, text: str) -> None:
    assert records(plan(write_text(tmp_path / "a.csv", text))) == [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}]


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "id,v")
    write_text(tmp_path / "b.csv", "id,v\n1,x\n")
    assert [file.rows for file in plan(tmp_path).files] == [0, 1]


def test_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id,v\n1,x\n"))
    assert records(plan(tmp_path)) == [{"id": 1, "v": "x"}]


def test_a_compressed_file_that_ends_early(tmp_path: Path) -> None:
    data = gzip.compress("".join(["id,v\n", *(f"{n},{n * n}\n" for n in range(50_000))]).encode())
    (tmp_path / "a.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableFileError, match=r"a\.csv\.gz"):
        plan(tmp_path)


def test_a_ragged_line_far_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", 2_000)
    write_text(tmp_path / "a.csv", "".join(["id,v\n", *(f"{n},x\n" for n in range(5_000)), "5000\n"]))
    with pytest.raises(UnreadableFileError, match=r"row 5002 \(the header is row 1\) has 1 fields, not 2"):
        plan(tmp_path)


def test_a_quote_that_is_never_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", 2_000)
    write_text(tmp_path / "a.csv", 'id,v\n1,"x\n' + "2,y\n" * 2_000)
    with pytest.raises(UnreadableFileError, match="is a quote never closed"):
        plan(tmp_path)


@pytest.mark.parametrize("tail", ['3,"some te', '3,"x\n4,y\n', '3,"'])
def test_a_file_that_ends_inside_quotes_is_truncated(tmp_path: Path, tail: str) -> None:
    """The parser alone would take the rest of the file for one value."""
    write_text(tmp_path / "a.csv", 'id,v\n1,"a ""b"""\n2,"x\ny"\n' + tail)
    with pytest.raises(UnreadableFileError, match="ends inside a quoted field"):
        plan(tmp_path)


def test_a_quote_inside_a_field_is_a_character(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", 'id,v\n1,5" pipe\n2,x\n')
    assert [record["v"] for record in records(plan(path))] == ['5" pipe', "x"]


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=12), max_size=30))
def test_what_python_writes_is_read(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    buffer = io.StringIO(newline="")
    writer = python_csv.writer(buffer, quoting=python_csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["id", "v"], ["first", "text"], *([f"r{n}", text] for n, text in enumerate(texts))])
    path = write_text(tmp_path_factory.mktemp("csv") / "a.csv", buffer.getvalue())
    assert [record["v"] for record in records(plan(path))] == ["text", *texts]
