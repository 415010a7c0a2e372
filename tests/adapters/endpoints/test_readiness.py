"""Whether an endpoint is ready, by protocol: asked in time, with its credentials, told in plain words."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time

import orjson
import pytest

from airflow_provider_ai.adapters.endpoints.readiness import Readiness, acheck_ready, check_ready
from airflow_provider_ai.core.config import PROTOCOLS
from airflow_provider_ai.core.requests.open_inference import OpenInferenceRequest
from airflow_provider_ai.exceptions import SpecError
from tests.adapters.endpoints.calling import ANSWERED, CANARIES, SECRET, endpoint, settings
from tests.support.certificates import Authority
from tests.support.scripted_server import (
    NEVER,
    Script,
    Server,
    Wire,
    answer,
    answers,
    free_port,
    sends,
    sends_and_stalls,
    serve,
)

OVER_HTTP = tuple(protocol for protocol in PROTOCOLS if protocol != "open-inference-grpc")
OPENAI = ("openai-chat", "openai-embeddings")
QUESTION = {
    "json": "/",
    "open-inference": "/v2/models/m/ready",
    "openai-chat": "/v1/models",
    "openai-embeddings": "/v1/models",
}


def models(*names: str) -> bytes:
    return orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


READY = {protocol: answer(models("other", "m")) if protocol in OPENAI else answer() for protocol in OVER_HTTP}


async def ask(at: Server | str, protocol: str, *, timeout_seconds: float = 5.0, **changes: object) -> Readiness:
    """What is said of an endpoint; it holds no canary."""
    url = at if isinstance(at, str) else at.url
    found = await acheck_ready(settings(url, protocol=protocol, **changes), timeout_seconds=timeout_seconds)
    assert not [canary for canary in CANARIES if canary in found.detail]
    return found


@pytest.mark.parametrize("protocol", OVER_HTTP)
async def test_ready(protocol: str) -> None:
    """A server that is ready is asked once, with the API key and the extra headers, and let go."""
    async with serve(answers(READY[protocol])) as server:
        assert (await ask(server, protocol, headers={"X-Tenant": "clinic", "authorization": "Basic eDp5"})).ready
        (arrived,) = server.arrived
        assert (arrived.method, arrived.target, arrived.body) == ("GET", QUESTION[protocol], b"")
        assert arrived.values("authorization") == [f"Bearer {SECRET}"]
        assert arrived.values("x-tenant") == ["clinic"]
        await server.until_nothing_is_open()


@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "503 Loading", "504 Gateway Timeout"])
@pytest.mark.parametrize("protocol", OVER_HTTP)
async def test_not_ready_yet(protocol: str, status: str) -> None:
    """A server that says it cannot is not ready, and the status is told."""
    async with serve(answers(answer(ANSWERED.encode(), status=status))) as server:
        found = await ask(server, protocol)
    assert not found.ready
    assert f"HTTP {status[:3]}" in found.detail


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "302 Found"])
@pytest.mark.parametrize("protocol", OVER_HTTP)
async def test_not_found(protocol: str, status: str) -> None:
    """Where the protocol has a question 200 is the only yes; for plain JSON any answer shows a server."""
    async with serve(answers(answer(b"", "Location: /elsewhere", status=status))) as server:
        found = await ask(server, protocol)
        asked_for_health = protocol in OPENAI and status.startswith("404")
        assert len(server.arrived) == 1 + asked_for_health
    assert found.ready == (protocol == "json")
    assert f"HTTP {status[:3]}" in found.detail


def lists_nothing(health: bytes, *, status: str = "404 Not Found") -> Script:
    """A server without a list of models, and its answer to ``GET /health``."""

    async def script(wire: Wire) -> None:
        while arrived := await wire.request():
            await wire.send(health if arrived.target == "/health" else answer(status=status))

    return script


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
@pytest.mark.parametrize("protocol", OPENAI)
async def test_a_server_that_lists_no_models_is_asked_for_its_health(protocol: str, base: str) -> None:
    """Without a list the model cannot be checked, and that is said; the credentials go along."""
    async with serve(lists_nothing(answer(b"ok"))) as server:
        found = await ask(server.url + base, protocol)
        assert [arrived.target for arrived in server.arrived] == ["/v1/models", "/health"]
        assert server.arrived[1].values("authorization") == [f"Bearer {SECRET}"]
    assert found == Readiness(True, "the server is healthy; it lists no models (HTTP 404), so the model is unproven")


@pytest.mark.parametrize(
    ("health", "detail"),
    [
        ("503 Loading", "HTTP 405 to /v1/models and HTTP 503 to /health"),
        ("302 Found", "HTTP 405 to /v1/models and HTTP 302 to /health"),
        ("401 Unauthorized", "HTTP 401: the API key is missing or refused"),
    ],
)
async def test_neither_models_nor_health(health: str, detail: str) -> None:
    """Such a server is not ready, or no server of this kind."""
    async with serve(lists_nothing(answer(ANSWERED.encode(), status=health), status="405 No")) as server:
        found = await ask(server, "openai-chat")
    assert not found.ready
    assert found.detail.startswith(detail)


async def test_both_questions_share_the_time() -> None:
    """A server that dawdles over its list and is mute about its health is given up in time."""

    async def dawdles(wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(0.2)
        await wire.send(answer(status="404 Not Found"))
        await wire.request()
        await wire.until_closed()

    async with serve(dawdles) as server:
        started = time.monotonic()
        assert await ask(server, "openai-chat", timeout_seconds=0.3) == Readiness(False, "no answer within 0.3 s")
        assert 0.3 <= time.monotonic() - started < 0.45


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
@pytest.mark.parametrize("protocol", OVER_HTTP)
async def test_a_refused_key(protocol: str, status: str) -> None:
    """A refused API key is named as what is wrong, for every protocol."""
    async with serve(answers(answer(status=status))) as server:
        found = await ask(server, protocol)
    assert not found.ready
    assert "API key" in found.detail


@pytest.mark.parametrize("protocol", OVER_HTTP)
async def test_down(protocol: str) -> None:
    """Nobody listens: not ready, and what to check is said."""
    found = await ask(f"http://127.0.0.1:{free_port()}", protocol)
    assert not found.ready
    assert "check the URL" in found.detail


async def test_a_host_that_can_have_no_address() -> None:
    """A host name that cannot be is not ready; it is no exception."""
    assert not (await ask("http://a..b:1", "json")).ready


async def drips_headers(wire: Wire) -> None:
    await wire.request()
    await wire.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 100, every=0.02)


async def drips_models(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    await wire.drip(b'{"data": [' + b" " * 500, every=0.02)


@pytest.mark.parametrize("script", [sends_and_stalls(b""), drips_headers, drips_models], ids=["mute", "head", "body"])
async def test_slow(script: Script) -> None:
    """A server that does not finish its answer is not ready once the timeout is over, and is let go."""
    async with serve(script) as server:
        started = time.monotonic()
        found = await ask(server, "openai-chat", timeout_seconds=0.3)
        assert time.monotonic() - started < 0.6
        assert found == Readiness(False, "no answer within 0.3 s")
        await server.until_nothing_is_open()


BROKEN = {
    "closed": sends(b""),
    "garbage": sends_and_stalls(ANSWERED.encode() + b"\r\n\r\n"),
    "a header too long": sends_and_stalls(b"HTTP/1.1 200 OK\r\nX-Note: " + ANSWERED.encode() * 4000),
    "closed in the body": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + models("m")),
    "a broken chunk": sends_and_stalls(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + ANSWERED.encode()),
    "gzip that is none": answers(answer(ANSWERED.encode(), "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer(case: str) -> None:
    """An answer that is none is not ready; it is no exception."""
    async with serve(BROKEN[case]) as server:
        assert not (await ask(server, "openai-chat")).ready


@pytest.mark.parametrize("protocol", OPENAI)
async def test_a_model_that_is_not_served(protocol: str) -> None:
    """A server that lists other models is up, but not ready for this one."""
    async with serve(answers(answer(models("other", "mm")))) as server:
        assert await ask(server, protocol) == Readiness(
            False, "the server is up but does not list model 'm' (2 others)"
        )


NO_LIST = [
    b"",
    b"<html>",
    b"null",
    b"[]",
    b'"m"',
    b"{}",
    b'{"data": null}',
    b'{"data": {"id": "m"}}',
    b'{"data": ["m"]}',
]


@pytest.mark.parametrize("body", [*NO_LIST, b'{"data": [{"name": "m"}]}', b'{"data": [{"id": "m"}'])
async def test_a_body_that_is_no_list(body: bytes) -> None:
    """A 200 without a list of models is some other server."""
    async with serve(answers(answer(body))) as server:
        found = await ask(server, "openai-chat")
    assert not found.ready
    assert "no model list" in found.detail


async def test_a_list_in_pieces() -> None:
    """A list that arrives in pieces is read to its end."""
    names = models("m", "last")

    async def in_pieces(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(names))
        await wire.drip(names, every=0.001)

    async with serve(in_pieces) as server:
        assert await ask(server, "openai-chat", model="last") == Readiness(True, "model 'last' is served")


async def test_a_compressed_list() -> None:
    """A gzipped list of thousands of models is read to its end."""
    names = gzip.compress(models(*(f"model-{number}" for number in range(20_000)), "m"))
    async with serve(answers(answer(names, "Content-Encoding: gzip"))) as server:
        assert (await ask(server, "openai-chat")).ready


async def test_a_list_without_end() -> None:
    """A list that never ends is given up before the memory is."""

    async def endless(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await wire.send(b" " * 65536)

    async with serve(endless) as server:
        found = await ask(server, "openai-chat")
        await server.until_nothing_is_open()
    assert not found.ready
    assert "no model list" in found.detail


@pytest.mark.parametrize("model", ["org/model", "a b#c?d", "50%25", "modèle", "m:1"])
async def test_a_model_s_name_is_one_segment(model: str) -> None:
    """The model asked for is the one that is called, whatever is in its name."""
    called = OpenInferenceRequest(columns=["age"]).encode(model, [1], [{"age": 1.0}])
    async with serve(answers(answer())) as server:
        assert (await ask(server, "open-inference", model=model)).ready
        async with endpoint(server, protocol="open-inference", model=model) as opened:
            await opened.post(called.path, called.body, deadline_seconds=5.0)
        asked, posted = (arrived.target for arrived in server.arrived)
        assert asked.removesuffix("/ready") == posted.removesuffix("/infer")
        assert asked.count("/") == 4


@pytest.mark.parametrize("base", ["", "/", "/v2", "/v2/"])
async def test_a_base_url_with_a_version(base: str) -> None:
    """The question is the same whether the URL ends with the version or not."""
    async with serve(answers(answer())) as server:
        assert (await ask(server.url + base, "open-inference")).ready
        assert server.arrived[0].target == "/v2/models/m/ready"


@pytest.mark.parametrize("protocol", OVER_HTTP)
async def test_over_tls(protocol: str, authority: Authority) -> None:
    """The TLS settings are those of the calls: the private authority is trusted, another is not."""
    async with serve(answers(READY[protocol]), tls=authority.issue().server_context()) as server:
        assert (await ask(server, protocol, ca_file=authority.ca_file)).ready
        assert (await ask(server, protocol, verify_tls=False)).ready
        found = await ask(server, protocol)
    assert not found.ready
    assert "certificate" in found.detail
    assert "ca_file" in found.detail


async def test_a_server_that_speaks_no_tls() -> None:
    """An https URL of a plain http server is told from a server that is down."""

    async def speaks_first(wire: Wire) -> None:
        await wire.send(answer(status="400 Bad Request"))
        await wire.until_closed()

    async with serve(speaks_first) as server:
        found = await ask(server.url.replace("http:", "https:"), "json")
    assert not found.ready
    assert found.detail.startswith("TLS fails")


async def test_files_that_cannot_be_used() -> None:
    """TLS files that cannot be loaded are a mistake in the settings, not a server that is not ready."""
    with pytest.raises(SpecError, match="ca_file"):
        await ask("https://127.0.0.1:1", "json", ca_file="/nowhere/ca.pem")


async def test_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable changes nothing."""
    async with serve(answers(answer(status="502 Bad Gateway"))) as proxy, serve(answers(answer())) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await ask(server, "json")).ready
        assert proxy.opened == 0


async def test_cancelled() -> None:
    """A question that is cancelled, as a trigger is, leaves no connection."""
    async with serve(sends_and_stalls(b"")) as server:
        asked = asyncio.create_task(ask(server, "json", timeout_seconds=NEVER))
        await server.until(lambda seen: len(seen.arrived) == 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await server.until_nothing_is_open()


def test_without_an_event_loop() -> None:
    """The same for callers without an event loop."""
    found = check_ready(settings(f"http://127.0.0.1:{free_port()}"))
    assert (found.ready, "check the URL" in found.detail) == (False, True)


def test_a_name_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging look-up costs a caller without an event loop the timeout, not the resolver's patience."""
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(3.0) and [])
    started = time.monotonic()
    try:
        found = check_ready(settings("http://model.example"), timeout_seconds=0.3)
        assert time.monotonic() - started < 0.6
    finally:
        answered.set()
    assert found == Readiness(False, "no answer within 0.3 s")
