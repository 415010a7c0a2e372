"""The Open Inference Protocol's JSON form to and from its gRPC form.

Sent are typed contents, which every server reads; FP16 and BF16 have none, so a request with such a tensor carries all
of its tensors raw. Answers are read in both ways. Nothing in an answer is believed: a tensor whose contents do not have
exactly the elements its shape asks for comes out without any, which the reader of the JSON finds to be a wrong shape.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelInferRequest, ModelInferResponse

_MAX_RANK = 8
_MAX_OUTPUTS = 1024
_MAX_FP32 = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]


class UntranslatableError(ValueError):
    """A request or an answer has no other form. Carries no data."""


@dataclass(frozen=True, slots=True)
class _Datatype:
    """``field``: of the typed contents, where there is one; ``code``: of :mod:`struct`, for the raw ones."""

    field: str | None
    code: str = ""
    least: float = -math.inf
    most: float = math.inf


def _whole(field: str, code: str, bits: int, *, signed: bool) -> _Datatype:
    least = -(1 << bits - 1) if signed else 0
    return _Datatype(field, code, least, least + (1 << bits) - 1)


_DATATYPES = {
    "BOOL": _Datatype("bool_contents", "?"),
    "INT8": _whole("int_contents", "b", 8, signed=True),
    "INT16": _whole("int_contents", "h", 16, signed=True),
    "INT32": _whole("int_contents", "i", 32, signed=True),
    "INT64": _whole("int64_contents", "q", 64, signed=True),
    "UINT8": _whole("uint_contents", "B", 8, signed=False),
    "UINT16": _whole("uint_contents", "H", 16, signed=False),
    "UINT32": _whole("uint_contents", "I", 32, signed=False),
    "UINT64": _whole("uint64_contents", "Q", 64, signed=False),
    "FP16": _Datatype(None, "e"),
    "BF16": _Datatype(None, "H"),
    "FP32": _Datatype("fp32_contents", "f", -_MAX_FP32, _MAX_FP32),
    "FP64": _Datatype("fp64_contents", "d"),
    "BYTES": _Datatype("bytes_contents"),
}


# --- sending


def request_message(body: bytes, *, model: str, version: str = "") -> bytes:
    """A request as protobuf. UntranslatableError when a value does not fit its datatype, or has none over gRPC."""
    try:
        request = orjson.loads(body)
        message = ModelInferRequest(model_name=model, model_version=version)
        _add_tensors(message, request["inputs"])
        for output in request.get("outputs", ()):
            message.outputs.add(name=output["name"])
        _add_parameters(message.parameters, request.get("parameters", {}))
        sent: bytes = message.SerializeToString()
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, struct.error):
        raise UntranslatableError("a tensor or a parameter has no form over gRPC") from None
    return sent


def _add_tensors(message: Any, tensors: Sequence[Mapping[str, Any]]) -> None:
    raw = any(_DATATYPES[tensor["datatype"]].field is None for tensor in tensors)
    for tensor in tensors:
        name, data = tensor["datatype"], tensor["data"]
        datatype = _DATATYPES[name]
        added = message.inputs.add(name=tensor["name"], datatype=name, shape=tensor["shape"])
        _add_parameters(added.parameters, tensor.get("parameters", {}))
        if data and name != "BYTES" and not (datatype.least <= min(data) and max(data) <= datatype.most):
            raise ValueError("out of range")
        if raw:
            message.raw_input_contents.append(_packed(name, data))
        elif datatype.field is not None:
            elements = [text.encode() for text in data] if name == "BYTES" else data
            getattr(added.contents, datatype.field).extend(elements)


def _packed(name: str, data: Sequence[Any]) -> bytes:
    if name == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    elements = [_bf16(value) for value in data] if name == "BF16" else data
    return struct.pack(f"<{len(data)}{_DATATYPES[name].code}", *elements)


def _bf16(value: float) -> int:
    """The upper half of an FP32, rounded to nearest, ties to even. OverflowError when it is beyond the largest."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    rounded = (int(bits) + 0x7FFF + ((int(bits) >> 16) & 1)) >> 16
    if rounded & 0x7F80 == 0x7F80:
        raise OverflowError
    return rounded


def _add_parameters(entries: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        entry = entries.add(key=name)
        setattr(entry.value, _parameter_field(value), value)


def _parameter_field(value: object) -> str:
    fields = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return fields[type(value)]


# --- receiving


def answer_body(message: bytes) -> bytes:
    """An answer as JSON: names, shapes, datatypes and elements. UntranslatableError when it is no such message.

    A float that is not finite and a byte string that is not UTF-8 have no JSON form: null.
    """
    answer = ModelInferResponse()
    try:
        answer.ParseFromString(message)
    except DecodeError:
        raise UntranslatableError("not a ModelInferResponse") from None
    if len(answer.outputs) > _MAX_OUTPUTS:
        raise UntranslatableError(f"more than {_MAX_OUTPUTS} outputs")
    body = {"model_name": answer.model_name, "model_version": answer.model_version, "outputs": _outputs(answer)}
    return orjson.dumps(body)


def _outputs(answer: Any) -> list[dict[str, Any]]:
    raw = answer.raw_output_contents
    if not raw:
        return [_output(tensor, None) for tensor in answer.outputs]
    sound = len(raw) == len(answer.outputs)  # else nobody can tell which belongs to which
    return [_output(tensor, raw[position] if sound else b"") for position, tensor in enumerate(answer.outputs)]


def _output(tensor: Any, raw: bytes | None) -> dict[str, Any]:
    shape = list(tensor.shape[: _MAX_RANK + 1])  # the reader refuses one size too many as it does a million
    count, name = math.prod(shape), tensor.datatype
    elements = _typed(name, count, tensor.contents) if raw is None else _unpacked(name, count, raw)
    return {"name": tensor.name, "shape": shape, "datatype": name, "data": elements}


def _typed(name: str, count: int, contents: Any) -> list[Any]:
    field = _DATATYPES[name].field if name in _DATATYPES else None
    found = getattr(contents, field) if field else ()
    if len(found) != count:
        return []
    return _texts(found) if name == "BYTES" else list(found)


def _unpacked(name: str, count: int, raw: bytes) -> list[Any]:
    if name == "BYTES":
        elements = _prefixed(raw)
        return _texts(elements) if len(elements) == count else []
    code = _DATATYPES[name].code if name in _DATATYPES else ""
    if not code or len(raw) != count * struct.calcsize(f"<{code}"):
        return []
    values = struct.unpack(f"<{count}{code}", raw)
    if name == "BF16":
        return list(struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(half << 16 for half in values))))
    return list(values)


def _prefixed(raw: bytes) -> list[bytes]:
    """Byte strings, each after its length in four bytes; none at all when the lengths do not add up."""
    elements: list[bytes] = []
    start = 0
    while start + 4 <= len(raw):
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4 + length
        elements.append(raw[start - length : start])
    return elements if start == len(raw) else []


def _texts(elements: Iterable[bytes]) -> list[str | None]:
    return [_text(element) for element in elements]


def _text(element: bytes) -> str | None:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return None
