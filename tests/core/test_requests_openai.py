"""Protocols ``openai-chat`` and ``openai-embeddings``: prompts, answers, refusals and vectors."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field, field_validator

from airflow_provider_ai.core.ports import InvalidAnswerError, Request, UnrenderableRecordError
from airflow_provider_ai.core.requests import JsonRequest, OpenAIChatRequest, OpenAIEmbeddingsRequest
from airflow_provider_ai.exceptions import SpecError

PROMPT = "Rate: {{ record.note }}"
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "number"}, "why": {"type": "string"}},
    "required": ["score"],
    "additionalProperties": False,
}


class Rating(BaseModel):
    """A model whose validators have opinions of their own."""

    score: float = Field(alias="Score", le=1)
    why: str = "-"

    @field_validator("why")
    @classmethod
    def _no_secrets(cls, why: str) -> str:
        if why == "crash":
            raise KeyError(why)  # a bug in a validator, not a ValueError
        return why


def _choice(content: Any = "fine", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}


def _decode(choice: Any, **settings: Any) -> Any:
    request: Request = OpenAIChatRequest(**{"prompt": PROMPT, **settings})
    decoded = request.decode(orjson.dumps({"choices": [choice]}), ["v1"])
    (output,) = decoded.outputs
    return output


# --- chat: sending


def test_sends_system_and_user_messages_and_the_parameters() -> None:
    request = OpenAIChatRequest(
        prompt=PROMPT, system="For {{ record.ward }}", parameters={"temperature": 0, "max_tokens": 100}
    )
    encoded = request.encode("gpt", ["v1"], [{"note": "ok", "ward": "B"}])
    assert encoded.path == "/v1/chat/completions"
    assert orjson.loads(encoded.body) == {
        "model": "gpt",
        "messages": [{"role": "system", "content": "For B"}, {"role": "user", "content": "Rate: ok"}],
        "temperature": 0,
        "max_tokens": 100,
    }


@pytest.mark.parametrize(
    ("parameters", "completion"),
    [
        ({}, 0),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 50, "max_tokens": 100}, 50),
        ({"max_tokens": -1}, 0),
    ],
)
def test_estimates_a_token_for_four_characters_plus_the_completion(parameters: Any, completion: int) -> None:
    encoded = OpenAIChatRequest(prompt=PROMPT, parameters=parameters).encode("m", ["v1"], [{"note": "ü" * 50}])
    assert encoded.estimated_tokens == math.ceil(len(encoded.body.decode()) / 4) + completion


@pytest.mark.parametrize("strict", [False, True])
def test_a_schema_is_sent_as_response_format(strict: bool) -> None:
    request = OpenAIChatRequest(prompt=PROMPT, output_schema=SCHEMA, strict=strict)
    sent = orjson.loads(request.encode("m", ["v1"], [{"note": "ok"}]).body)["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA, "strict": strict}}


def test_a_pydantic_model_is_sent_as_its_json_schema() -> None:
    request = OpenAIChatRequest(prompt=PROMPT, output_schema=Rating)
    sent = orjson.loads(request.encode("m", ["v1"], [{"note": "ok"}]).body)["response_format"]["json_schema"]
    assert (sent["name"], sent["schema"]) == ("Rating", Rating.model_json_schema())


# --- chat: receiving


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (_choice("fine"), {"response": "fine"}),
        (_choice("fine", None), {"response": "fine"}),  # servers that never say why they stopped
        (_choice("fi", "length"), "length"),
        (_choice("", "content_filter"), "content_filter"),
        (_choice(None, refusal="I can't help with that"), "refusal"),
        (_choice("no", refusal="I can't help with that"), "refusal"),
        (_choice(None), "empty"),
        (_choice(" \n"), "empty"),
        (_choice([{"type": "text"}]), "wrong_type"),
        (_choice("a\0b"), "nul_character"),
        (_choice(r"a\u0000b"), {"response": r"a\u0000b"}),
        ({"message": "fine"}, "missing_output"),
        ({}, "missing_output"),
        (_choice("fine", ["stop"]), {"response": "fine"}),
    ],
)
def test_the_text_of_a_completion_is_the_output(choice: Any, expected: Any) -> None:
    assert _decode(choice) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"score": 0.5}', {"score": 0.5}),
        (' {"score": 1, "why": "x"}\n', {"score": 1, "why": "x"}),
        ('{"score": "high"}', "schema_mismatch"),
        ('{"score": 1, "other": 2}', "schema_mismatch"),
        ("[1]", "not_an_object"),
        ("score: 1", "not_json"),
        ('{"score": NaN}', "not_json"),
        ('{"score": 1e400}', "not_json"),
        ('{"score": 1, "why": "\\u0000"}', "nul_character"),
        ('{"score": ' + "[" * 5000, "not_json"),
        ('{"score": 9223372036854775808}', "number_too_large"),
    ],
)
def test_with_a_schema_the_properties_are_the_columns(content: str, expected: Any) -> None:
    assert _decode(_choice(content), output_schema=SCHEMA) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"Score": 0.5}', {"score": 0.5, "why": "-"}),  # field names and defaults, as the class says
        ('{"Score": "0.5"}', {"score": 0.5, "why": "-"}),
        ('{"Score": "nan"}', "schema_mismatch"),
        ('{"Score": 2}', "schema_mismatch"),
        ('{"Score": 1, "why": "crash"}', "schema_mismatch"),
        ("{}", "schema_mismatch"),
    ],
)
def test_a_pydantic_model_validates_and_names_the_columns(content: str, expected: Any) -> None:
    assert _decode(_choice(content), output_schema=Rating) == expected


def test_a_json_answer_can_be_validated_by_a_pydantic_model_too() -> None:
    body = b'{"outputs": [{"id": 1, "Score": 0.5}, {"id": 2, "Score": 5}]}'
    decoded = JsonRequest(output_schema=Rating).decode(body, [1, 2])
    assert list(decoded.outputs) == [{"score": 0.5, "why": "-"}, "schema_mismatch"]


def test_usage_is_taken_from_the_answer() -> None:
    body = {"choices": [_choice()], "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}}
    usage = OpenAIChatRequest(prompt=PROMPT).decode(orjson.dumps(body), ["v1"]).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (12, 3)


@pytest.mark.parametrize("usage", [None, 7, {"prompt_tokens": True}, {"prompt_tokens": 1e9}, {"prompt_tokens": 2**60}])
def test_usage_that_makes_no_sense_counts_as_none(usage: Any) -> None:
    decoded = OpenAIChatRequest(prompt=PROMPT).decode(orjson.dumps({"choices": [_choice()], "usage": usage}), ["v1"])
    assert (decoded.usage.prompt_tokens, decoded.usage.completion_tokens) == (0, 0)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": {}}, {"choices": [None]}, {"error": {"code": 1}}])
def test_an_answer_without_a_choice_is_invalid(body: Any) -> None:
    with pytest.raises(InvalidAnswerError, match="no_outputs"):
        OpenAIChatRequest(prompt=PROMPT).decode(orjson.dumps(body), ["v1"])


# --- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": {"stream": True}}, r"must not set what the request itself sets, got \['stream'\]"),
        ({"parameters": {"n": 2, "model": "x"}}, r"got \['model', 'n'\]"),
        ({"parameters": {"response_format": {}}, "output_schema": SCHEMA}, r"got \['response_format'\]"),
        ({"output_column": "_x"}, "must be names that do not start with '_'"),
        ({"output_column": ""}, "must be names that do not start with '_'"),
        ({"strict": 1}, "strict must be true or false"),
        ({"output_schema": "schema"}, "must be a JSON schema or a Pydantic model class, got 'schema'"),
        ({"output_schema": {"type": "array"}}, "must describe an object"),
        ({"output_schema": {"type": "nothing"}}, "no valid JSON schema"),
        ({"output_schema": {"properties": {"x": {"pattern": "("}}}}, "no valid JSON schema"),
        (
            {"output_schema": {"properties": {"x": {"$ref": "https://example.org/x"}}}},
            "must hold everything it refers to",
        ),
        ({"output_schema": {"properties": {"x": {"$ref": "#/$defs/x"}}}}, "must hold everything it refers to"),
        ({"output_schema": {"default": object()}}, "plain JSON values"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        OpenAIChatRequest(**{"prompt": PROMPT, **settings})


def test_a_pydantic_class_without_a_json_schema_is_refused() -> None:
    class Odd(BaseModel):
        call: Callable[[], int]

    with pytest.raises(SpecError, match="output_schema Odd cannot be used"):
        OpenAIChatRequest(prompt=PROMPT, output_schema=Odd)


def test_a_schema_may_refer_to_itself() -> None:
    schema = {
        "$id": "https://example.org/tree",
        "type": "object",
        "properties": {"child": {"$ref": "#"}, "leaf": {"$ref": "#/$defs/leaf"}},
        "$defs": {"leaf": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert _decode(_choice('{"child": {"leaf": 1}}'), output_schema=schema) == {"child": {"leaf": 1}}
    assert _decode(_choice('{"child": {"leaf": "x"}}'), output_schema=schema) == "schema_mismatch"
    deep = '{"child":' * 900 + "{}" + "}" * 900  # deeper than the validator can follow
    assert _decode(_choice(deep), output_schema=schema) == "schema_mismatch"


def test_requests_can_be_copied_and_pickled_as_airflow_does() -> None:
    for request in (
        OpenAIChatRequest(prompt=PROMPT, output_schema=SCHEMA),
        OpenAIChatRequest(prompt=PROMPT, output_schema=Rating),
    ):
        for again in (copy.deepcopy(request), pickle.loads(pickle.dumps(request))):
            assert again == request
            assert again.identity() == request.identity()
            assert again.decode(orjson.dumps({"choices": [_choice("{}")]}), [1]).outputs == ["schema_mismatch"]


def test_identity_changes_with_the_question_and_with_nothing_else() -> None:
    identity = OpenAIChatRequest(prompt=PROMPT, output_schema=Rating).identity()
    assert orjson.loads(orjson.dumps(identity)) == identity
    for other in (
        {"prompt": PROMPT + "!"},
        {"system": "Be brief."},
        {"output_schema": SCHEMA},
        {"output_schema": Rating.model_json_schema()},  # names the columns by alias
        {"parameters": {"temperature": 0}},
        {"path": "/x"},
        {"strict": True},
    ):
        settings = {"prompt": PROMPT, "output_schema": Rating, **other}
        assert OpenAIChatRequest(**settings).identity() != identity


# --- embeddings


def _vectors(*items: tuple[Any, Any], count: int = 2, **settings: Any) -> Any:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in items]
    request: Request = OpenAIEmbeddingsRequest(**settings)
    return list(request.decode(orjson.dumps({"data": data, "model": "m"}), list(range(count))).outputs)


def test_embeddings_sends_the_texts_in_order() -> None:
    encoded = OpenAIEmbeddingsRequest(dimensions=8).encode("m", [1, 2], [{"text": "a"}, {"text": "b"}])
    assert encoded.path == "/v1/embeddings"
    assert orjson.loads(encoded.body) == {"model": "m", "input": ["a", "b"], "dimensions": 8}


def test_one_empty_text_is_not_sent_for_it_would_fail_the_whole_call() -> None:
    with pytest.raises(UnrenderableRecordError, match="empty_prompt"):
        OpenAIEmbeddingsRequest().encode("m", [1, 2], [{"text": "a"}, {"text": " "}])


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([(1, [2.0]), (0, [1.0])], [[1.0], [2.0]]),
        ([(0, [1, 0.5]), (1, [1.0, 2.0])], [[1.0, 0.5], [1.0, 2.0]]),
        ([(0, [1.0])], [[1.0], "missing_output"]),
        ([(0, [1.0]), (1, [2.0]), (1, [2.0])], [[1.0], "duplicate_output"]),
        ([(0, [1.0]), (2, [2.0]), (-1, [2.0]), (True, [2.0]), ("1", [2.0])], [[1.0], "missing_output"]),
        ([(0, [1.0]), (1, "base64==")], [[1.0], "wrong_type"]),
        ([(0, [1.0]), (1, [])], [[1.0], "wrong_type"]),
        ([(0, [1.0]), (1, [None])], [[1.0], "wrong_type"]),
        ([(0, [1.0]), (1, [True])], [[1.0], "wrong_type"]),
    ],
)
def test_vectors_are_matched_by_index(items: Any, expected: Any) -> None:
    assert _vectors(*items) == [want if isinstance(want, str) else {"embedding": want} for want in expected]


def test_vectors_of_different_lengths_are_an_invalid_answer() -> None:
    with pytest.raises(InvalidAnswerError, match="wrong_shape"):
        _vectors((0, [1.0]), (1, [1.0, 2.0]))


def test_a_vector_without_the_dimensions_asked_for_spoils_its_record_only() -> None:
    assert _vectors((0, [1.0]), (1, [1.0, 2.0]), dimensions=2) == ["wrong_shape", {"embedding": [1.0, 2.0]}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "constant"}, "all vectors are the same"),
        ({"dimensions": 0}, "dimensions must be an integer ≥ 1"),
        ({"records_per_request": 0}, "records_per_request must be an integer ≥ 1"),
        ({"output_column": "_e"}, "must be names that do not start with '_'"),
        ({"path": "v1"}, "path must start with '/'"),
    ],
)
def test_embedding_settings_that_cannot_be_right_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        OpenAIEmbeddingsRequest(**settings)


def test_embedding_identity_changes_with_the_question_and_with_nothing_else() -> None:
    identity = OpenAIEmbeddingsRequest().identity()
    assert OpenAIEmbeddingsRequest(records_per_request=1).identity() == identity
    for other in ({"dimensions": 8}, {"prompt": "{{ record.x }}"}, {"output_column": "v"}, {"path": "/x"}):
        assert OpenAIEmbeddingsRequest(**other).identity() != identity
