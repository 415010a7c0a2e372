"""What a GrpcEndpoint sends and what it hands back, seen from the server."""

from __future__ import annotations

import asyncio
import threading
import time

import orjson
import pytest

from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint
from airflow_provider_ai.adapters.endpoints.open_inference_grpc import GrpcEndpoint
from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelInferRequest
from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import SpecError
from tests.adapters.endpoints.calling import SECRET, SENT
from tests.adapters.endpoints.grpc_calling import BODY, PATH, endpoint, failure, grpc_settings, output, post, settled
from tests.adapters.endpoints.grpc_servers import Context, serve_grpc
from tests.support.scripted_server import SETTLE_SECONDS, free_port


def answers_one(_: bytes, __: Context) -> bytes:
    return output(0.5)


def answers_late(_: bytes, __: Context) -> bytes:
    time.sleep(0.2)
    return output(0.5)


async def test_the_request_as_sent() -> None:
    """One ModelInfer with the tensors as given, the API key as bearer token and the extra headers as metadata."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server, headers={"X-Tenant": "clinic", "authorization": "Basic eDp5"}) as opened:
            reply = await post(opened)
    assert (reply.status, reply.retry_after) == (200, None)
    assert orjson.loads(reply.body)["outputs"] == [{"name": "y", "shape": [1, 1], "datatype": "FP64", "data": [0.5]}]
    (called,) = server.calls
    assert called.method == "/inference.GRPCInferenceService/ModelInfer"
    message = ModelInferRequest.FromString(called.message)
    assert (message.model_name, message.model_version) == ("m", "")
    assert message.inputs[0].contents.bytes_contents[0].decode() == SENT
    assert called.metadata["authorization"] == [f"Bearer {SECRET}"]
    assert called.metadata["x-tenant"] == ["clinic"]


async def test_the_deadline_is_announced() -> None:
    """The server learns how long it has."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            for seconds in (3.0, 0.8):
                await post(opened, deadline_seconds=seconds)
    assert [called.seconds for called in server.calls] == [pytest.approx(3.0, abs=0.2), pytest.approx(0.8, abs=0.2)]


@pytest.mark.parametrize("seconds", [0.5, 3600.0, 1e12])
async def test_long_deadlines(seconds: float) -> None:
    """Any deadline the settings allow can be sent."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            assert (await post(opened, deadline_seconds=seconds)).status == 200


async def test_a_deadline_that_is_over() -> None:
    """A call without time left fails at once."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            for seconds in (0.0, -1.0):
                assert (await failure(opened, deadline_seconds=seconds)).failure is Failure.TIMEOUT


async def test_no_api_key_no_authorization() -> None:
    """Without an API key there is no such metadata, not an empty one."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server, api_key=None) as opened:
            await post(opened)
    assert "authorization" not in server.calls[0].metadata


@pytest.mark.parametrize(("path", "version"), [("", ""), ("/versions/3", "3"), ("/versions/a%20b", "a b")])
async def test_a_version_in_the_path(path: str, version: str) -> None:
    """The model's version is the one thing of a path that gRPC has too; the model is the endpoint's."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            await opened.post(f"/v2/models/other{path}/infer", BODY, deadline_seconds=5.0)
    message = ModelInferRequest.FromString(server.calls[0].message)
    assert (message.model_name, message.model_version) == ("m", version)


@pytest.mark.parametrize("path", ["/predict", "/v2/models/m", "/v2/models/m/infer?x=1", ""])
async def test_a_path_without_meaning(path: str) -> None:
    """It is a mistake in the settings, and no call is made."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            with pytest.raises(SpecError, match="path must be /v2/models"):
                await opened.post(path, BODY, deadline_seconds=5.0)
    assert server.calls == []


async def test_a_request_without_a_form_is_answered_here() -> None:
    """As a server would answer, so only the records that do not fit are refused; no call is made."""
    body = orjson.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [300]}]})
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            assert await post(opened, body=body) == Reply(400, b"")
    assert server.calls == []


async def test_calls_share_a_connection() -> None:
    """One after the other and all at once."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            for _ in range(3):
                await post(opened)
            await asyncio.gather(*(post(opened) for _ in range(20)))
    assert (len(server.calls), len(server.peers)) == (23, 1)


async def test_an_idle_connection_is_used_again() -> None:
    """After a pause the next call needs no further connection."""
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            await post(opened)
            await asyncio.sleep(1.0)
            await post(opened)
    assert len(server.peers) == 1


def test_one_endpoint_in_many_event_loops() -> None:
    """Event loops in threads of their own, at once and one after the other, each get their own answers."""

    def echoes(message: bytes, _: Context) -> bytes:
        return output(ModelInferRequest.FromString(message).inputs[0].contents.fp64_contents[0])

    wrong: list[float] = []

    async def asks(opened: GrpcEndpoint, numbers: range) -> None:
        for number in numbers:
            body = orjson.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [number]}]})
            reply = await post(opened, body=body)
            if orjson.loads(reply.body)["outputs"][0]["data"] != [number]:
                wrong.append(number)

    with serve_grpc(echoes) as server:
        opened = GrpcEndpoint(grpc_settings(server.url), max_response_bytes=1000)
        asyncio.run(opened.__aenter__())
        numbers = [range(start, start + 25) for start in range(0, 200, 25)]
        threads = [threading.Thread(target=asyncio.run, args=(asks(opened, some),)) for some in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
        asyncio.run(opened.__aexit__(None, None, None))
    assert (wrong, len(server.calls), len(server.peers)) == ([], 200, 1)


def test_an_event_loop_that_ends_before_its_call() -> None:
    """A call left behind by its loop disturbs nobody."""
    with serve_grpc(answers_late) as server:

        async def leaves(opened: GrpcEndpoint) -> None:
            task = asyncio.ensure_future(post(opened))
            await settled(lambda: server.calls)
            task.cancel()

        opened = GrpcEndpoint(grpc_settings(server.url), max_response_bytes=1000)
        asyncio.run(opened.__aenter__())
        asyncio.run(leaves(opened))
        assert asyncio.run(post(opened)).status == 200
        asyncio.run(opened.__aexit__(None, None, None))


async def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    """Cancelling ends it here at once, and the server sees it."""
    cancelled = threading.Event()

    def waits(_: bytes, context: Context) -> bytes:
        context.add_callback(cancelled.set)
        server.over.wait(SETTLE_SECONDS)
        return b""

    with serve_grpc(waits) as server:
        async with endpoint(server) as opened:
            call = asyncio.create_task(post(opened))
            await settled(lambda: server.calls)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await settled(cancelled.is_set)


async def test_a_server_that_comes_back() -> None:
    """During an outage every call fails at once, and the first call after it is answered."""
    port = free_port()
    async with endpoint(f"grpc://127.0.0.1:{port}") as opened:
        for _ in range(2):
            for _ in range(8):  # gRPC alone would by now wait for seconds before it tries again
                started = time.monotonic()
                assert (await failure(opened)).failure is Failure.CONNECT
                assert time.monotonic() - started < 0.5
            with serve_grpc(answers_one, port=port):
                assert (await post(opened, deadline_seconds=1.0)).status == 200


async def test_a_connection_that_is_dead_without_being_closed() -> None:
    """A call that gets no word is the last on its connection: the next one opens another."""
    with serve_grpc(answers_one) as server:
        async with _Relay(server.port) as relay, endpoint(f"grpc://127.0.0.1:{relay.port}") as opened:
            assert (await post(opened)).status == 200
            relay.mute()
            assert (await failure(opened, deadline_seconds=0.3)).failure is Failure.TIMEOUT
            assert (await post(opened, deadline_seconds=2.0)).status == 200
            assert relay.connections == 2


async def test_a_late_answer_among_others_keeps_the_connection() -> None:
    """A call that is late while others are answered says nothing of the connection."""

    def one_is_slow(message: bytes, _: Context) -> bytes:
        if ModelInferRequest.FromString(message).inputs[0].name == "slow":
            server.over.wait(SETTLE_SECONDS)
        return output(0.5)

    late = orjson.dumps({"inputs": [{"name": "slow", "shape": [1], "datatype": "FP64", "data": [1.0]}]})
    with serve_grpc(one_is_slow) as server:
        async with endpoint(server) as opened:
            call = asyncio.create_task(failure(opened, body=late, deadline_seconds=0.4))
            await settled(lambda: server.calls)
            await post(opened)
            assert (await call).failure is Failure.TIMEOUT
            await post(opened)
    assert len(server.peers) == 1


class _Relay:
    """Passes bytes on between a client and a server, until told to swallow what comes on the connections there are."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._muted: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> _Relay:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def mute(self) -> None:
        self._muted.update(range(1, self.connections + 1))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
        for source, target in ((reader, to_writer), (to_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pass_on(number, source, target)))

    async def _pass_on(self, number: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if number not in self._muted:
                target.write(data)
        target.close()


async def test_leaving_closes_the_connection() -> None:
    """When the endpoint is left, calls on it end, and it cannot be used."""

    def hangs(_: bytes, __: Context) -> bytes:
        server.over.wait(SETTLE_SECONDS)
        return b""

    with serve_grpc(hangs) as server:
        async with endpoint(server) as opened:
            call = asyncio.create_task(post(opened))
            await settled(lambda: server.calls)
        with pytest.raises(CallFailedError):
            await call
        with pytest.raises(RuntimeError, match="must be entered"):
            await post(opened)


async def test_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable changes nothing."""
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_grpc_proxy", "")
    monkeypatch.setenv("no_proxy", "")
    with serve_grpc(answers_one) as server:
        async with endpoint(server) as opened:
            assert (await post(opened)).status == 200


@pytest.mark.parametrize("url", ["grpc://localhost:{port}", "grpc://127.0.0.1:{port}/"])
async def test_ways_to_write_the_url(url: str) -> None:
    """By name, by address, with a slash at the end."""
    with serve_grpc(answers_one) as server:
        async with endpoint(url.format(port=server.port)) as opened:
            assert (await post(opened)).status == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headers": {"grpc-timeout": "1S"}}, "header 'grpc-timeout' cannot be sent over gRPC"),
        ({"headers": {"X-Key-Bin": "x"}}, "header 'x-key-bin' cannot be sent over gRPC"),
        ({"headers": {"X!": "x"}}, "header 'x!' cannot be sent over gRPC"),
        ({"headers": {"X-Key": "schlüssel"}}, "header 'x-key' cannot be sent over gRPC: it must be printable ASCII"),
        ({"api_key": "schlüssel"}, "the API key cannot be sent over gRPC: it must be printable ASCII"),
    ],
)
def test_metadata_that_cannot_be_sent(changes: dict[str, object], message: str) -> None:
    """It is refused when the endpoint is made, and no value is shown."""
    with pytest.raises(SpecError, match=message) as caught:
        GrpcEndpoint(grpc_settings("grpc://127.0.0.1:1", **changes), max_response_bytes=1000)
    assert "schlüssel" not in str(caught.value)


async def test_the_endpoint_of_a_protocol() -> None:
    """One factory opens both kinds."""
    grpc_one = open_endpoint(grpc_settings("grpc://127.0.0.1:1"), max_response_bytes=1000)
    http_one = open_endpoint(
        grpc_settings("http://127.0.0.1:1", protocol="open-inference"), max_response_bytes=1000, announce_deadline=True
    )
    assert (type(grpc_one), type(http_one)) == (GrpcEndpoint, HttpEndpoint)
    async with grpc_one as opened:
        with pytest.raises(CallFailedError):
            await opened.post(PATH, BODY, deadline_seconds=0.5)
