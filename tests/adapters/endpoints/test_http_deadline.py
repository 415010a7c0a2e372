"""The deadline of a call is total: whatever the server does, the call ends in time, and so does its connection."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from aiohttp.client_proto import ResponseHandler

from airflow_provider_ai.core.verdict import Failure
from tests.adapters.endpoints.calling import ANSWERED, BODY, endpoint, failure, post
from tests.support.scripted_server import NEVER, Script, Wire, answer, answers, sends_and_stalls, serve

DEADLINE = 0.3
LATE = 0.3
LARGE = b"x" * 32 * 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def drips(at_once: bytes, slowly: bytes) -> Script:
    """Some bytes at once, then one every 20 ms: always progress, never an end."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(at_once)
        await wire.drip(slowly, every=0.02)

    return script


async def never_reads(wire: Wire) -> None:
    await asyncio.sleep(NEVER)


async def keeps_informing(wire: Wire) -> None:
    await wire.request()
    while True:
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.005)


async def answers_early_and_stalls(wire: Wire) -> None:
    await wire.send(HEAD + ANSWERED.encode())
    await asyncio.sleep(NEVER)


SLOW: dict[str, tuple[Script, bytes]] = {
    "accepts and never answers": (sends_and_stalls(b""), BODY),
    "never reads a large body": (never_reads, LARGE),
    "drips the status line": (drips(b"", b"HTTP/1.1 200 " + b"O" * 500), BODY),
    "drips headers": (drips(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n" * 100), BODY),
    "only informs": (keeps_informing, BODY),
    "drips the body": (drips(HEAD, b"z" * 9999), BODY),
    "drips chunks": (drips(CHUNKS, b"1\r\nz\r\n" * 100), BODY),
    "stalls before the body": (sends_and_stalls(HEAD), BODY),
    "stalls in the body": (sends_and_stalls(HEAD + ANSWERED.encode()), BODY),
    "stalls in a chunk": (sends_and_stalls(CHUNKS + b"ff\r\n" + ANSWERED.encode()), BODY),
    "stalls before the last chunk": (sends_and_stalls(CHUNKS + b"1\r\nz\r\n"), BODY),
    "stalls in a body without length": (sends_and_stalls(b"HTTP/1.1 200 OK\r\n\r\n{}"), BODY),
    "answers in part while the request is stuck": (answers_early_and_stalls, LARGE),
}


class Clock:
    """Started when made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def assert_in_time(self) -> None:
        assert DEADLINE - 0.01 <= time.monotonic() - self._started <= DEADLINE + LATE


@pytest.mark.parametrize("case", SLOW)
async def test_a_slow_server_costs_the_deadline_and_no_more(case: str) -> None:
    """The call ends as a timeout at its deadline, and the server sees the connection closed."""
    script, body = SLOW[case]
    async with serve(script) as server, endpoint(server) as opened:
        clock = Clock()
        failed = await failure(opened, body=body, deadline_seconds=DEADLINE)
        clock.assert_in_time()
        assert (failed.failure, failed.permanent) == (Failure.TIMEOUT, False)
        if script not in (never_reads, answers_early_and_stalls):  # which do not look
            await server.until_nothing_is_open()


async def test_a_handshake_that_never_comes() -> None:
    """The deadline covers the TLS handshake."""
    async with serve(sends_and_stalls(b"")) as server:
        server.scheme = "https"
        async with endpoint(server) as opened:
            clock = Clock()
            failed = await failure(opened, deadline_seconds=DEADLINE)
            clock.assert_in_time()
            assert (failed.failure, failed.permanent) == (Failure.TIMEOUT, False)


async def test_a_name_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline covers the look-up of the host's name."""
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait() and [])
    async with endpoint("http://model.example") as opened:
        try:
            clock = Clock()
            failed = await failure(opened, deadline_seconds=DEADLINE)
            clock.assert_in_time()
        finally:
            answered.set()
    assert (failed.failure, failed.permanent) == (Failure.TIMEOUT, False)


async def test_each_call_has_its_own_deadline() -> None:
    """A timeout of one call leaves the others, and the calls that follow, alone."""

    async def first_hangs(wire: Wire) -> None:
        arrived = await wire.request()
        if arrived and arrived.body == b'"slow"':
            await wire.until_closed()
        else:
            await wire.send(answer())
            await answers(answer())(wire)

    async with serve(first_hangs) as server, endpoint(server) as opened:
        slow = asyncio.create_task(failure(opened, body=b'"slow"', deadline_seconds=DEADLINE))
        assert (await post(opened)).status == 200
        assert (await slow).failure is Failure.TIMEOUT
        assert (await post(opened, deadline_seconds=DEADLINE)).status == 200
        assert server.opened == 2


@pytest.mark.parametrize("data", [b"", HEAD + ANSWERED.encode(), CHUNKS + b"ff\r\n"], ids=["waiting", "body", "chunk"])
async def test_a_cancelled_call_leaves_no_connection(data: bytes) -> None:
    """Cancelling a call, waiting or half-read, ends it as cancelled and closes its connection at the server."""
    async with serve(sends_and_stalls(data)) as server, endpoint(server) as opened:
        call = asyncio.create_task(post(opened))
        await server.until(lambda seen: len(seen.arrived) == 1)
        for _ in range(20):
            await asyncio.sleep(0)  # each is a turn of the loop: what the server sent is being read
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.until_nothing_is_open()
        assert server.opened == 1


async def test_calls_cancelled_while_they_connect() -> None:
    """Cancelling calls before their connections stand leaves none of them open."""
    async with serve(answers(answer())) as server, endpoint(server) as opened:
        calls = [asyncio.create_task(post(opened)) for _ in range(8)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        assert {type(end) for end in await asyncio.gather(*calls, return_exceptions=True)} == {asyncio.CancelledError}
        assert (await post(opened)).status == 200
        await server.until(lambda seen: seen.open <= 1)
        assert len(server.arrived) == 1


async def test_leaving_closes_idle_connections() -> None:
    """When the endpoint is left, the server sees every kept connection closed."""
    async with serve(answers(answer())) as server:
        async with endpoint(server) as opened:
            await asyncio.gather(*(post(opened) for _ in range(3)))
            assert server.open == 3
        await server.until_nothing_is_open()


async def test_a_flood_is_parsed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser holds the interpreter while it is at work: never for more than 16 KiB at a time, and all is parsed."""
    pieces: list[int] = []
    parse = ResponseHandler.data_received

    def counting(handler: ResponseHandler, data: bytes) -> None:
        pieces.append(len(data))
        parse(handler, data)

    monkeypatch.setattr(ResponseHandler, "data_received", counting)
    flood = b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000
    async with serve(answers(flood + answer(b'{"a": 1}'))) as server, endpoint(server) as opened:
        reply = await post(opened)
    assert reply.body == b'{"a": 1}'
    assert sum(pieces) >= len(flood)
    assert max(pieces) <= 16 * 1024
