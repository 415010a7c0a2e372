"""Whatever a server sends, an answer is taken apart into storable columns and known words, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from airflow_provider_ai.core.ports import Decoded, InvalidAnswerError, Request
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
    reasons,
)

WORDS = {value for name, value in vars(reasons).items() if name.isupper()}
IDS = [1, "1", "v2"]
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": ["number", "string"], "multipleOf": 0.1}, "y": {"$ref": "#/$defs/y"}},
    "$defs": {"y": {"type": "array", "items": {"$ref": "#/$defs/y"}, "uniqueItems": True}},
}


class Model(BaseModel):
    x: float | str = 0
    y: list[Any] | None = None


PROMPT = "{{ record.note }}"
REQUESTS: list[tuple[Request, int]] = [
    (JsonRequest(records_per_request=3), 3),
    (JsonRequest(output_schema=SCHEMA), 3),
    (JsonRequest(output_schema=Model), 3),
    (OpenInferenceRequest(columns=["a"]), 3),
    (OpenInferenceRequest(columns=["a"], output_names=["x"]), 3),
    (OpenAIChatRequest(prompt=PROMPT), 1),
    (OpenAIChatRequest(prompt=PROMPT, output_schema=SCHEMA), 1),
    (OpenAIChatRequest(prompt=PROMPT, output_schema=Model), 1),
    (OpenAIEmbeddingsRequest(), 3),
    (OpenAIEmbeddingsRequest(dimensions=2), 3),
]

numbers = st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(["\0", "x", "FP64", "stop", "1"])
keys = st.sampled_from(["id", "x", "y", "_x", "", "name", "shape", "data", "index", "message", "content"]) | st.text(
    max_size=4
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
output = st.fixed_dictionaries(
    {"id": st.sampled_from([*IDS, True, 1.0, [1]]) | anything, "x": anything}, optional={"y": anything}
)
tensor = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "_x"]) | anything,
        "shape": st.sampled_from([[3], [3, 1], [3, 2], [1]]) | anything,
        "datatype": st.sampled_from(["FP64", "INT64", "BYTES", "BOOL", "UINT64"]) | anything,
        "data": st.lists(scalars, min_size=3, max_size=6) | anything,
    }
)
text = anything.map(lambda value: _dumps(value).decode()) | st.text(max_size=20)
choice = st.fixed_dictionaries(
    {"message": st.fixed_dictionaries({"content": text | anything}, optional={"refusal": anything}) | anything},
    optional={"finish_reason": st.sampled_from(["stop", "length"]) | anything},
)
vector = st.fixed_dictionaries(
    {"index": st.integers(-1, 3) | anything, "embedding": st.lists(numbers, max_size=3) | anything}
)
answer = st.fixed_dictionaries(
    {},
    optional={
        "outputs": st.lists(output | tensor | anything, max_size=4) | anything,
        "choices": st.lists(choice | anything, max_size=2) | anything,
        "data": st.lists(vector | anything, max_size=4) | anything,
        "usage": anything,
        "error": anything,
    },
)


def _dumps(value: Any) -> bytes:
    """JSON that may hold integers orjson would not write."""
    return json.dumps(value, ensure_ascii=True).encode("utf-8", "surrogatepass")


def _check(body: bytes) -> None:
    for request, count in REQUESTS:
        ids = IDS[:count]
        answer = _decoded(request, body, ids)
        if isinstance(answer, str):
            assert answer in WORDS
        else:
            _check_decoded(answer, count)


def _decoded(request: Request, body: bytes, ids: list[Any]) -> Decoded | str:
    try:
        return request.decode(body, ids)
    except InvalidAnswerError as error:
        return str(error)


def _check_decoded(decoded: Decoded, count: int) -> None:
    assert len(decoded.outputs) == count
    assert 0 <= decoded.usage.prompt_tokens < 2**53
    for out in decoded.outputs:
        if isinstance(out, str):
            assert out in WORDS
        else:
            assert all(name and not name.startswith("_") for name in out)
            assert orjson.loads(orjson.dumps([[out]])) == [[out]]
            assert not _holds(out, lambda value: isinstance(value, str) and "\0" in value)
            assert not _holds(out, lambda value: type(value) is int and not -(2**63) <= value < 2**63)


def _holds(value: Any, wrong: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds(item, wrong) for pair in value.items() for item in pair)
    return any(_holds(item, wrong) for item in value) if isinstance(value, list) else wrong(value)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(answer)
def test_survives_answers_of_nearly_the_right_form(value: Any) -> None:
    _check(_dumps(value))


@settings(max_examples=100, deadline=None, print_blob=True)
@given(anything | st.just([]))
def test_survives_any_json(value: Any) -> None:
    _check(_dumps(value))


@settings(max_examples=100, deadline=None, print_blob=True)
@given(st.binary(max_size=200))
def test_survives_any_bytes(body: bytes) -> None:
    _check(body)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(answer, st.integers(0, 10_000), st.binary(max_size=4))
def test_survives_answers_cut_off_and_overwritten(value: Any, at: int, noise: bytes) -> None:
    body = _dumps(value)
    at %= len(body) + 1
    _check(body[:at])
    _check(body[:at] + noise + body[at + len(noise) :])


@pytest.mark.parametrize("depth", [10, 64, 65, 200, 255, 900, 10_000])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"y":', b"}")])
def test_survives_any_depth(depth: int, pair: tuple[bytes, bytes]) -> None:
    deep = pair[0] * depth + b"1" + pair[1] * depth
    quoted = orjson.dumps((b'{"y":' + deep + b"}").decode())
    for body in (
        deep,
        b'{"outputs":[{"id":1,"x":1,"y":' + deep + b"}]}",
        b'{"outputs":[{"name":"x","shape":[3],"datatype":"FP64","data":' + deep + b"}]}",
        b'{"choices":[{"message":{"content":' + quoted + b"}}]}",
        b'{"data":[{"index":0,"embedding":' + deep + b"}]}",
        b'{"outputs":[],"choices":[{}],"data":[],"usage":' + deep + b"}",
    ):
        _check(body)


@pytest.mark.parametrize(
    "number", [b"1e400", b"-1e400", b"1" * 400, b"NaN", b"Infinity", b"1e-400", b"18446744073709551615"]
)
def test_survives_any_number(number: bytes) -> None:
    for body in (
        b'{"outputs":[{"id":1,"x":' + number + b"}]}",
        b'{"outputs":[{"name":"x","shape":[' + number + b'],"datatype":"FP64","data":[1,2,3]}]}',
        b'{"outputs":[{"name":"x","shape":[3],"datatype":"INT64","data":[1,2,' + number + b"]}]}",
        b'{"choices":[{"message":{"content":"{\\"x\\":' + number + b'}"}}],"usage":{"prompt_tokens":' + number + b"}}",
        b'{"data":[{"index":' + number + b',"embedding":[' + number + b"]}]}",
    ):
        _check(body)
