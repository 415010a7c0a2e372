"""The Open Inference Protocol's JSON form and its gRPC form say the same; what says nothing is found out."""

from __future__ import annotations

import math
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelInferRequest, ModelInferResponse
from airflow_provider_ai.adapters.endpoints.open_inference_translation import (
    UntranslatableError,
    answer_body,
    request_message,
)
from airflow_provider_ai.core.ports import InvalidAnswerError
from airflow_provider_ai.core.requests import OpenInferenceRequest
from airflow_provider_ai.core.requests.open_inference import DATATYPES

untimed = settings(deadline=None)  # a busy machine is not a failure
FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
HALF = ("FP16", "BF16")
DATA: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP16": [0.5, -65504.0],
    "BF16": [0.5, -3.0e38],
    "FP32": [0.1, -3.4e38],
    "FP64": [0.1, -1.7e308],
    "BYTES": ["", "grün"],
}
# Raw, little endian, as the protocol's tensor contents are defined.
RAW = {
    "BOOL": b"\x01\x00",
    "INT8": b"\x80\x7f",
    "INT16": b"\x00\x80\xff\x7f",
    "INT32": b"\x00\x00\x00\x80\xff\xff\xff\x7f",
    "INT64": b"\x00" * 7 + b"\x80" + b"\xff" * 7 + b"\x7f",
    "UINT8": b"\x00\xff",
    "UINT16": b"\x00\x00\xff\xff",
    "UINT32": b"\x00" * 4 + b"\xff" * 4,
    "UINT64": b"\x00" * 8 + b"\xff" * 8,
    "FP16": b"\x00\x38\xff\xfb",
    "BF16": b"\x00\x3f\x62\xff",
    "FP32": struct.pack("<2f", 0.1, -3.4e38),
    "FP64": struct.pack("<2d", 0.1, -1.7e308),
    "BYTES": b"\x00\x00\x00\x00\x05\x00\x00\x00gr\xc3\xbcn",
}


def tensor(datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [len(data)], "datatype": datatype, "data": data, **more}


def sent(*tensors: Any, **more: Any) -> Any:
    """The message made of a request with these inputs, read back."""
    return ModelInferRequest.FromString(request_message(orjson.dumps({"inputs": tensors, **more}), model="m"))


def received(*outputs: dict[str, Any], raw: list[bytes] | None = None) -> list[dict[str, Any]]:
    """The outputs read from an answer; ``contents``: field → elements."""
    message = ModelInferResponse(model_name="m", model_version="7", raw_output_contents=raw or [])
    for one in outputs:
        contents = one.pop("contents", {})
        added = message.outputs.add(**one)
        for field, elements in contents.items():
            getattr(added.contents, field).extend(elements)
    body = orjson.loads(answer_body(message.SerializeToString()))
    assert (body["model_name"], body["model_version"]) == ("m", "7")
    return list(body["outputs"])


def test_every_datatype_is_known() -> None:
    """The tables of this file, of the translation and of the request name the same datatypes."""
    assert set(DATA) == set(RAW) == {*FIELD, *HALF} == set(DATATYPES)


@pytest.mark.parametrize("datatype", FIELD)
def test_a_tensor_is_sent_in_its_typed_field(datatype: str) -> None:
    """Name, shape and datatype as they are, the elements in the field of the datatype and in no other."""
    (one,) = sent(tensor(datatype, DATA[datatype])).inputs
    assert (one.name, list(one.shape), one.datatype) == ("x", [2], datatype)
    assert [field.name for field, _ in one.contents.ListFields()] == [FIELD[datatype]]
    elements = list(getattr(one.contents, FIELD[datatype]))
    wanted = [text.encode() for text in DATA["BYTES"]] if datatype == "BYTES" else DATA[datatype]
    assert elements == (pytest.approx(wanted) if datatype == "FP32" else wanted)


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_half_makes_all_tensors_raw(datatype: str, half: str) -> None:
    """Raw contents are for all inputs or for none, and stand in the inputs' order."""
    message = sent(tensor(datatype, DATA[datatype]), tensor(half, DATA[half]))
    assert not any(one.HasField("contents") for one in message.inputs)
    first, second = message.raw_input_contents
    assert second == RAW[half]
    assert first == RAW[datatype]


@pytest.mark.parametrize(
    ("value", "bits"),
    [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-0.0, 0x8000), (3.38e38, 0x7F7E), (1e-45, 0x0000)],
)
def test_bf16_rounds_to_nearest_even(value: float, bits: int) -> None:
    """Ties go to the even neighbour, as hardware rounds."""
    (raw,) = sent(tensor("BF16", [value])).raw_input_contents
    assert raw == bits.to_bytes(2, "little")


def test_the_rest_of_a_request() -> None:
    """Model, version, outputs and parameters; a parameter that is 0, false or empty is sent all the same."""
    parameters = {"s": "np", "empty": "", "i": 0, "b": False, "d": 0.5}
    body = {
        "inputs": [tensor("FP64", [1.0], parameters={"content_type": "np"})],
        "outputs": [{"name": "a"}, {"name": "b"}],
        "parameters": parameters,
    }
    message = ModelInferRequest.FromString(request_message(orjson.dumps(body), model="team/risk", version="3"))
    assert (message.model_name, message.model_version) == ("team/risk", "3")
    assert [one.name for one in message.outputs] == ["a", "b"]
    found = {one.key: getattr(one.value, one.value.WhichOneof("choice")) for one in message.parameters}
    assert (found, [type(value) for value in found.values()]) == (parameters, [str, str, int, bool, float])
    assert message.inputs[0].parameters[0].value.string_param == "np"


NO_REQUEST: dict[str, Any] = {
    "an INT8 too large": {"inputs": [tensor("INT8", [128])]},
    "an INT16 too small": {"inputs": [tensor("INT16", [-(2**15) - 1])]},
    "a negative UINT64": {"inputs": [tensor("UINT64", [-1])]},
    "an INT64 too large": {"inputs": [tensor("INT64", [2**63])]},
    "an FP32 too large": {"inputs": [tensor("FP32", [3.5e38])]},
    "an FP16 too large": {"inputs": [tensor("FP16", [65536.0])]},
    "a BF16 too large": {"inputs": [tensor("BF16", [3.4e38])]},
    "a text among numbers": {"inputs": [tensor("FP64", [1.0, "x"])]},
    "a number among texts": {"inputs": [tensor("BYTES", ["x", 1])]},
    "a null": {"inputs": [tensor("FP64", [None])]},
    "a fraction as integer": {"inputs": [tensor("INT64", [1.5])]},
    "nested data": {"inputs": [tensor("FP64", [[1.0]])]},
    "a datatype that is none": {"inputs": [tensor("FP8", [1.0])]},
    "a shape that is none": {"inputs": [{**tensor("FP64", [1.0]), "shape": ["n"]}]},
    "a parameter that is a list": {"inputs": [], "parameters": {"p": [1]}},
    "a parameter that is null": {"inputs": [], "parameters": {"p": None}},
    "no inputs": {},
    "a list": [],
}


@pytest.mark.parametrize("case", NO_REQUEST)
def test_what_has_no_form_over_grpc(case: str) -> None:
    """It is refused without a word of the data."""
    with pytest.raises(UntranslatableError) as caught:
        request_message(orjson.dumps(NO_REQUEST[case]), model="m")
    assert str(caught.value) == "a tensor or a parameter has no form over gRPC"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("datatype", FIELD)
def test_typed_contents_are_read(datatype: str) -> None:
    """Every datatype that has a typed field."""
    elements = [text.encode() for text in DATA["BYTES"]] if datatype == "BYTES" else DATA[datatype]
    (one,) = received({"name": "y", "datatype": datatype, "shape": [2], "contents": {FIELD[datatype]: elements}})
    assert one == {"name": "y", "datatype": datatype, "shape": [2], "data": one["data"]}
    assert one["data"] == (pytest.approx(DATA[datatype]) if datatype == "FP32" else DATA[datatype])
    assert {*map(type, one["data"])} == {*map(type, DATA[datatype])}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_contents_are_read(datatype: str) -> None:
    """Every datatype, each output its own contents."""
    other = {"name": "z", "datatype": "INT8", "shape": [1]}
    one, last = received({"name": "y", "datatype": datatype, "shape": [2, 1]}, other, raw=[RAW[datatype], b"\x05"])
    assert one["data"] == (DATA[datatype] if datatype not in ("FP32", "BF16") else pytest.approx(DATA[datatype], 0.01))
    assert {*map(type, one["data"])} == {*map(type, DATA[datatype])}
    assert last["data"] == [5]


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("change", [-1, 1])
def test_raw_contents_of_another_size(datatype: str, change: int) -> None:
    """A byte less or more than the shape asks for: none of the elements is believed."""
    raw = RAW[datatype][:-1] if change < 0 else RAW[datatype] + b"\0"
    (one,) = received({"name": "y", "datatype": datatype, "shape": [2]}, raw=[raw])
    assert one["data"] == []


WRONG: dict[str, dict[str, Any]] = {
    "too few elements": {"shape": [3], "contents": {"fp64_contents": [1.0, 2.0]}},
    "too many elements": {"shape": [1], "contents": {"fp64_contents": [1.0, 2.0]}},
    "elements in another field": {"shape": [2], "contents": {"fp32_contents": [1.0, 2.0]}},
    "no contents": {"shape": [2]},
    "a shape without sizes": {"shape": [], "contents": {"fp64_contents": [1.0, 2.0]}},
    "a negative shape": {"shape": [-1, -2], "contents": {"fp64_contents": [1.0, 2.0]}},
    "a shape beyond all numbers": {"shape": [2**62] * 8, "contents": {"fp64_contents": [1.0]}},
    "a shape of too many sizes": {"shape": [2] + [1] * 8, "contents": {"fp64_contents": [1.0, 2.0]}},
    "a shape of a million sizes": {"shape": [2**62] * 1_000_000, "contents": {"fp64_contents": [1.0, 2.0]}},
    "a datatype that is none": {"shape": [2], "datatype": "FP8", "contents": {"fp64_contents": [1.0, 2.0]}},
    "no datatype": {"shape": [2], "datatype": "", "contents": {"fp64_contents": [1.0, 2.0]}},
}


@pytest.mark.parametrize("case", WRONG)
def test_an_output_that_is_not_what_it_says(case: str) -> None:
    """The reader of the JSON refuses the answer as a whole, and soon."""
    message = ModelInferResponse()
    wrong = {"name": "y", "datatype": "FP64", **WRONG[case]}
    contents = wrong.pop("contents", {})
    added = message.outputs.add(**wrong)
    for field, elements in contents.items():
        getattr(added.contents, field).extend(elements)
    body = answer_body(message.SerializeToString())
    with pytest.raises(InvalidAnswerError):
        OpenInferenceRequest(columns=["a"]).decode(body, [1, 2])


@pytest.mark.parametrize("raws", [1, 3])
def test_more_or_fewer_raw_contents_than_outputs(raws: int) -> None:
    """Nobody can tell which belongs to which, so all outputs come without elements."""
    outputs = [{"name": name, "datatype": "INT8", "shape": [1]} for name in "yz"]
    assert [one["data"] for one in received(*outputs, raw=[b"\x05"] * raws)] == [[], []]


BAD_BYTES = {
    "a length beyond the end": b"\x06\x00\x00\x00hello",
    "a length beyond all ends": b"\xff\xff\xff\xffhello",
    "half a length": b"\x01\x00\x00\x00a\x01\x00",
    "one element too few": b"\x01\x00\x00\x00a",
    "one element too many": b"\x00\x00\x00\x00" * 3,
}


@pytest.mark.parametrize("case", BAD_BYTES)
def test_raw_byte_strings_whose_lengths_lie(case: str) -> None:
    """Nothing is read beyond the end, and nothing is believed."""
    assert received({"name": "y", "datatype": "BYTES", "shape": [2]}, raw=[BAD_BYTES[case]])[0]["data"] == []


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_floats_without_a_form_in_json(datatype: str) -> None:
    """NaN and the infinities become null, which the reader finds to be no value."""
    exponent = {"FP16": b"\x00\x7e\x00\x7c", "BF16": b"\xc0\x7f\x80\x7f"}
    code = {"FP32": "<2f", "FP64": "<2d"}
    raw = exponent.get(datatype) or struct.pack(code[datatype], float("nan"), float("inf"))
    (one,) = received({"name": "y", "datatype": datatype, "shape": [2]}, raw=[raw])
    assert one["data"] == [None, None]


def test_byte_strings_that_are_no_text() -> None:
    """Bytes that are not UTF-8 become null: text made up of them would be something else."""
    (one,) = received({"name": "y", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": [b"\xff", b"a"]}})
    assert one["data"] == [None, "a"]


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05ab", b"\x2a\x03\x0a\x01\xff", b"<html>" * 10])
def test_what_is_no_message(message: bytes) -> None:
    """Broken wire format and names that are not UTF-8 are no answer."""
    with pytest.raises(UntranslatableError):
        answer_body(message)


def test_too_many_outputs() -> None:
    """A message of nothing but outputs is refused before each of them becomes a Python object."""
    with pytest.raises(UntranslatableError, match="more than 1024 outputs"):
        answer_body(b"\x2a\x00" * 1025)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    "FP16": st.floats(allow_nan=False, allow_infinity=False, width=16),
    "BF16": st.integers(0, 0xFFFF)
    .filter(lambda bits: bits & 0x7F80 != 0x7F80)
    .map(lambda bits: float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])),
    "FP32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "FP64": FLOATS,
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("datatype", DATATYPES)
@untimed
@given(data=st.data(), raw=st.booleans())
def test_there_and_back(datatype: str, data: st.DataObject, raw: bool) -> None:
    """What a server that echoes its inputs answers is what was sent, typed or raw."""
    elements = data.draw(st.lists(ELEMENTS[datatype], min_size=1, max_size=20))
    inputs = [tensor(datatype, elements)] + ([tensor("FP16", [1.0])] if raw else [])
    message = sent(*inputs)
    answer = ModelInferResponse(raw_output_contents=message.raw_input_contents)
    for one in message.inputs:
        answer.outputs.add(name="y", datatype=one.datatype, shape=one.shape).contents.MergeFromString(
            one.contents.SerializeToString()
        )
    assert orjson.loads(answer_body(answer.SerializeToString()))["outputs"][0]["data"] == elements


@untimed
@given(message=st.binary(max_size=200))
def test_any_bytes_end_in_an_answer_or_a_refusal(message: bytes) -> None:
    """No other error comes out, whatever a server sends."""
    try:
        body = answer_body(message)
    except UntranslatableError:
        return
    assert "outputs" in orjson.loads(body)


@untimed
@given(
    raw=st.binary(max_size=64),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 8), max_size=9),
    datatype=st.sampled_from([*DATATYPES, "FP8"]),
)
def test_any_raw_contents_under_any_shape(raw: bytes, shape: list[int], datatype: str) -> None:
    """Elements come out only as many as the shape asks for."""
    (one,) = received({"name": "y", "datatype": datatype, "shape": shape}, raw=[raw])
    assert one["data"] == [] or len(one["data"]) == math.prod(shape)
