"""Segments: outcomes in, a file named by its bytes out, and the same outcomes back."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_ai.adapters.checkpoints import segments
from airflow_provider_ai.core.outcomes import Succeeded
from airflow_provider_ai.core.ports import Usage
from airflow_provider_ai.exceptions import CorruptCheckpointError
from tests.adapters.checkpoints.partitions import bad, good


def through(table: pa.Table, *, replaces: tuple[str, ...] = ()) -> pa.Table:
    return segments.from_bytes(segments.to_bytes(table, replaces=replaces))


def outputs(*values: Any) -> pa.Table:
    """A segment of one record per output."""
    outcome = Succeeded(
        rows=list(range(len(values))),
        keys=[f"k{row}" for row in range(len(values))],
        ids=list(range(len(values))),
        outputs=list(values),
        inferred_at=1,
    )
    return through(segments.good_table([outcome]))


def test_outputs_come_back_by_row() -> None:
    """Ascending, however the calls were answered; each record with what belongs to it."""
    table = through(segments.good_table([good(7, 3), good(5, at=2), good(0)]))
    assert table["row"].to_pylist() == [0, 3, 5, 7]
    assert table["key"].to_pylist() == ["k0", "k3", "k5", "k7"]
    assert table["id"].to_pylist() == ["id0", "id3", "id5", "id7"]
    assert table["out:score"].to_pylist() == [0.0, 0.3, 0.5, 0.7]
    assert [moment.microsecond for moment in table["inferred_at"].to_pylist()] == [1, 1, 2, 1]


@pytest.mark.parametrize(("records", "prompt", "completion"), [(1, 10, 3), (3, 10, 3), (4, 2, 9), (7, 0, 0)])
def test_the_shares_of_a_call_add_up_to_its_tokens(records: int, prompt: int, completion: int) -> None:
    """And differ by one at most."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    outcome = good(*range(records))
    called = Succeeded(
        rows=outcome.rows,
        keys=outcome.keys,
        ids=outcome.ids,
        outputs=outcome.outputs,
        inferred_at=1,
        attempts=3,
        usage=usage,
    )
    table = segments.good_table([called])
    for column, total in (("prompt_tokens", prompt), ("completion_tokens", completion)):
        shares = table[column].to_pylist()
        assert sum(shares) == total
        assert max(shares) - min(shares) <= 1
    assert table["attempts"].to_pylist() == [3] * records


def test_quarantined_records_come_back_as_they_were() -> None:
    """Sorted by row; with and without a status."""
    outcomes = [bad(4), bad(1, error_class="timeout", status=None), bad(2, round_=3)]
    table = through(segments.bad_table(outcomes))
    assert segments.quarantined(table) == sorted(outcomes, key=lambda outcome: outcome.row)


COLUMNS = [
    pytest.param([1.5, 2.0], "double", [1.5, 2.0], id="numbers"),
    pytest.param([1, 2], "int64", [1, 2], id="integers"),
    pytest.param([True, None], "bool", [True, None], id="a missing one"),
    pytest.param(["a", "b"], "string", ["a", "b"], id="text"),
    pytest.param([[1.0, 2.0], [3.0]], "list<item: double>", [[1.0, 2.0], [3.0]], id="vectors"),
    pytest.param([{"a": 1}, {"b": 2}], "json", ['{"a":1}', '{"b":2}'], id="objects"),
    pytest.param([1, "a"], "json", ["1", '"a"'], id="types that disagree"),
    pytest.param([{"a": 1}, None], "json", ['{"a":1}', None], id="an object and nothing"),
    pytest.param([[{"a": 1}], []], "json", ['[{"a":1}]', "[]"], id="lists of objects"),
    pytest.param([2**64 - 1, -1], "json", ["18446744073709551615", "-1"], id="integers no column holds"),
]


@pytest.mark.parametrize(("values", "kind", "stored"), COLUMNS)
def test_the_type_of_an_output_column(values: list[Any], kind: str, stored: list[Any]) -> None:
    """By its values; JSON text where no type fits, and marked as such, so that text is not taken for it."""
    table = outputs(*({"x": value} for value in values))
    assert segments.output_columns(table.schema) == [["x", kind]]
    assert table["out:x"].to_pylist() == stored


def test_outputs_of_different_names() -> None:
    """A record without an output of some name has none in that column."""
    table = outputs({"x": 1}, {"y": "a"}, {})
    assert segments.output_columns(table.schema) == [["x", "int64"], ["y", "string"]]
    assert (table["out:x"].to_pylist(), table["out:y"].to_pylist()) == ([1, None, None], [None, "a", None])


def test_the_metadata_says_what_a_segment_covers() -> None:
    """Ranges of rows, the logs it replaces and its columns, without reading its data."""
    data = segments.to_bytes(segments.good_table([good(0, 1, 2), good(9), good(5)]), replaces=["log-a", "log-b"])
    assert segments.metadata(data) == {
        "rows": [[0, 3], [5, 6], [9, 10]],
        "replaces": ["log-a", "log-b"],
        "columns": [["score", "double"]],
    }


def test_a_row_that_stands_twice_is_covered_once() -> None:
    """A log that was written anew after a failed fsync."""
    data = segments.to_bytes(segments.good_table([good(0, 1), good(1, 2)]), replaces=[])
    assert segments.metadata(data)["rows"] == [[0, 3]]


def test_a_name_is_that_of_its_bytes() -> None:
    """Any other bytes are refused, by name and with what deleting the file costs."""
    stored = segments.to_bytes(segments.good_table([good(0)]), replaces=[])
    name = segments.segment_name("good", "w-00001", stored)
    assert segments.name_stem(name) == "good-w-00001"
    segments.check_name(name, stored, where="key/p00000")
    for other in (b"", stored[:-1], stored + b"x", stored[:50] + bytes([stored[50] ^ 1]) + stored[51:]):
        with pytest.raises(CorruptCheckpointError, match=rf"key/p00000/{name} is corrupt.*delete it.*again"):
            segments.check_name(name, other, where="key/p00000")
