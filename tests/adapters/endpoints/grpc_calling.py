"""Calls to a gRPC server on loopback, with canaries in everything that must never be seen in an error or a log."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from airflow_provider_ai.adapters.endpoints.open_inference_grpc import GrpcEndpoint
from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelInferResponse
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError, Reply
from tests.adapters.endpoints.calling import CANARIES, MAX_BYTES, SECRET, SENT
from tests.adapters.endpoints.grpc_servers import GrpcServer
from tests.support.scripted_server import SETTLE_SECONDS

PATH = "/v2/models/m/infer"
BODY = orjson.dumps({"inputs": [{"name": "note", "shape": [1, 1], "datatype": "BYTES", "data": [SENT]}]})


def grpc_settings(url: str, **changes: Any) -> EndpointSettings:
    return EndpointSettings(
        **{"url": url, "protocol": "open-inference-grpc", "model": "m", "api_key": SECRET, **changes}
    )


def output(*data: float, name: str = "y") -> bytes:
    """An answer with one tensor of FP64."""
    answer = ModelInferResponse(model_name="m", model_version="1")
    tensor = answer.outputs.add(name=name, datatype="FP64", shape=[len(data), 1])
    tensor.contents.fp64_contents.extend(data)
    message: bytes = answer.SerializeToString()
    return message


@asynccontextmanager
async def endpoint(
    at: GrpcServer | str, *, max_response_bytes: int = MAX_BYTES, **changes: Any
) -> AsyncIterator[GrpcEndpoint]:
    """An open endpoint at a server or a URL; ``changes`` are settings."""
    url = at if isinstance(at, str) else at.url
    async with GrpcEndpoint(grpc_settings(url, **changes), max_response_bytes=max_response_bytes) as opened:
        yield opened


async def post(opened: GrpcEndpoint, *, body: bytes = BODY, deadline_seconds: float = 5.0) -> Reply:
    return await opened.post(PATH, body, deadline_seconds=deadline_seconds)


async def settled(holds: Callable[[], object]) -> None:
    """Wait until a function says true, for what happens in threads."""
    ends = time.monotonic() + SETTLE_SECONDS
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


async def failure(opened: GrpcEndpoint, *, body: bytes = BODY, deadline_seconds: float = 5.0) -> CallFailedError:
    """How a call fails; what would be printed of it holds no canary."""
    with pytest.raises(CallFailedError) as caught:
        await post(opened, body=body, deadline_seconds=deadline_seconds)
    printed = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [canary for canary in CANARIES if canary in printed]
    return caught.value
