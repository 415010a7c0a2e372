"""One caller, every protocol, the real servers: MLServer over REST and gRPC, LitServe for chat and embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Endpoint, Static
from airflow_provider_ai.core.requests import OpenAIChatRequest, OpenAIEmbeddingsRequest, OpenInferenceRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller
from tests.support.clinical_data import ID_COLUMN, real_rows
from tests.support.litserve import CHAT_MODEL, DIMENSIONS, EMBEDDING_MODEL
from tests.support.mlserver import MODEL

if TYPE_CHECKING:
    from tests.support.litserve import OpenAIServer
    from tests.support.mlserver import ModelServer

FLOOR = Static("floor")
SCHEMA = {
    "type": "object",
    "properties": {"priority": {"type": "string", "enum": ["routine", "urgent", "emergency"]}},
    "required": ["priority"],
    "additionalProperties": False,
}


def patients(count: int) -> list[dict[str, Any]]:
    """The first real patients, without their ids."""
    return [
        {name: value for name, value in row.items() if name != ID_COLUMN} for row in real_rows().to_pylist()[:count]
    ]


def rest(server: ModelServer) -> EndpointSettings:
    return EndpointSettings(url=server.url, protocol="open-inference", model=MODEL)


def grpc(server: ModelServer) -> EndpointSettings:
    return EndpointSettings(url=f"grpc://{server.grpc_target}", protocol="open-inference-grpc", model=MODEL)


@pytest.mark.parametrize("endpoint_of", [rest, grpc])
def test_one_patient_and_a_list_of_them_over_rest_and_grpc(model_server: ModelServer, endpoint_of: Any) -> None:
    """The model's verdict on real rows, the same whichever way it is asked."""
    with SyncCaller(endpoint=endpoint_of(model_server), request=OpenInferenceRequest(), fallback=[FLOOR]) as calls:
        one = calls.call(patients(1)[0])
        many = calls.call(patients(20))
    assert (one.degraded, one.source, one.model) == (False, "primary", MODEL)
    assert one.output == {"predict": 0}  # 0 is malignant: the first row of the data set
    assert many.output[0] == one.output
    assert {output["predict"] for output in many.output} == {0, 1}


def test_a_dead_rest_endpoint_falls_back_to_the_same_model_over_grpc(model_server: ModelServer) -> None:
    """One request serves both protocols."""
    dead = EndpointSettings(url="http://127.0.0.1:9", protocol="open-inference", model=MODEL)
    with SyncCaller(
        endpoint=dead, request=OpenInferenceRequest(), fallback=[Endpoint(grpc(model_server)), FLOOR]
    ) as calls:
        answer = calls.call(patients(1)[0])
    assert (answer.output, answer.source, answer.reason) == ({"predict": 0}, "endpoint", "connect")


def test_a_column_too_few_is_refused_by_the_model_and_degraded(model_server: ModelServer) -> None:
    """A real server's refusal is not an outage and carries no payload."""
    patient = patients(1)[0]
    patient.popitem()
    with SyncCaller(endpoint=rest(model_server), request=OpenInferenceRequest(), fallback=[FLOOR]) as calls:
        answer = calls.call(patient)
    assert (answer.output, answer.source) == ("floor", "static")
    assert answer.reason in ("rejected", "server_error")
    assert answer.detail in ("HTTP 400", "HTTP 422", "HTTP 500")


def test_a_chat_completion_that_fits_its_schema(openai_server: OpenAIServer) -> None:
    """JSON-schema output of a real OpenAI-compatible server, as columns."""
    endpoint = EndpointSettings(url=openai_server.url, protocol="openai-chat", model=CHAT_MODEL)
    request = OpenAIChatRequest(prompt="Triage: {{ record.note }}", output_schema=SCHEMA)
    with SyncCaller(endpoint=endpoint, request=request, fallback=[FLOOR]) as calls:
        answer = calls.call({"note": "crushing chest pain, sweating"})
    assert (answer.output, answer.degraded) == ({"priority": "emergency"}, False)


def test_embeddings_of_several_texts_in_one_call(openai_server: OpenAIServer) -> None:
    """Unit vectors, one for each text, in order."""
    endpoint = EndpointSettings(url=openai_server.url, protocol="openai-embeddings", model=EMBEDDING_MODEL)
    with SyncCaller(endpoint=endpoint, request=OpenAIEmbeddingsRequest(), fallback=[FLOOR]) as calls:
        answer = calls.call([{"text": "chest pain"}, {"text": "prescription"}])
    vectors = [output["embedding"] for output in answer.output]
    assert [len(vector) for vector in vectors] == [DIMENSIONS, DIMENSIONS]
    assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-6) for vector in vectors)
    assert vectors[0] != vectors[1]
    assert answer.attempts == 1
