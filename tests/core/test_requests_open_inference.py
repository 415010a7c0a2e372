"""Protocol ``open-inference``: tensors that servers accept, and tensors that come back wrong."""

from __future__ import annotations

import uuid
from datetime import date
from decimal import Decimal
from typing import Any

import orjson
import pytest

from airflow_provider_ai.core.ports import InvalidAnswerError, Request, UnrenderableRecordError
from airflow_provider_ai.core.requests import OpenInferenceRequest
from airflow_provider_ai.exceptions import SpecError

IDS = ["v1", "v2"]


def _sent(records: list[dict[str, Any]], **settings: Any) -> Any:
    request = OpenInferenceRequest(**{"columns": list(records[0]), **settings})
    return orjson.loads(request.encode("m", list(range(len(records))), records).body)


def _tensor(name: str, data: Any, *, shape: Any, datatype: str = "FP64") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def _decode(*outputs: Any, **settings: Any) -> Any:
    request: Request = OpenInferenceRequest(columns=["a"], **settings)
    return list(request.decode(orjson.dumps({"model_name": "m", "outputs": list(outputs)}), IDS).outputs)


def test_matrix_holds_the_columns_row_by_row_in_the_order_given() -> None:
    sent = _sent([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}], columns=["b", "a"])
    assert sent == {"inputs": [_tensor("predict", [2.0, 1.0, 4.0, 3.0], shape=[2, 2])]}


def test_columns_layout_sends_one_typed_tensor_per_column() -> None:
    records = [{"t": "x", "i": 1, "f": 0.5, "b": True}, {"t": "y", "i": 2, "f": 1.5, "b": False}]
    assert _sent(records, layout="columns") == {
        "inputs": [
            _tensor("t", ["x", "y"], shape=[2, 1], datatype="BYTES"),
            _tensor("i", [1, 2], shape=[2, 1], datatype="INT64"),
            _tensor("f", [0.5, 1.5], shape=[2, 1], datatype="FP64"),
            _tensor("b", [True, False], shape=[2, 1], datatype="BOOL"),
        ]
    }


@pytest.mark.parametrize("layout", ["matrix", "columns"])
def test_without_columns_the_fields_go_out_in_the_order_of_the_first_record(layout: Any) -> None:
    records = [{"b": 1.0, "a": 2.0}, {"a": 4.0, "b": 3.0}]
    assert _sent(records, layout=layout, columns=None) == _sent(records, layout=layout, columns=["b", "a"])


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([{"a": 1}, {"a": 1, "b": 2}], "unequal_fields"),
        ([{"a": 1, "b": 2}, {"a": 1}], "unequal_fields"),
        ([{"a": 1}, {"b": 1}], "unequal_fields"),
        ([{}], "empty_inputs"),
    ],
)
def test_without_columns_all_records_must_have_the_same_fields(records: list[dict[str, Any]], word: str) -> None:
    with pytest.raises(UnrenderableRecordError, match=f"^{word}$"):
        _sent(records, columns=None)


def test_names_outputs_parameters_and_the_model_in_the_path() -> None:
    request = OpenInferenceRequest(
        columns=["a"], input_name="x", output_names=["predict_proba"], parameters={"content_type": "np"}
    )
    encoded = request.encode("team/risk model", [1], [{"a": 1.0}])
    assert encoded.path == "/v2/models/team%2Frisk%20model/infer"
    sent = orjson.loads(encoded.body)
    assert sent["inputs"][0]["name"] == "x"
    assert sent["outputs"] == [{"name": "predict_proba"}]
    assert sent["parameters"] == {"content_type": "np"}


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        ([1, 2], None, ("INT64", [1, 2])),
        ([1, 0.5], None, ("FP64", [1.0, 0.5])),
        ([True, 2], None, ("INT64", [1, 2])),
        ([True, False], None, ("BOOL", [True, False])),
        ([1, 2], "FP32", ("FP32", [1.0, 2.0])),
        ([Decimal("0.5"), 1], None, ("FP64", [0.5, 1.0])),
        ([b"\xff", "x"], None, ("BYTES", ["/w==", "x"])),
        ([date(2026, 1, 2), uuid.UUID(int=0)], None, ("BYTES", ["2026-01-02", str(uuid.UUID(int=0))])),
        ([1e308, 1e308], None, ("FP64", [1e308, 1e308])),  # the sum overflows, the values do not
    ],
)
def test_the_datatype_follows_the_python_types(values: list[Any], datatype: str | None, expected: Any) -> None:
    tensor = _sent([{"a": value} for value in values], datatype=datatype)["inputs"][0]
    assert (tensor["datatype"], tensor["data"]) == expected
    assert all(type(got) is type(want) for got, want in zip(tensor["data"], expected[1], strict=True))


def test_numpy_scalars_are_sent_like_python_ones() -> None:
    np = pytest.importorskip("numpy", reason="NumPy comes with pyarrow")
    tensor = _sent([{"a": np.float32(0.5)}, {"a": np.int64(2)}])["inputs"][0]
    assert tensor == _tensor("predict", [0.5, 2.0], shape=[2, 1])


@pytest.mark.parametrize("layout", ["matrix", "columns"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null_value"),
        (float("nan"), "not_finite"),
        (float("-inf"), "not_finite"),
        (Decimal("NaN"), "not_finite"),
        (10**400, "not_finite"),
        ("text", "wrong_type"),
        ([1.0], "wrong_type"),
        (object(), "wrong_type"),
    ],
)
def test_what_no_tensor_can_hold_cannot_be_sent(layout: Any, value: object, reason: str) -> None:
    request = OpenInferenceRequest(columns=["a"], layout=layout)
    with pytest.raises(UnrenderableRecordError) as caught:
        request.encode("m", [1, 2], [{"a": 0.5}, {"a": value}])
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("value", "datatype"), [(0.5, "INT64"), ("x", "FP32"), (1, "BYTES"), (1, "BOOL"), (True, "BYTES")]
)
def test_a_value_that_does_not_fit_the_datatype_cannot_be_sent(value: object, datatype: str) -> None:
    with pytest.raises(UnrenderableRecordError, match="wrong_type"):
        OpenInferenceRequest(columns=["a"], datatype=datatype).encode("m", [1], [{"a": value}])


def test_a_missing_column_and_an_integer_beyond_64_bits_cannot_be_sent() -> None:
    request = OpenInferenceRequest(columns=["a", "b"])
    with pytest.raises(UnrenderableRecordError, match="missing_field"):
        request.encode("m", [1], [{"a": 1}])
    with pytest.raises(UnrenderableRecordError, match="not_encodable"):
        request.encode("m", [1], [{"a": 1, "b": 2**64}])


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (_tensor("y", [0.5, 1.5], shape=[2]), [0.5, 1.5]),
        (_tensor("y", [0.5, 1.5], shape=[2, 1]), [0.5, 1.5]),
        (_tensor("y", [[0.5], [1.5]], shape=[2, 1]), [0.5, 1.5]),
        (_tensor("y", [1.0, 2.0, 3.0, 4.0], shape=[2, 2]), [[1.0, 2.0], [3.0, 4.0]]),
        (_tensor("y", [[1.0, 2.0], [3.0, 4.0]], shape=[2, 2]), [[1.0, 2.0], [3.0, 4.0]]),
        (_tensor("y", list(range(8)), shape=[2, 2, 2], datatype="INT8"), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
        (_tensor("y", [1, 2], shape=[2]), [1.0, 2.0]),  # servers that write 1 for 1.0
        (_tensor("y", ["a", "b"], shape=[2], datatype="BYTES"), ["a", "b"]),
        (_tensor("y", [True, False], shape=[2], datatype="BOOL"), [True, False]),
    ],
)
def test_an_output_tensor_becomes_a_column(tensor: dict[str, Any], expected: list[Any]) -> None:
    outputs = _decode(tensor)
    assert outputs == [{"y": value} for value in expected]
    assert all(type(out["y"]) is type(want) for out, want in zip(outputs, expected, strict=True))


def test_each_output_is_a_column_and_output_names_choose_among_them() -> None:
    tensors = _tensor("label", [0, 1], shape=[2], datatype="INT64"), _tensor("p", [0.1, 0.9], shape=[2])
    assert _decode(*tensors) == [{"label": 0, "p": 0.1}, {"label": 1, "p": 0.9}]
    assert _decode(*tensors, output_names=["p"]) == [{"p": 0.1}, {"p": 0.9}]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (_tensor("y", [None, 1.5], shape=[2]), ["null_value", {"y": 1.5}]),
        (_tensor("y", [True, 1.5], shape=[2]), ["wrong_type", {"y": 1.5}]),
        (_tensor("y", [1, "x"], shape=[2]), [{"y": 1.0}, "wrong_type"]),
        (_tensor("y", [1, 0.5], shape=[2], datatype="INT64"), [{"y": 1}, "wrong_type"]),
        (_tensor("y", [1, 2**63], shape=[2], datatype="UINT64"), [{"y": 1}, "number_too_large"]),
        (_tensor("y", ["a\0", "b"], shape=[2], datatype="BYTES"), ["nul_character", {"y": "b"}]),
        (_tensor("y", [1.0, None, 3.0, 4.0], shape=[2, 2]), ["null_value", {"y": [3.0, 4.0]}]),
        (_tensor("y", [[{}], 1.5], shape=[2]), ["wrong_type", {"y": 1.5}]),
        (_tensor("_y", [0.5, 1.5], shape=[2]), ["reserved_column", "reserved_column"]),
        (_tensor("", [0.5, 1.5], shape=[2]), ["reserved_column", "reserved_column"]),
    ],
)
def test_an_element_that_is_not_what_its_tensor_says_spoils_its_record_only(tensor: Any, expected: Any) -> None:
    assert _decode(tensor) == expected


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ([_tensor("y", [0.5], shape=[1])], "wrong_shape"),
        ([_tensor("y", [0.5, 1, 2], shape=[3])], "wrong_shape"),
        ([_tensor("y", [0.5], shape=[2])], "wrong_shape"),
        ([_tensor("y", [[1.0], [1.0, 2.0, 3.0]], shape=[2, 3])], "wrong_shape"),
        ([_tensor("y", [], shape=[2, 0])], "wrong_shape"),
        ([_tensor("y", [1.0, 2.0], shape=[])], "wrong_shape"),
        ([_tensor("y", [1.0, 2.0], shape=[2] + [1] * 8)], "wrong_shape"),
        ([_tensor("y", [1.0, 2.0], shape=[True, 2])], "wrong_shape"),
        ([_tensor("y", [1.0, 2.0], shape=[2, 10**18, 10**18])], "wrong_shape"),
        ([_tensor("y", [1.0, 2.0], shape="2")], "wrong_shape"),
        ([_tensor("y", [1.0, 2.0], shape=[2], datatype="FP128")], "wrong_type"),
        ([{"name": "y", "shape": [2], "datatype": ["FP64"], "data": [1, 2]}], "wrong_type"),
        ([{"name": "y", "shape": [2], "datatype": "FP64"}], "no_outputs"),  # binary data extension
        ([{"shape": [2], "datatype": "FP64", "data": [1, 2]}], "no_outputs"),
        (["y"], "no_outputs"),
        ([], "no_outputs"),
        ([_tensor("y", [1.0, 2.0], shape=[2])] * 2, "duplicate_output"),
    ],
)
def test_an_answer_that_cannot_be_taken_apart_is_named_by_a_word(outputs: Any, reason: str) -> None:
    with pytest.raises(InvalidAnswerError) as caught:
        _decode(*outputs)
    assert str(caught.value) == reason


def test_an_output_that_was_asked_for_and_is_absent_is_an_invalid_answer() -> None:
    with pytest.raises(InvalidAnswerError, match="missing_output"):
        _decode(_tensor("y", [1.0, 2.0], shape=[2]), output_names=["p"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": []}, "columns must be a list of names"),
        ({"layout": "rows"}, "layout must be one of"),
        ({"datatype": "float"}, "datatype must be one of"),
        ({"input_name": ""}, "input_name must be a name"),
        ({"input_name": "x", "layout": "columns"}, "input_name must be absent"),
        ({"output_names": ["_p"]}, "must be names that do not start with '_'"),
        ({"parameters": [1]}, "parameters must be a mapping"),
        ({"parameters": {"x": object()}}, "parameters must hold plain JSON values"),
        ({"path": ""}, "path must start with '/'"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        OpenInferenceRequest(**{"columns": ["a"], **settings})


def test_identity_changes_with_the_question_and_with_nothing_else() -> None:
    identity = OpenInferenceRequest(columns=["a", "b"]).identity()
    assert orjson.loads(orjson.dumps(identity)) == identity
    assert OpenInferenceRequest(columns=["a", "b"], records_per_request=1).identity() == identity
    for other in (
        {"columns": ["b", "a"]},
        {"columns": None},
        {"layout": "columns"},
        {"datatype": "FP32"},
        {"input_name": "x"},
        {"output_names": ["p"]},
        {"parameters": {"content_type": "pd"}},
        {"path": "/x"},
    ):
        assert OpenInferenceRequest(**{"columns": ["a", "b"], **other}).identity() != identity
