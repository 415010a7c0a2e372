"""JSON Lines are read line by line, and every value arrives as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.adapters.datasets import jsonl as jsonl_module
from airflow_provider_ai.exceptions import DuplicateIdError, InputError, UnreadableFileError
from tests.adapters.datasets.data import plan, records, write_text


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2"], "int64"),
        (["1", "2.5"], "double"),
        (["true", "null"], "bool"),
        (['"a"', "null"], "string"),
        (["null"], "null"),
        (["1", '"a"'], "json"),
        (["1", "true"], "json"),
        (["[1]"], "json"),
        (['{"a":1}', '"x"'], "json"),
    ],
)
def test_the_kind_of_a_key(tmp_path: Path, values: list[str], kind: str) -> None:
    text = "".join(f'{{"id":{n},"v":{value}}}\n' for n, value in enumerate(values))
    manifest = plan(write_text(tmp_path / "a.jsonl", text))
    assert manifest.schema == (("id", "int64"), ("v", kind))
    assert [record["v"] for record in records(manifest)] == [json.loads(value) for value in values]


def test_blank_lines_and_line_ends(tmp_path: Path) -> None:
    text = '\ufeff\n{"id":1}\r\n \t\n{"id":2}\n\n\n{"id":3,"v":"a b"}'
    expected = [{"id": 1, "v": None}, {"id": 2, "v": None}, {"id": 3, "v": "a b"}]
    assert records(plan(write_text(tmp_path / "a.jsonl", text))) == expected


@pytest.mark.parametrize("read_bytes", [1, 7, 64, 1 << 20])
def test_lines_that_cross_pieces(tmp_path: Path, read_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_module, "READ_BYTES", read_bytes)
    rows = [{"id": f"ü{n}", "v": "x" * (n % 50)} for n in range(60)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) + "\n" * (n % 3) for n, row in enumerate(rows))
    path = write_text(tmp_path / "a.jsonl", text)
    assert records(plan(path)) == rows
    write_text(path, text + "\n{oops\n")
    line = text.count("\n") + 2
    with pytest.raises(UnreadableFileError, match=f"line {line} is not valid JSON"):
        plan(path)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_module, "READ_BYTES", 100)
    monkeypatch.setattr(jsonl_module, "LONGEST_LINE_BYTES", 1_000)
    write_text(tmp_path / "a.jsonl", '{"id":1}\n{"id":2,"v":"' + "x" * 5_000)
    with pytest.raises(UnreadableFileError, match="line 2 is longer than"):
        plan(tmp_path)


def test_records_that_share_no_keys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_module, "MOST_KEYS", 10)
    write_text(tmp_path / "a.jsonl", "".join(f'{{"id":{n},"k{n}":1}}\n' for n in range(12)))
    with pytest.raises(UnreadableFileError, match="more than 10 different keys"):
        plan(tmp_path)


def test_ids_of_several_types(tmp_path: Path) -> None:
    ids: list[Any] = [1, "1", 2**63, -1, 2**64 - 1, 0.5, "x"]
    text = "".join(json.dumps({"id": each}) + "\n" for each in ids)
    manifest = plan(write_text(tmp_path / "a.jsonl", text))
    assert [record["id"] for record in records(manifest)] == ids
    for again in ids:
        write_text(tmp_path / "a.jsonl", text + json.dumps({"id": again}) + "\n")
        with pytest.raises(DuplicateIdError, match=f"row 7 repeats .* row {ids.index(again)};"):
            plan(tmp_path)


@pytest.mark.parametrize(
    ("value", "what"),
    [("true", "a boolean"), ("[1]", "a list"), ("{}", "an object"), ("18446744073709551616", "more than 64 bits")],
)
def test_what_cannot_be_an_id(tmp_path: Path, value: str, what: str) -> None:
    write_text(tmp_path / "a.jsonl", f'{{"id":1}}\n{{"id":{value}}}\n')
    with pytest.raises(InputError, match=f"row 1 .*{what}"):
        plan(tmp_path)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(st.lists(st.dictionaries(st.text(max_size=5).filter(lambda key: key != "id"), values, max_size=4), min_size=1))
def test_whatever_json_holds_arrives(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    numbered = [{"id": n, **row} for n, row in enumerate(rows)]
    text = "".join(json.dumps(row) + "\n" for row in numbered)
    manifest = plan(write_text(tmp_path_factory.mktemp("jsonl") / "a.jsonl", text))
    keys = {key for row in numbered for key in row}
    assert records(manifest) == [{key: row.get(key) for key in keys} for row in numbered]
