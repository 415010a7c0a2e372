"""Answers over gRPC that are none: each ends in time as the failure it is, and says nothing of what was said."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import grpc
import orjson
import psutil
import pytest

from airflow_provider_ai.core.ports import InvalidAnswerError, Reply
from airflow_provider_ai.core.requests import OpenInferenceRequest
from airflow_provider_ai.core.verdict import Failure
from tests.adapters.endpoints.calling import ANSWERED, MAX_BYTES
from tests.adapters.endpoints.grpc_calling import BODY, endpoint, failure, output, post
from tests.adapters.endpoints.grpc_servers import (
    DATA,
    END,
    GOAWAY,
    SETTINGS,
    Context,
    frame,
    head,
    reset,
    says,
    serve_grpc,
    speaks,
)
from tests.adapters.endpoints.test_grpc_status import FAILED, SAID, retry_info
from tests.support.scripted_server import Script, Wire, free_port, serve

DEADLINE = 0.3
LATE = 0.3
MIB = 1024 * 1024
SEEN = ANSWERED.encode()


class Clock:
    """Started when made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def assert_at_the_deadline(self) -> None:
        assert DEADLINE - 0.02 <= time.monotonic() - self._started <= DEADLINE + LATE

    def assert_soon(self) -> None:
        assert time.monotonic() - self._started < 2.0


@pytest.mark.parametrize("code", SAID)
async def test_every_status(code: str) -> None:
    """A server's status is an answer with its HTTP status; its text and details stay where they are."""
    trailer = ("grpc-status-details-bin", retry_info(7))
    with serve_grpc(says(getattr(grpc.StatusCode, code), ANSWERED, trailer)) as server:
        async with endpoint(server) as opened:
            assert await post(opened) == Reply(SAID[code], b"", "7")
    assert len(server.calls) == 1


@pytest.mark.parametrize("code", FAILED)
async def test_a_status_that_is_no_answer(code: str) -> None:
    """Said by the server or found on the way, it is the same failure."""
    with serve_grpc(says(getattr(grpc.StatusCode, code), ANSWERED)) as server:
        async with endpoint(server) as opened:
            failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (FAILED[code], False)


async def test_another_service() -> None:
    """A server that does not know the protocol says so."""
    with serve_grpc(lambda *_: b"", service="other.Service") as server:
        async with endpoint(server) as opened:
            assert await post(opened) == Reply(501, b"")


async def test_a_service_that_raises() -> None:
    """What a server's framework tells of an exception may quote the request."""

    def raises(_: bytes, __: Context) -> bytes:
        raise ValueError("no canary, for the server logs it")

    with serve_grpc(raises) as server:
        async with endpoint(server) as opened:
            assert await post(opened) == Reply(500, b"")


async def test_nobody_listens() -> None:
    """A refused connection is a failure to connect, found out at once."""
    async with endpoint(f"grpc://127.0.0.1:{free_port()}") as opened:
        clock = Clock()
        failed = await failure(opened)
        clock.assert_soon()
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, False)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "modèle"])
async def test_a_host_that_can_have_no_address(host: str) -> None:
    """It is a failure to connect."""
    async with endpoint(f"grpc://{host}:1") as opened:
        assert (await failure(opened, deadline_seconds=2.0)).failure is Failure.CONNECT


async def mute(wire: Wire) -> None:
    await wire.until_closed()


async def stops_reading(wire: Wire) -> None:
    await wire.send(SETTINGS)
    await asyncio.sleep(5.0)


LARGE = orjson.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["x" * 2 * MIB]}]})
SLOW: dict[str, Script] = {
    "accepts and says nothing": mute,
    "speaks HTTP/2 and never answers": speaks(b""),
    "answers with headers alone": speaks(head()),
    "stalls in the message": speaks(head() + frame(DATA, b"\0\0\0\0\x64" + SEEN)),
    "stalls before the status": speaks(head() + frame(DATA, b"\0\0\0\0\0")),
    "never reads": stops_reading,
}


@pytest.mark.parametrize("case", SLOW)
async def test_a_slow_server_costs_the_deadline_and_no_more(case: str) -> None:
    """Before the connection stands, in the headers, in the message or after it; large requests too."""
    async with serve(SLOW[case]) as server, endpoint(f"grpc://127.0.0.1:{server.port}") as opened:
        clock = Clock()
        failed = await failure(opened, body=LARGE if case == "never reads" else BODY, deadline_seconds=DEADLINE)
        clock.assert_at_the_deadline()
        assert (failed.failure, failed.permanent) == (Failure.TIMEOUT, False)


async def test_headers_that_drip() -> None:
    """A byte every 20 ms is progress all the time, and ends at the deadline all the same."""

    async def drips(wire: Wire) -> None:
        await wire.drip(SETTINGS * 100, every=0.02)

    async with serve(drips) as server, endpoint(f"grpc://127.0.0.1:{server.port}") as opened:
        clock = Clock()
        assert (await failure(opened, deadline_seconds=DEADLINE)).failure is Failure.TIMEOUT
        clock.assert_at_the_deadline()


def _endless(_: bytes, context: Context) -> Iterator[bytes]:
    while context.is_active():
        yield output(0.5) + b"\x12" + bytes([100]) + b"z" * 100


async def test_an_endless_stream() -> None:
    """A server that answers one request with messages without end costs the deadline, and no memory."""
    with serve_grpc(_endless, streams=True) as server:
        async with endpoint(server) as opened:
            await failure(opened, deadline_seconds=DEADLINE)  # what a first call allocates
            before = psutil.Process().memory_info().rss
            clock = Clock()
            failed = await failure(opened, deadline_seconds=DEADLINE)
            clock.assert_at_the_deadline()
            assert failed.failure is Failure.TIMEOUT
            assert psutil.Process().memory_info().rss - before < 16 * MIB


async def test_a_stream_of_nothing() -> None:
    """OK without a message is an answer that no reader takes for one."""
    with serve_grpc(lambda *_: iter(()), streams=True) as server:
        async with endpoint(server) as opened:
            reply = await post(opened)
    assert reply.status == 200
    with pytest.raises(InvalidAnswerError):
        OpenInferenceRequest(columns=["a"]).decode(reply.body, [1])


@pytest.mark.parametrize("message", [SEEN, b"\xff" * 100, b"\x2a\x00" * 2000, b"<html>"], ids=["a", "b", "c", "d"])
async def test_a_message_of_another_kind(message: bytes) -> None:
    """Bytes that are no answer of the protocol are an empty answer."""
    with serve_grpc(lambda *_: message) as server:
        async with endpoint(server) as opened:
            assert await post(opened) == Reply(200, b"")


async def test_an_answer_too_large() -> None:
    """A byte more than the limit is refused, and the connection serves the next call; the limit itself is taken."""
    answer = output(*[0.5] * 1000)
    with serve_grpc(lambda *_: answer) as server:
        async with endpoint(server, max_response_bytes=len(answer) - 1) as opened:
            failed = await failure(opened)
            assert (failed.failure, str(failed)) == (
                Failure.TOO_LARGE,
                f"answer larger than {len(answer) - 1} bytes",
            )
        async with endpoint(server, max_response_bytes=len(answer)) as opened:
            assert (await post(opened)).status == 200


@pytest.mark.parametrize("early", [True, False])
async def test_metadata_too_large(early: bool) -> None:
    """Headers and trailers have a limit too."""

    def answers(_: bytes, context: Context) -> bytes:
        metadata = (("x-note", ANSWERED * 10_000),)
        if early:
            context.send_initial_metadata(metadata)
        else:
            context.set_trailing_metadata(metadata)
        return b""

    with serve_grpc(answers) as server:
        async with endpoint(server) as opened:
            assert (await failure(opened)).failure is Failure.TOO_LARGE


async def test_an_answer_that_unpacks_to_much() -> None:
    """A compressed answer is refused without being unpacked."""

    def packs(_: bytes, context: Context) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        return bytes(64 * MIB)

    with serve_grpc(packs) as server:
        async with endpoint(server) as opened:
            assert await post(opened) == Reply(501, b"")


async def test_a_request_too_large_for_the_server() -> None:
    """It is refused for good: as throttling it would be sent again without end."""
    with serve_grpc(lambda *_: b"", options=[("grpc.max_receive_message_length", 10)]) as server:
        async with endpoint(server) as opened:
            assert await post(opened) == Reply(413, b"")


async def closes(_: Wire) -> None:
    """A server that goes down."""


CUT: dict[str, tuple[Script, bool]] = {
    "closed before the headers": (speaks(b"", closes=True), True),
    "closed in the message": (speaks(head() + frame(DATA, b"\0\0\0\0\x64" + SEEN), closes=True), True),
    "closed before the status": (speaks(head() + frame(DATA, b"\0\0\0\0\0"), closes=True), True),
    "told to go away": (speaks(frame(GOAWAY, bytes(8), stream=0), closes=True), True),
    "reset: cancelled": (speaks(reset(8)), True),
    "garbage": (speaks(b"\xff" * 200), True),
    "a message cut short": (speaks(head() + frame(DATA, b"\0\0\0\0\x64" + SEEN, flags=END)), True),
    "no status": (speaks(head() + frame(DATA, b"\0\0\0\0\0", flags=END)), True),
    "a status that is no number": (speaks(head((b"grpc-status", SEEN), end=True)), True),
    "closed at once": (closes, False),
}


@pytest.mark.parametrize("case", CUT)
async def test_a_call_that_is_cut_off(case: str) -> None:
    """Found out at once; whether the request left decides if it was no connection or a broken one."""
    script, sent = CUT[case]
    async with serve(script) as server, endpoint(f"grpc://127.0.0.1:{server.port}") as opened:
        clock = Clock()
        failed = await failure(opened)
        clock.assert_soon()
    assert (failed.failure, failed.permanent) == (Failure.DISCONNECTED if sent else Failure.CONNECT, False)


SAID_IN_HTTP: dict[str, tuple[bytes, int]] = {
    "503 of a proxy": (head(status=b"503", kind=b"text/html", end=True), 503),
    "401 of a proxy": (head(status=b"401", kind=b"text/html", end=True), 401),
    "403 of a proxy": (head(status=b"403", kind=b"text/html", end=True), 403),
    "404 of a proxy": (head(status=b"404", kind=b"text/html", end=True), 501),
    "429 of a proxy": (head(status=b"429", kind=b"text/html", end=True), 503),
    "a status no one knows": (head((b"grpc-status", b"99"), end=True), 500),
    "reset: calm down": (reset(0xB), 429),
}


@pytest.mark.parametrize("case", SAID_IN_HTTP)
async def test_what_something_on_the_way_says(case: str) -> None:
    """Proxies answer in HTTP; gRPC gives their statuses a meaning of its own."""
    data, status = SAID_IN_HTTP[case]
    async with serve(speaks(data)) as server, endpoint(f"grpc://127.0.0.1:{server.port}") as opened:
        clock = Clock()
        assert (await post(opened)).status == status
        clock.assert_soon()


async def test_a_server_that_speaks_http_1() -> None:
    """It is a failure to connect, at once."""

    async def speaks_http_1(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nabc")
        await wire.until_closed()

    async with serve(speaks_http_1) as server, endpoint(f"grpc://127.0.0.1:{server.port}") as opened:
        clock = Clock()
        assert (await failure(opened)).failure is Failure.CONNECT
        clock.assert_soon()


async def test_failures_at_once_are_each_their_own() -> None:
    """Calls in flight together on one connection fail for their own reasons."""

    def mixed(message: bytes, context: Context) -> bytes:
        if b"slow" in message:
            time.sleep(DEADLINE + LATE)
        if b"large" in message:
            return bytes(MAX_BYTES + 1)
        if b"busy" in message:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, ANSWERED)
        return output(0.5)

    def body(kind: str) -> bytes:
        return orjson.dumps({"inputs": [{"name": kind, "shape": [1], "datatype": "FP64", "data": [1.0]}]})

    with serve_grpc(mixed) as server:
        async with endpoint(server) as opened:
            calls = [failure(opened, body=body(kind), deadline_seconds=DEADLINE) for kind in ("large", "slow")]
            busy, fine = (post(opened, body=body(kind)) for kind in ("busy", "fine"))
            *failed, held, answered = await asyncio.gather(*calls, busy, fine)
    assert [one.failure for one in failed] == [Failure.TOO_LARGE, Failure.TIMEOUT]
    assert (held.status, answered.status, len(server.peers)) == (429, 200, 1)


async def test_an_address_that_swallows() -> None:
    """Connections that are never accepted cost the deadline."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # fills the queue
            async with endpoint(f"grpc://127.0.0.1:{port}") as opened:
                clock = Clock()
                assert (await failure(opened, deadline_seconds=DEADLINE)).failure is Failure.TIMEOUT
                clock.assert_at_the_deadline()
