"""Answers that are none: each ends as the failure it is, and says nothing of what was sent or received."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
import zlib

import pytest

from airflow_provider_ai.core.verdict import Failure
from tests.adapters.endpoints.calling import (
    ANSWERED,
    BODY,
    CANARIES,
    MAX_BYTES,
    SENT,
    endpoint,
    failure,
    post,
    settings,
)
from tests.support.scripted_server import (
    NEVER,
    Script,
    Wire,
    answer,
    answers,
    free_port,
    sends,
    sends_and_stalls,
    serve,
)

SEEN = ANSWERED.encode()
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GZIPPED = gzip.compress(SEEN * 1000)
MIB = 1024 * 1024


def sends_and_resets(data: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(data)
        wire.reset()

    return script


async def resets_at_once(wire: Wire) -> None:
    wire.reset()


BROKEN: dict[str, Script] = {
    "closed before the answer": sends(b""),
    "reset before the request was read": resets_at_once,
    "reset before the answer": sends_and_resets(b""),
    "closed in the headers": sends(HEAD + b"X-Note: " + SEEN),
    "reset in the headers": sends_and_resets(HEAD + b"X-Note: " + SEEN),
    "closed in the body": sends(HEAD + b"Content-Length: 999\r\n\r\n" + SEEN),
    "reset in the body": sends_and_resets(HEAD + b"Content-Length: 999\r\n\r\n" + SEEN),
    "closed in a chunk": sends(CHUNKS + b"ff\r\n" + SEEN),
    "closed before the last chunk": sends(CHUNKS + b"1a\r\n" + SEEN[:26]),
    "a chunk size that is none": sends_and_stalls(CHUNKS + SEEN + b"\r\n"),
    "a chunk longer than its size": sends_and_stalls(CHUNKS + b"3\r\n" + SEEN + b"\r\n0\r\n\r\n"),
    "closed in gzip": sends(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 999\r\n\r\n" + GZIPPED[:-10]),
    "gzip that is none": answers(answer(SEEN, "Content-Encoding: gzip")),
    "gzip with a wrong checksum": answers(answer(GZIPPED[:-8] + b"\0" * 8, "Content-Encoding: gzip")),
    "garbage": sends_and_stalls(SEEN + b"\r\n\r\n"),
    "another protocol": sends_and_stalls(b"SSH-2.0-" + SEEN + b"\r\n"),
    "HTTP/0.9": sends(b"<html>" + SEEN),
    "a status that is none": sends_and_stalls(b"HTTP/1.1 abc " + SEEN + b"\r\n\r\n"),
    "a header without colon": sends_and_stalls(HEAD + SEEN + b"\r\n\r\n"),
    "a NUL in a header": sends_and_stalls(HEAD + b"X-Note: \0" + SEEN + b"\r\n\r\n"),
    "a length that is none": sends_and_stalls(HEAD + b"Content-Length: " + SEEN + b"\r\n\r\n"),
    "a negative length": sends_and_stalls(HEAD + b"Content-Length: -5\r\n\r\n" + SEEN),
    "two lengths": sends_and_stalls(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + SEEN),
    "a header too long": sends_and_stalls(HEAD + b"X-Note: " + SEEN * 4000),
    "a status line too long": sends_and_stalls(b"HTTP/1.1 200 " + SEEN * 4000),
    "headers without end": sends_and_stalls(HEAD + (b"X-Note: " + SEEN + b"\r\n") * 40_000),
    "closed after 100": sends(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_an_answer_that_is_none(case: str) -> None:
    """It is a broken connection, worth another try, found out at once and not at the deadline."""
    async with serve(BROKEN[case]) as server, endpoint(server) as opened:
        failed = await failure(opened)
        assert (failed.failure, failed.permanent) == (Failure.DISCONNECTED, False)
        assert server.opened == 1
        await server.until_nothing_is_open()


async def test_nobody_listens() -> None:
    """A refused connection is a failure to connect: the records never left."""
    async with endpoint(f"http://127.0.0.1:{free_port()}") as opened:
        failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, False)


async def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is a failure to connect, and may resolve later."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, SENT)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with endpoint("http://model.example") as opened:
        failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, False)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_a_host_that_can_have_no_address(host: str) -> None:
    """A host name that cannot be is a failure to connect that no later call can mend."""
    async with endpoint(f"http://{host}:1") as opened:
        failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, True)


async def test_the_endpoint_outlives_its_failures() -> None:
    """After a broken connection the next call opens another, and finds the server back."""

    async def second_time_lucky(wire: Wire) -> None:
        await (answers(answer()) if wire.number == 2 else sends_and_resets(b""))(wire)

    async with serve(second_time_lucky) as server, endpoint(server) as opened:
        assert (await failure(opened)).failure is Failure.DISCONNECTED
        assert (await post(opened)).status == 200
        assert (server.opened, [arrived.body for arrived in server.arrived]) == (2, [BODY, BODY])


async def test_a_post_is_never_sent_twice() -> None:
    """A kept connection that breaks under a call fails that call: sending it again is for the engine to decide."""

    async def once(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer())
        await wire.request()

    async with serve(once) as server, endpoint(server) as opened:
        assert (await post(opened)).status == 200
        assert (await failure(opened)).failure is Failure.DISCONNECTED
        assert (server.opened, len(server.arrived)) == (1, 2)


async def endless_chunks(wire: Wire) -> None:
    await wire.request()
    await wire.send(CHUNKS)
    while True:
        await wire.send(b"10000\r\n" + b"z" * 0x10000 + b"\r\n")


async def declares_much(wire: Wire) -> None:
    await wire.request()
    await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % (64 * MAX_BYTES))
    for _ in range(64):
        await wire.send(b"z" * MAX_BYTES)


async def endless_body(wire: Wire) -> None:
    await wire.request()
    await wire.send(HEAD + b"\r\n")
    while True:
        await wire.send(b"z" * 0x10000)


def bomb(size: int) -> bytes:
    """``size`` zero bytes, gzipped to about a thousandth."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


TOO_LARGE: dict[str, Script] = {
    "a length too large, and the body": declares_much,
    "a length too large, and no body": sends_and_stalls(HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BYTES + 1)),
    "a length beyond all numbers": sends_and_stalls(HEAD + b"Content-Length: 9223372036854775807\r\n\r\n" + SEEN),
    "a chunk too large": sends_and_stalls(CHUNKS + b"7fffffff\r\n" + b"z" * 2 * MAX_BYTES),
    "chunks without end": endless_chunks,
    "a body without end": endless_body,
    "a gzip bomb": answers(answer(bomb(64 * MIB), "Content-Encoding: gzip")),
    "a gzip bomb in chunks": answers(
        HEAD
        + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n" % len(bomb(64 * MIB))
        + bomb(64 * MIB)
        + b"\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
async def test_an_answer_too_large(case: str) -> None:
    """It is refused as too large as soon as that is known, in bounded memory, and its connection is not used again."""

    async def first_large(wire: Wire) -> None:
        await (TOO_LARGE[case] if wire.number == 1 else answers(answer()))(wire)

    async with serve(first_large) as server, endpoint(server) as opened:
        tracemalloc.start()
        try:
            failed = await failure(opened)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (failed.failure, failed.permanent) == (Failure.TOO_LARGE, False)
        assert peak < 4 * MIB
        await server.until_nothing_is_open()
        assert (await post(opened)).status == 200
        assert server.opened == 2


async def test_too_large_while_the_request_is_still_on_its_way() -> None:
    """The refusal does not wait for a server that has stopped reading the request."""

    async def declares_and_never_reads(wire: Wire) -> None:
        await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % (2 * MAX_BYTES))
        await asyncio.sleep(NEVER)

    async with serve(declares_and_never_reads) as server, endpoint(server) as opened:
        failed = await failure(opened, body=b"x" * 32 * MIB, deadline_seconds=3.0)
        assert failed.failure is Failure.TOO_LARGE


async def test_a_byte_too_many() -> None:
    """The limit is a limit, also for an answer that has come whole before it is looked at."""
    body = b"z" * (MAX_BYTES + 1)
    for data in (answer(body), CHUNKS + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"):
        async with serve(answers(data)) as server, endpoint(server) as opened:
            assert (await failure(opened)).failure is Failure.TOO_LARGE


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_an_answer_as_large_as_it_may_be(framing: str) -> None:
    """An answer of exactly the limit is taken."""
    body = b"z" * MAX_BYTES
    data = answer(body) if framing == "length" else CHUNKS + b"%x\r\n" % MAX_BYTES + body + b"\r\n0\r\n\r\n"
    async with serve(answers(data)) as server, endpoint(server) as opened:
        assert (await post(opened)).body == body


def test_the_settings_show_no_secret() -> None:
    """Neither the API key nor a header value is in the settings' repr, which ends up in tracebacks."""
    shown = repr(settings("http://127.0.0.1:1", headers={"X-Key": SENT}))
    assert not [canary for canary in CANARIES if canary in shown]


async def test_failures_at_once_are_each_their_own() -> None:
    """Calls in flight together fail for their own reasons."""

    async def mixed(wire: Wire) -> None:
        arrived = await wire.request()
        kind = arrived.body if arrived else b""
        if kind == b"large":
            await wire.send(answer(b"z" * (MAX_BYTES + 1)))
        elif kind == b"slow":
            await wire.until_closed()
        elif kind == b"reset":
            wire.reset()
        else:
            await wire.send(answer())

    async with serve(mixed) as server, endpoint(server) as opened:
        kinds = (b"large", b"slow", b"reset")
        calls = [failure(opened, body=kind, deadline_seconds=0.5) for kind in kinds]
        *failed, fine = await asyncio.gather(*calls, post(opened, body=b"fine"))
        assert [one.failure for one in failed] == [Failure.TOO_LARGE, Failure.TIMEOUT, Failure.DISCONNECTED]
        assert fine.status == 200
