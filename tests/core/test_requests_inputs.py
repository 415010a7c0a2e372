"""The inputs of a synchronous call travel with any request, and change nothing but the call they are for."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import pytest

from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.core.requests.batchable import check_batch_request
from airflow_provider_ai.exceptions import SpecError

CANARY = "PHI-4711"
REQUESTS: list[Any] = [
    JsonRequest(),
    OpenInferenceRequest(columns=["a"]),
    OpenAIChatRequest(prompt="{{ record.a }}"),
    OpenAIEmbeddingsRequest(prompt="{{ record.a }}"),
]
of_every_kind = pytest.mark.parametrize("request_", REQUESTS, ids=[request.protocol for request in REQUESTS])


@of_every_kind
@pytest.mark.parametrize("inputs", [{"a": CANARY}, [{"a": CANARY}], {"a": "{{ params.a }}"}, "{{ params.records }}"])
def test_inputs_are_no_part_of_what_a_request_is(request_: Any, inputs: Any) -> None:
    """The same question to other records has the same identity; records are never shown."""
    asked = replace(request_, inputs=inputs)
    assert asked.inputs == inputs
    assert asked.identity() == request_.identity()
    assert CANARY not in repr(asked)
    assert pickle.loads(pickle.dumps(asked)) == asked


@of_every_kind
def test_a_batch_takes_a_request_without_inputs_only(request_: Any) -> None:
    """They would be silently ignored: the records of a batch are in its files."""
    assert {field.name: field.default for field in fields(request_)}["inputs"] is None
    check_batch_request(request_)
    for inputs in ({"a": CANARY}, [], {}):
        with pytest.raises(SpecError, match="they belong to a synchronous call") as refused:
            check_batch_request(replace(request_, inputs=inputs))
        assert CANARY not in str(refused.value)


def test_a_batch_takes_tensors_with_named_columns_only() -> None:
    """The order of a file's columns is no contract with a model."""
    with pytest.raises(SpecError, match="must name its columns in a batch"):
        check_batch_request(OpenInferenceRequest())
