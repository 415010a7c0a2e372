"""The OpenAI-compatible protocols against a real server: LitServe, with a text classifier and an embedding model."""

from __future__ import annotations

import asyncio
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint
from airflow_provider_ai.adapters.endpoints.readiness import acheck_ready
from airflow_provider_ai.core.call_inputs import output_of, records_of
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import InvalidAnswerError, Reply
from airflow_provider_ai.core.requests import OpenAIChatRequest, OpenAIEmbeddingsRequest
from tests.support.litserve import CHAT_MODEL, DIMENSIONS, EMBEDDING_MODEL

if TYPE_CHECKING:
    from tests.support.litserve import OpenAIServer

DEADLINE_SECONDS = 30.0
NOTES = {
    "emergency": "crushing chest pain, sweating",
    "urgent": "persistent vomiting since yesterday",
    "routine": "repeat prescription for tablets",
}
PRIORITY = {"type": "string", "enum": ["routine", "urgent", "emergency"]}
SCHEMA = {
    "type": "object",
    "properties": {"priority": PRIORITY, "chance": {"type": "number"}, "see_today": {"type": "boolean"}},
    "required": ["priority", "chance", "see_today"],
    "additionalProperties": False,
}

AnyRequest = OpenAIChatRequest | OpenAIEmbeddingsRequest
MODEL_OF = {"openai-chat": CHAT_MODEL, "openai-embeddings": EMBEDDING_MODEL}


class Priority(StrEnum):
    ROUTINE = "routine"
    URGENT = "urgent"
    EMERGENCY = "emergency"


class Triage(BaseModel):
    priority: Priority
    chance: float


def _settings(server: OpenAIServer, request: AnyRequest, **changes: Any) -> EndpointSettings:
    model = MODEL_OF[request.protocol]
    return EndpointSettings(**{"url": server.url, "protocol": request.protocol, "model": model, **changes})


async def _reply(server: OpenAIServer, request: AnyRequest, **changes: Any) -> Reply:
    settings = _settings(server, request, **changes)
    records = records_of(request.inputs, protocol=request.protocol)
    encoded = request.encode(settings.model, records.ids, records.records)
    async with HttpEndpoint(settings, max_response_bytes=1024 * 1024) as endpoint:
        return await endpoint.post(encoded.path, encoded.body, deadline_seconds=DEADLINE_SECONDS)


async def _output(server: OpenAIServer, request: AnyRequest, **changes: Any) -> Any:
    reply = await _reply(server, request, **changes)
    assert reply.status == 200
    records = records_of(request.inputs, protocol=request.protocol)
    return output_of(request.decode(reply.body, records.ids), records, protocol=request.protocol)


def _chat(note: str = NOTES["emergency"], **settings: Any) -> OpenAIChatRequest:
    return OpenAIChatRequest(**{"prompt": "{{ record.note }}", "inputs": {"note": note}, **settings})


async def test_text_comes_back_as_one_column(openai_server: OpenAIServer) -> None:
    """Without a schema the model's words are the output."""
    for priority, note in NOTES.items():
        assert await _output(openai_server, _chat(note)) == {"response": f"Priority: {priority}."}


@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("schema", [SCHEMA, Triage])
async def test_a_schema_comes_back_as_its_properties(openai_server: OpenAIServer, schema: Any, base: str) -> None:
    """The server takes the schema as ``response_format``, and its answer fits it."""
    request = _chat(output_schema=schema, strict=True, system="You triage notes.", parameters={"temperature": 0})
    output = await _output(openai_server, request, url=openai_server.url + base)
    assert list(output) == list(request.output_columns)
    assert output["priority"] == "emergency"
    assert 0.5 < output["chance"] <= 1


async def test_tokens_are_counted_as_the_server_reports_them(openai_server: OpenAIServer) -> None:
    """They are what a call costs."""
    reply = await _reply(openai_server, _chat("one two three"))
    usage = _chat().decode(reply.body, [0]).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 2)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"code": {"type": "string", "pattern": "^P[0-9]$"}}},
        {"type": "object", "properties": {"chance": {"type": "number", "maximum": 0.1}}},
        {"type": "object", "properties": {}, "required": ["priority"]},
    ],
)
async def test_an_answer_that_violates_the_schema_is_none(openai_server: OpenAIServer, schema: Any) -> None:
    """The model fills in types and knows nothing of the rest: HTTP 200, well-formed, and useless."""
    with pytest.raises(InvalidAnswerError, match=r"^schema_mismatch$"):
        await _output(openai_server, _chat(output_schema=schema))


async def test_texts_come_back_as_vectors_in_their_order(openai_server: OpenAIServer) -> None:
    """More of them than a batch would send in one call; equal texts have equal vectors of length 1."""
    notes = [*NOTES.values()] * 30
    request = OpenAIEmbeddingsRequest(prompt="{{ record.note }}", inputs=[{"note": note} for note in notes])
    assert len(notes) > request.records_per_request
    vectors = [output["embedding"] for output in await _output(openai_server, request)]
    assert vectors[3:] == vectors[:-3]
    assert len({tuple(vector) for vector in vectors}) == 3
    for vector in vectors[:3]:
        assert len(vector) == DIMENSIONS
        assert math.hypot(*vector) == pytest.approx(1)


async def test_vectors_have_the_dimensions_asked_for(openai_server: OpenAIServer) -> None:
    """One record gives one output, and no list."""
    output = await _output(openai_server, OpenAIEmbeddingsRequest(dimensions=8, inputs={"text": "hay fever"}))
    assert len(output["embedding"]) == 8


@pytest.mark.parametrize("request_", [_chat(), OpenAIEmbeddingsRequest(inputs={"text": "hay fever"})])
async def test_a_wrong_model_is_refused(openai_server: OpenAIServer, request_: AnyRequest) -> None:
    """HTTP 404: a mistake of the caller, which says nothing against the endpoint."""
    assert (await _reply(openai_server, request_, model="no-such-model")).status == 404


async def test_calls_side_by_side_get_their_own_answers(openai_server: OpenAIServer) -> None:
    """One endpoint, many notes at once."""
    expected = [*NOTES] * 8
    outputs = await asyncio.gather(*(_output(openai_server, _chat(NOTES[priority])) for priority in expected))
    assert [output["response"] for output in outputs] == [f"Priority: {priority}." for priority in expected]


@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("request_", [_chat(), OpenAIEmbeddingsRequest()])
async def test_the_server_is_ready(openai_server: OpenAIServer, request_: AnyRequest, base: str) -> None:
    """LitServe lists no models; its health says that the models are loaded."""
    found = await acheck_ready(_settings(openai_server, request_, url=openai_server.url + base))
    assert found.ready
    assert "lists no models" in found.detail
