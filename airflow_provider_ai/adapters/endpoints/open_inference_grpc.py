"""A model endpoint over gRPC: the Open Inference Protocol's ModelInfer and ModelReady.

It takes and gives the protocol's JSON form, as the endpoint over HTTP does, so that one request class serves both. The
deadline goes out with the call, as gRPC does it. Needs the extra ``grpc``: import it where it is used.
"""

from __future__ import annotations

import re
import time
from types import TracebackType
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from airflow_provider_ai.adapters.endpoints.grpc_channel import GrpcChannel
from airflow_provider_ai.adapters.endpoints.open_inference_messages import (
    SERVICE,
    ModelReadyRequest,
    ModelReadyResponse,
)
from airflow_provider_ai.adapters.endpoints.open_inference_translation import (
    UntranslatableError,
    answer_body,
    request_message,
)
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import Reply
from airflow_provider_ai.exceptions import SpecError

_PATH = re.compile(r"/v2/models/[^/]+(?:/versions/(?P<version>[^/]+))?/infer")
_READY_BYTES = 64 * 1024
_BAD_REQUEST = 400


class GrpcEndpoint:
    """``async with GrpcEndpoint(settings, max_response_bytes=…) as endpoint``; for any event loop and thread."""

    def __init__(self, settings: EndpointSettings, *, max_response_bytes: int) -> None:
        self._model = settings.model
        self._channel = GrpcChannel(settings, max_response_bytes=max_response_bytes)

    async def __aenter__(self) -> GrpcEndpoint:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.__aexit__(kind, error, trace)

    async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The answer, or CallFailedError after at most ``deadline_seconds``.

        Of ``path`` only a model version counts. A request that has no form over gRPC is answered 400 without a call, as
        a server would; an answer that is no message of the protocol has an empty body, which is no answer either.
        """
        ends = time.monotonic() + deadline_seconds
        version = _version(path)
        try:
            message = request_message(body, model=self._model, version=version)
        except UntranslatableError:
            return Reply(_BAD_REQUEST, b"")
        left = ends - time.monotonic()
        reply = await self._channel.call(f"{SERVICE}/ModelInfer", message, deadline_seconds=left)
        if reply.status != 200:
            return reply
        try:
            return Reply(reply.status, answer_body(reply.body))
        except UntranslatableError:
            return Reply(reply.status, b"")


def _version(path: str) -> str:
    found = _PATH.fullmatch(path)
    if found is None:
        raise SpecError(f"path must be /v2/models/{{model}}[/versions/VERSION]/infer over gRPC, got {path!r}")
    return unquote(found["version"] or "")


async def ask_ready(settings: EndpointSettings, *, timeout_seconds: float) -> int:
    """ModelReady's answer as an HTTP status, 503 for a no; CallFailedError after at most ``timeout_seconds``."""
    async with GrpcChannel(settings, max_response_bytes=_READY_BYTES) as channel:
        question = ModelReadyRequest(name=settings.model).SerializeToString()
        reply = await channel.call(f"{SERVICE}/ModelReady", question, deadline_seconds=timeout_seconds)
    try:
        ready = reply.status != 200 or ModelReadyResponse.FromString(reply.body).ready
    except DecodeError:
        ready = False
    return reply.status if ready else 503
