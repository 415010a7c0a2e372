"""Over gRPC MLServer answers what it answers over REST: the same rows, the same request, the same numbers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.adapters.endpoints.readiness import Readiness, check_ready
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.requests import OpenInferenceRequest
from tests.support import clinical_data
from tests.support.mlserver import COLUMNS_MODEL, MODEL

if TYPE_CHECKING:
    from tests.support.mlserver import ModelServer

DEADLINE = 30.0
OVER_REST, OVER_GRPC = "open-inference", "open-inference-grpc"
PANDAS = {"layout": "columns", "parameters": {"content_type": "pd"}}


def settings(server: ModelServer, protocol: Any, model: str = MODEL) -> EndpointSettings:
    url = server.url if protocol == OVER_REST else f"grpc://{server.grpc_target}"
    return EndpointSettings(url=url, protocol=protocol, model=model)


def answers(server: ModelServer, protocol: str, model: str, request: OpenInferenceRequest, rows: int) -> list[Any]:
    """The outputs of the first ``rows`` patients, in calls of as many as the request takes."""
    records = clinical_data.real_rows().slice(0, rows).to_pylist()
    size = request.records_per_request

    async def call() -> list[Any]:
        outputs: list[Any] = []
        async with open_endpoint(settings(server, protocol, model), max_response_bytes=1_000_000) as endpoint:
            for start in range(0, rows, size):
                batch = records[start : start + size]
                ids = range(len(batch))
                encoded = request.encode(model, ids, batch)
                reply = await endpoint.post(encoded.path, encoded.body, deadline_seconds=DEADLINE)
                assert reply.status == 200
                outputs += request.decode(reply.body, ids).outputs
        return outputs

    return asyncio.run(call())


@pytest.mark.parametrize("records_per_request", [1, 64])
@pytest.mark.parametrize("outputs", [["predict"], ["predict_proba"], ["predict_proba", "predict"]])
@pytest.mark.parametrize(
    ("model", "shaped"),
    [(MODEL, {}), (MODEL, {"datatype": "FP32"}), (MODEL, {"datatype": "FP16"}), (COLUMNS_MODEL, PANDAS)],
    ids=["matrix", "FP32", "FP16 (raw)", "columns"],
)
def test_the_same_as_over_rest(
    model_server: ModelServer, model: str, shaped: dict[str, Any], outputs: list[str], records_per_request: int
) -> None:
    """One record or many in a call, one tensor or many, typed or raw."""
    request = OpenInferenceRequest(
        columns=clinical_data.feature_columns(),
        output_names=outputs,
        records_per_request=records_per_request,
        **shaped,
    )
    rows = 6 if records_per_request == 1 else 100
    over_grpc = answers(model_server, OVER_GRPC, model, request, rows)
    assert over_grpc == answers(model_server, OVER_REST, model, request, rows)
    assert len(over_grpc) == rows
    assert all(set(output) == set(outputs) for output in over_grpc)


def test_a_version(model_server: ModelServer) -> None:
    """A version in the path is asked for: the one there is answers, another is not found."""

    async def status(version: str) -> int:
        request = OpenInferenceRequest(columns=clinical_data.feature_columns())
        encoded = request.encode(MODEL, [1], clinical_data.real_rows().slice(0, 1).to_pylist())
        async with open_endpoint(settings(model_server, OVER_GRPC), max_response_bytes=1_000_000) as endpoint:
            path = f"/v2/models/{MODEL}/versions/{version}/infer"
            return (await endpoint.post(path, encoded.body, deadline_seconds=DEADLINE)).status

    assert [asyncio.run(status(version)) for version in ("1", "99")] == [200, 404]


def test_readiness(model_server: ModelServer) -> None:
    """The model that is served is ready; another one is not, and is named."""
    assert check_ready(settings(model_server, OVER_GRPC)) == Readiness(True, f"model {MODEL!r} is ready")
    found = check_ready(settings(model_server, OVER_GRPC, "other"))
    assert not found.ready
    assert found.detail.startswith("gRPC: model 'other' is not ready or not served here")
