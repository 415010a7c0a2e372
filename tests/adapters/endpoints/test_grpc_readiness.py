"""Whether a model is ready, asked over gRPC: in time, with the credentials, told in plain words."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelReadyRequest, ModelReadyResponse
from airflow_provider_ai.adapters.endpoints.readiness import Readiness, acheck_ready, check_ready
from airflow_provider_ai.exceptions import SpecError
from tests.adapters.endpoints.calling import ANSWERED, CANARIES, SECRET
from tests.adapters.endpoints.grpc_calling import grpc_settings, settled
from tests.adapters.endpoints.grpc_servers import Context, GrpcServer, says, serve_grpc
from tests.support.certificates import Authority
from tests.support.scripted_server import Wire, free_port, serve

Code = grpc.StatusCode


def answers_ready(_: bytes, __: Context) -> bytes:
    message: bytes = ModelReadyResponse(ready=True).SerializeToString()
    return message


async def ask(at: GrpcServer | str, *, timeout_seconds: float = 5.0, **changes: object) -> Readiness:
    """What is said of an endpoint; it holds no canary."""
    url = at if isinstance(at, str) else at.url
    found = await acheck_ready(grpc_settings(url, **changes), timeout_seconds=timeout_seconds)
    assert not [canary for canary in CANARIES if canary in found.detail]
    return found


async def test_ready() -> None:
    """A server that is ready is asked once, for the model, with the API key."""
    with serve_grpc(answers_ready) as server:
        assert await ask(server, model="risk") == Readiness(True, "model 'risk' is ready")
    (called,) = server.calls
    assert called.method == "/inference.GRPCInferenceService/ModelReady"
    assert ModelReadyRequest.FromString(called.message).name == "risk"
    assert called.metadata["authorization"] == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("message", [b"", b"\x08\x00", b"\xff\xff", ANSWERED.encode()])
async def test_not_ready(message: bytes) -> None:
    """A no, and what is no answer at all."""
    with serve_grpc(lambda *_: message) as server:
        found = await ask(server)
    assert found == Readiness(False, "gRPC: model 'm' is not ready or not served here (as HTTP 503)")


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        (Code.NOT_FOUND, "gRPC: model 'm' is not ready or not served here (as HTTP 404)"),
        (Code.UNAVAILABLE, "gRPC: model 'm' is not ready or not served here (as HTTP 503)"),
        (Code.INTERNAL, "gRPC: model 'm' is not ready or not served here (as HTTP 500)"),
        (Code.UNAUTHENTICATED, "gRPC: the API key is missing or refused"),
        (Code.PERMISSION_DENIED, "gRPC: the API key is missing or refused"),
        (Code.UNIMPLEMENTED, "gRPC: the server does not speak the Open Inference Protocol"),
    ],
)
async def test_what_the_server_says_instead(code: grpc.StatusCode, detail: str) -> None:
    """Each status in the words that help."""
    with serve_grpc(says(code, ANSWERED)) as server:
        assert await ask(server) == Readiness(False, detail)


async def test_down() -> None:
    """Nobody listens: not ready, and what to check is said."""
    found = await ask(f"grpc://127.0.0.1:{free_port()}")
    assert (found.ready, "check the URL" in found.detail) == (False, True)


async def mute(wire: Wire) -> None:
    await wire.until_closed()


async def test_slow() -> None:
    """A server that says nothing is not ready once the timeout is over, and is let go."""
    async with serve(mute) as server:
        started = time.monotonic()
        assert await ask(f"grpc://127.0.0.1:{server.port}", timeout_seconds=0.3) == Readiness(
            False, "no answer within 0.3 s"
        )
        assert time.monotonic() - started < 0.6
        await server.until_nothing_is_open()


async def test_over_tls(authority: Authority) -> None:
    """The TLS settings are those of the calls, and what is wrong is said."""
    with serve_grpc(answers_ready, tls=authority.issue()) as server:
        assert (await ask(server, ca_file=authority.ca_file)).ready
        found = await ask(server)
    assert not found.ready
    assert found.detail.startswith("TLS fails (unable to get local issuer certificate): check ca_file")


async def test_files_that_cannot_be_used() -> None:
    """TLS files that cannot be loaded are a mistake in the settings, not a server that is not ready."""
    with pytest.raises(SpecError, match="ca_file"):
        await ask("grpcs://127.0.0.1:1", ca_file="/nowhere/ca.pem")


async def test_cancelled() -> None:
    """A question that is cancelled, as a trigger is, leaves no connection."""
    async with serve(mute) as server:
        asked = asyncio.create_task(ask(f"grpc://127.0.0.1:{server.port}", timeout_seconds=2.0))
        await settled(lambda: server.opened)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await server.until_nothing_is_open()


def test_without_an_event_loop() -> None:
    """The same for callers without an event loop."""
    with serve_grpc(answers_ready) as server:
        assert check_ready(grpc_settings(server.url)).ready
