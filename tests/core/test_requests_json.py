"""Protocol ``json``: what is sent, what is taken back, and how each invalid output is named."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from airflow_provider_ai.core.ports import InvalidAnswerError, Request, UnrenderableRecordError
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.exceptions import SpecError

RECORD = {"visit_id": "v1", "a": 1, "b": 2.5}


def _sent(request: JsonRequest, ids: list[Any], records: list[dict[str, Any]]) -> Any:
    return orjson.loads(request.encode("m", ids, records).body)


def _outputs(ids: list[Any], outputs: Any, **settings: Any) -> Any:
    request: Request = JsonRequest(records_per_request=max(1, len(ids)), **settings)
    return list(request.decode(orjson.dumps({"outputs": outputs}), ids).outputs)


def test_sends_the_chosen_columns_after_the_id() -> None:
    body = JsonRequest(columns=["b", "a"]).encode("m", ["v1"], [RECORD]).body
    assert body == b'{"model":"m","inputs":[{"id":"v1","b":2.5,"a":1}]}'


def test_sends_the_whole_record_when_no_columns_are_chosen() -> None:
    assert _sent(JsonRequest(), ["v1"], [RECORD]) == {"model": "m", "inputs": [{"id": "v1", **RECORD}]}


def test_estimates_one_token_for_four_characters() -> None:
    encoded = JsonRequest(columns=["a"]).encode("m", ["é"], [{"a": 1}])
    assert encoded.estimated_tokens == -(-len(encoded.body.decode()) // 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("12345678901234567.25"), 12345678901234567.25),
        (Decimal("NaN"), None),
        (b"\x00\xff", "AP8="),
        (float("nan"), None),  # json has no NaN; the model sees a null
        (float("inf"), None),
        ([1, {"x": None}], [1, {"x": None}]),
    ],
)
def test_values_without_a_json_type_have_a_sensible_form(value: object, expected: object) -> None:
    assert _sent(JsonRequest(columns=["a"]), [1], [{"a": value}])["inputs"] == [{"id": 1, "a": expected}]


def test_numpy_and_pandas_values_are_sent_like_python_ones() -> None:
    np = pytest.importorskip("numpy", reason="NumPy comes with pyarrow")
    pd = pytest.importorskip("pandas", reason="pandas is a dependency")
    values = [np.float32(0.5), np.int8(3), np.bool_(True), np.array([1, 2]), pd.Timestamp("2026-01-02"), pd.NaT]
    record = {str(at): value for at, value in enumerate(values)}
    sent = _sent(JsonRequest(columns=list(record)), [1], [record])["inputs"][0]
    assert list(sent.values()) == [1, 0.5, 3, True, [1, 2], "2026-01-02T00:00:00", None]


def test_a_decimal_keeps_all_of_its_digits() -> None:
    body = JsonRequest(columns=["a"]).encode("m", [1], [{"a": Decimal("0.1234567890123456789012345")}]).body
    assert b"0.1234567890123456789012345" in body


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"b": 1}, "missing_field"),
        ({"a": 2**64}, "not_encodable"),
        ({"a": object()}, "not_encodable"),
        ({"a": "\ud800"}, "not_encodable"),  # half of a surrogate pair: no UTF-8
        ({"a": {1: 2}}, "not_encodable"),
    ],
)
def test_what_has_no_json_form_cannot_be_sent(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnrenderableRecordError) as caught:
        JsonRequest(columns=["a"]).encode("m", [1], [record])
    assert str(caught.value) == reason


@pytest.mark.parametrize("columns", [None, ["id"]])
def test_a_column_named_id_that_is_not_the_id_is_refused(columns: list[str] | None) -> None:
    request = JsonRequest(columns=columns)
    assert _sent(request, ["v1"], [{"id": "v1"}])["inputs"] == [{"id": "v1"}]
    with pytest.raises(UnrenderableRecordError, match="id_clash"):
        request.encode("m", ["v1"], [{"id": "other"}])


def test_outputs_are_matched_by_id_in_any_order(seed: int) -> None:
    ids = [f"v{i}" for i in range(50)] + [str(i) for i in range(50)]
    outputs = [{"id": key, "score": position} for position, key in enumerate(ids)]
    random.Random(seed).shuffle(outputs)
    assert _outputs(ids, outputs) == [{"score": position} for position in range(100)]


@pytest.mark.parametrize(
    ("sent", "returned", "matches"),
    [
        (1, 1, True),
        (1, "1", False),
        (1, 1.0, False),
        (1, True, False),
        ("1", "1", True),
        ("1", 1, False),
        (True, True, True),
        (True, 1, False),
        (2**63, 2**63, True),
        (1.5, 1.5, True),
        (date(2026, 1, 2), "2026-01-02", True),
        (uuid.UUID(int=1), str(uuid.UUID(int=1)), True),
        (Decimal("5"), 5, True),
        (b"\x01", "AQ==", True),
        (1, [1], False),
        (1, {}, False),
        (1, None, False),
    ],
)
def test_ids_compare_by_type_and_value_as_json_gives_them(sent: Any, returned: Any, matches: bool) -> None:
    assert _outputs([sent], [{"id": returned, "x": 1}]) == [{"x": 1} if matches else "unknown_id"]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([{"id": 1, "x": 1}], [{"x": 1}, "missing_output"]),
        ([], ["missing_output", "missing_output"]),
        ([{"id": 1, "x": 1}, {"id": 9, "x": 1}], [{"x": 1}, "unknown_id"]),
        ([{"id": 1, "x": 1}, {"id": 2, "x": 2}, {"id": 9, "x": 1}], [{"x": 1}, {"x": 2}]),  # one too many harms nobody
        ([{"id": 1, "x": 1}, {"id": 1, "x": 1}, {"id": 2, "x": 2}], ["duplicate_output", {"x": 2}]),
        ([{"id": 1, "x": 1}] * 3 + [{"id": 2, "x": 2}], ["duplicate_output", {"x": 2}]),
        ([{"id": 1, "x": 1}, {"x": 2}], [{"x": 1}, "unknown_id"]),
        ([{"id": 1, "x": 1}, [2]], [{"x": 1}, "not_an_object"]),
        ([{"id": 1, "_x": 1}, {"id": 2, "": 1}], ["reserved_column", "reserved_column"]),
        ([{"id": 1}, {"id": 2, "x": None}], [{}, {"x": None}]),
        ([{"id": 1, "x": "\0"}, {"id": 2, "x": "\\u0000"}], ["nul_character", {"x": "\\u0000"}]),
        ([{"id": 1, "x": 2**63}, {"id": 2, "x": {"y": [2**63]}}], ["number_too_large", "number_too_large"]),
        ([{"id": 1, "x": -(2**63)}, {"id": 2, "x": 2**63 - 1}], [{"x": -(2**63)}, {"x": 2**63 - 1}]),
    ],
)
def test_an_invalid_output_spoils_its_record_only(outputs: Any, expected: Any) -> None:
    assert _outputs([1, 2], outputs) == expected


def test_an_output_nested_deeper_than_a_checkpoint_can_hold_is_refused() -> None:
    deep: Any = 1
    for _ in range(65):
        deep = [deep]
    assert _outputs([1, 2], [{"id": 1, "x": deep}, {"id": 2, "x": deep[0]}]) == ["too_deep", {"x": deep[0]}]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"<html>502 Bad Gateway</html>", "not_json"),
        (b'{"outputs": [{"id": 1, "x"', "not_json"),
        (b'{"outputs": [{"id": 1, "x": NaN}]}', "not_json"),
        (b'{"outputs": [{"id": 1, "x": 1e400}]}', "not_json"),
        (b"[" * 10_000 + b"]" * 10_000, "not_json"),
        (b'{"outputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "not_json"),
        (b'"\xff"', "not_json"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "no_outputs"),
        (b'{"outputs": {"id": 1}}', "no_outputs"),
        (b'{"error": "overloaded"}', "no_outputs"),
    ],
)
def test_a_body_that_is_no_answer_is_named_by_a_word(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidAnswerError) as caught:
        JsonRequest().decode(body, [1])
    assert str(caught.value) == reason


def test_an_integer_beyond_64_bits_arrives_as_the_nearest_float() -> None:
    assert JsonRequest().decode(b'{"outputs": [{"id": 1, "x": 1' + b"0" * 30 + b"}]}", [1]).outputs == [{"x": 1e30}]


def test_usage_is_taken_when_it_makes_sense() -> None:
    body = {"outputs": [], "usage": {"prompt_tokens": 7, "completion_tokens": -1}}
    usage = JsonRequest().decode(orjson.dumps(body), []).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 0)


def test_a_schema_decides_what_a_valid_output_is() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "number", "maximum": 1}}, "required": ["x"]}
    outputs = [{"id": 1, "x": 0.5}, {"id": 2, "x": 2}, {"id": 3}]
    assert _outputs([1, 2, 3], outputs, output_schema=schema) == [{"x": 0.5}, "schema_mismatch", "schema_mismatch"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": []}, "columns must be a list of names"),
        ({"columns": "a"}, "columns must be a list of names"),
        ({"columns": ["a", 1]}, "columns must be a list of names"),
        ({"columns": ["a", "b", "a"]}, r"columns must name each column once, got \['a'\]"),
        ({"records_per_request": 0}, "records_per_request must be an integer ≥ 1, got 0"),
        ({"records_per_request": True}, "records_per_request must be an integer ≥ 1, got True"),
        ({"path": "predict"}, "path must start with '/', got 'predict'"),
        ({"output_schema": {"properties": {"_run_id": {}}}}, "must be names that do not start with '_'"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        JsonRequest(**settings)


def test_identity_changes_with_the_question_and_with_nothing_else() -> None:
    identity = JsonRequest(columns=["a", "b"]).identity()
    assert orjson.loads(orjson.dumps(identity)) == identity
    assert JsonRequest(columns=("a", "b"), records_per_request=64).identity() == identity
    for other in ({"columns": ["b", "a"]}, {"path": "/x"}, {"output_schema": {"type": "object"}}):
        assert JsonRequest(**{"columns": ["a", "b"], **other}).identity() != identity
