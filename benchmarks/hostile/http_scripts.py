"""What the hostile HTTP servers say on each connection, byte by byte."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.stub_payloads import BadRequest, parse, respond
from tests.support.scripted_server import NEVER, Arrived, Script, Wire, answer, answers, sends, sends_and_stalls

PACE_SECONDS: Final = 1.0
SLOW_SECONDS: Final = 60.0
LATE_SECONDS: Final = 6.0
IDLE_SECONDS: Final = 0.02
GIB: Final = 1024**3
_BLOCK = 64 * 1024
_JSON = "Content-Type: application/json"
_CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def script_of(name: str, seed: int) -> Script:
    """What the server of a scenario does on each connection. KeyError when it does not speak in scripts."""
    if name == "gzip-bomb":
        return answers(answer(_packed_zeros(), _JSON, "Content-Encoding: gzip"))
    return _scripts(seed)[name]


def _scripts(seed: int) -> dict[str, Script]:
    return {
        "never-reads": _never_reads,
        "never-answers": sends_and_stalls(b""),
        "drips-headers": _drips(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n" * 1000),
        "drips-body": _drips(_head(length=10_000), b" " * 10_000),
        "drips-chunks": _drips_chunks,
        "stalls-in-body": sends_and_stalls(_head(length=1000) + b" " * 500),
        "answers-slowly": _answers_after(SLOW_SECONDS),
        "answers-late": _answers_late,
        "endless-body": _floods(_CHUNKED.encode(), _chunk(b"[" * _BLOCK)),
        "endless-informational": _floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 256),
        "endless-headers": _floods(b"HTTP/1.1 200 OK\r\n", b"X-Flood: " + b"f" * 1000 + b"\r\n"),
        "tls-stalls": _stalls_in_handshake,
        "good": _answers_after(0.0),
        "good-tls": _answers_after(0.0),
        "closes-idle": _closes_idle,
        "closes-unanswered": sends(b""),
        "resets-in-headers": _resets(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "proxy-drops": _proxy_drops,
        "truncated-json": sends(_head(length=1000) + b'{"outputs": [{"id": '),
        "large-body": _large_body,
        "large-body-chunked": _large_body_in_chunks,
        "huge-header": answers(answer(b"{}", "X-Huge: " + "h" * 1024 * 1024)),
        "http10-garbage": _sends_garbage(b"HTTP/1.0 200 OK\r\n\r\n", seed),
        "garbage": _sends_garbage(b"", seed),
        "html": answers(answer(b"<!doctype html><title>Sign in</title>", "Content-Type: text/html")),
        "nan-json": _replies(lambda body: body.replace(b'"score":', b'"score":NaN,"before":')),
        "wrong-shape": answers(answer(b'{"result": [1, 2, 3]}', _JSON)),
        "deep-json": _replies(lambda body: body.replace(b'"score":', b'"deep":%s,"score":' % _deep(100_000))),
        "status-500": answers(answer(b'{"error": "injected"}', _JSON, status="500 Internal Server Error")),
        "status-503": answers(answer(b'{"error": "injected"}', _JSON, status="503 Service Unavailable")),
        "status-429": answers(answer(b"{}", _JSON, "Retry-After: 3600", status="429 Too Many Requests")),
        "status-401": answers(answer(b"{}", _JSON, "WWW-Authenticate: Bearer", status="401 Unauthorized")),
        "redirects": answers(answer(b"", "Location: /elsewhere", status="302 Found")),
        "expired-certificate": _answers_after(0.0),
        "self-signed": _answers_after(0.0),
        "wrong-host": _answers_after(0.0),
        "grpc-silent-port": _never_reads,
        "grpc-garbage": _sends_garbage(b"", seed),
    }


def good_answer(arrived: Arrived) -> bytes:
    """The stub model's answer to a request, in the protocol it came in; 400 to what fits none."""
    try:
        return answer(respond(parse(arrived.target, arrived.body)), _JSON)
    except BadRequest:
        return answer(b'{"error": "bad request"}', _JSON, status="400 Bad Request")


def _head(*, length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{_JSON}\r\n\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


async def _never_reads(wire: Wire) -> None:
    await asyncio.sleep(NEVER)


async def _stalls_in_handshake(wire: Wire) -> None:
    await wire.until_closed()


def _drips(at_once: bytes, slowly: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(at_once)
        await wire.drip(slowly, every=PACE_SECONDS)

    return script


async def _drips_chunks(wire: Wire) -> None:
    await wire.request()
    await wire.send(_CHUNKED.encode())
    while True:
        await wire.send(_chunk(b" "))
        await asyncio.sleep(PACE_SECONDS)


def _answers_after(seconds: float) -> Script:
    async def script(wire: Wire) -> None:
        while arrived := await wire.request():
            await asyncio.sleep(seconds)
            await wire.send(good_answer(arrived))

    return script


async def _answers_late(wire: Wire) -> None:
    while arrived := await wire.request():
        last = arrived.target.rpartition("/")[2]
        await asyncio.sleep(float(last) if last.replace(".", "", 1).isdecimal() else LATE_SECONDS)
        await wire.send(good_answer(arrived))


def _floods(once: bytes, forever: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(once)
        while True:
            await wire.send(forever)
            await asyncio.sleep(0)  # a client as fast as this server would keep its event loop to itself

    return script


async def _closes_idle(wire: Wire) -> None:
    arrived = await wire.request()
    if arrived is not None:
        await wire.send(good_answer(arrived))
        await asyncio.sleep(IDLE_SECONDS)
        wire.reset()


def _resets(after: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(after)
        await asyncio.sleep(IDLE_SECONDS)  # a reset overtakes what was sent before it
        wire.reset()

    return script


async def _proxy_drops(wire: Wire) -> None:
    """The model behind the proxy is in the same process: a listener of its own, asked over a socket."""
    arrived = await wire.request()
    if arrived is None:
        return
    upstream = await asyncio.start_server(_upstream(arrived), "127.0.0.1", 0)
    async with upstream:
        reader, writer = await asyncio.open_connection(*upstream.sockets[0].getsockname())
        writer.write(b"%s %s HTTP/1.1\r\n\r\n" % (arrived.method.encode(), arrived.target.encode()))
        whole = await reader.read()
        writer.close()
    await wire.send(whole[: len(whole) - len(whole.partition(b"\r\n\r\n")[2]) // 2])


def _upstream(arrived: Arrived) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good_answer(arrived))
        writer.close()

    return connected


async def _large_body(wire: Wire) -> None:
    await wire.request()
    await wire.send(_head(length=GIB))
    for _ in range(GIB // _BLOCK):
        await wire.send(b"[" * _BLOCK)


async def _large_body_in_chunks(wire: Wire) -> None:
    await wire.request()
    await wire.send(_CHUNKED.encode())
    for _ in range(GIB // _BLOCK):
        await wire.send(_chunk(b"[" * _BLOCK))
    await wire.send(b"0\r\n\r\n")


def _packed_zeros() -> bytes:
    """Small enough to pass for an answer before it is unpacked."""
    packer, zeros = zlib.compressobj(6, wbits=31), bytes(16 * 1024 * 1024)
    parts = [packer.compress(zeros) for _ in range(GIB // len(zeros))]
    return b"".join([*parts, packer.flush()])


def _sends_garbage(head: bytes, seed: int) -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(head + b"\xff" + random.Random(seed + wire.number).randbytes(4096))

    return script


def _replies(change: Callable[[bytes], bytes]) -> Script:
    """A good answer with its body changed."""

    async def script(wire: Wire) -> None:
        while arrived := await wire.request():
            body = good_answer(arrived).partition(b"\r\n\r\n")[2]
            await wire.send(answer(change(body), _JSON))

    return script
