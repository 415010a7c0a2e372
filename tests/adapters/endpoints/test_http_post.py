"""What an HttpEndpoint sends and what it hands back, seen from the server."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint
from airflow_provider_ai.core.ports import Reply
from tests.adapters.endpoints.calling import BODY, MAX_BYTES, SECRET, endpoint, post, settings
from tests.support.scripted_server import Wire, answer, answers, sends, sends_and_stalls, serve


async def test_the_request_as_sent() -> None:
    """One POST with the body as given, typed as JSON, with the API key as bearer token and the extra headers."""
    async with serve(answers(answer(b'{"outputs": []}'))) as server:
        async with endpoint(server, headers={"X-Tenant": "clinic"}) as opened:
            assert await post(opened) == Reply(200, b'{"outputs": []}')
        (arrived,) = server.arrived
        assert (arrived.method, arrived.target, arrived.body) == ("POST", "/predict", BODY)
        assert arrived.values("content-type") == ["application/json"]
        assert arrived.values("accept") == ["application/json"]
        assert arrived.values("authorization") == [f"Bearer {SECRET}"]
        assert arrived.values("x-tenant") == ["clinic"]
        assert arrived.values("content-length") == [str(len(BODY))]
        assert arrived.values("cookie") == []


async def test_no_api_key_no_authorization() -> None:
    """Without an API key there is no Authorization header, not an empty one."""
    async with serve(answers(answer())) as server:
        async with endpoint(server, api_key=None) as opened:
            await post(opened)
        assert server.arrived[0].values("authorization") == []


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
async def test_an_extra_header_replaces_the_usual_one(name: str) -> None:
    """A header given in the settings is sent instead of ours, never beside it, whatever its case."""
    async with serve(answers(answer())) as server:
        async with endpoint(server, headers={name: "application/json; charset=utf-8"}) as opened:
            await post(opened)
        assert server.arrived[0].values("content-type") == ["application/json; charset=utf-8"]


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
async def test_one_authorization_at_most(name: str) -> None:
    """The API key wins over an Authorization header in the settings, whatever its case."""
    async with serve(answers(answer())) as server:
        async with endpoint(server, headers={name: "Basic eDp5"}) as opened:
            await post(opened)
        assert server.arrived[0].values("authorization") == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("path", ["/score?api-version=2", "/a%2Fb/c%20d", "/modèle"])
async def test_the_path_of_the_settings_overrides_the_protocol_s(path: str) -> None:
    """The configured path is requested as written (non-ASCII percent-encoded), its query included."""
    async with serve(answers(answer())) as server:
        async with endpoint(server, path=path) as opened:
            await post(opened)
        assert server.arrived[0].target == path.replace("è", "%C3%A8")


@pytest.mark.parametrize(("seconds", "told"), [(3.0, "3000"), (0.7509, "750")])
async def test_the_deadline_is_announced(seconds: float, told: str) -> None:
    """On request the server learns in whole milliseconds how long it has, and nobody's own header says otherwise."""
    async with serve(answers(answer())) as server:
        async with endpoint(server, announce_deadline=True, headers={"x-request-timeout-ms": "9"}) as opened:
            await post(opened, deadline_seconds=seconds)
        assert server.arrived[0].values("x-request-timeout-ms") == [told]


async def test_each_call_announces_its_own_deadline() -> None:
    """Calls of one endpoint with less and less time left say so; without being asked nothing is said."""
    async with serve(answers(answer())) as server:
        async with endpoint(server, announce_deadline=True) as opened:
            for seconds in (3.0, 2.0, 2.0):
                await post(opened, deadline_seconds=seconds)
        async with endpoint(server) as opened:
            await post(opened)
        told = [arrived.values("x-request-timeout-ms") for arrived in server.arrived]
    assert told == [["3000"], ["2000"], ["2000"], []]


async def test_connections_are_kept_and_reused() -> None:
    """Calls one after the other share a connection; calls at once take as many as they are."""
    async with serve(answers(answer())) as server:
        async with endpoint(server) as opened:
            for _ in range(5):
                await post(opened)
            assert (server.opened, len(server.arrived)) == (1, 5)
            await asyncio.gather(*(post(opened) for _ in range(4)))
            await asyncio.gather(*(post(opened) for _ in range(4)))
            assert (server.opened, len(server.arrived)) == (4, 13)
        await server.until_nothing_is_open()


async def test_connection_close_is_obeyed() -> None:
    """After an answer with ``Connection: close`` the next call opens a new connection."""
    async with serve(answers(answer(b"{}", "Connection: close"))) as server, endpoint(server) as opened:
        await post(opened)
        await post(opened)
        assert server.opened == 2


async def test_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxy variables and a netrc entry of the host change nothing: the payload goes where the settings say."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with serve(answers(answer(status="502 Bad Gateway"))) as proxy, serve(answers(answer())) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with endpoint(server, api_key=None) as opened:
            assert (await post(opened)).status == 200
        assert proxy.opened == 0
        assert server.arrived[0].values("authorization") == []


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(status: str) -> None:
    """A redirect is the answer; the payload is sent nowhere else."""
    async with serve(answers(answer())) as elsewhere:
        redirect = answer(b"", f"Location: {elsewhere.url}/predict", status=status)
        async with serve(answers(redirect)) as server, endpoint(server) as opened:
            assert (await post(opened)).status == int(status[:3])
            assert len(server.arrived) == 1
        assert elsewhere.opened == 0


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
async def test_compressed_answers(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """A compressed answer comes back decompressed, up to the byte the limit allows."""
    body = b"[" + b" " * (MAX_BYTES - 2) + b"]"
    async with (
        serve(answers(answer(encode(body), f"Content-Encoding: {encoding}"))) as server,
        endpoint(server) as opened,
    ):
        assert (await post(opened)).body == body
        assert (await post(opened)).body == body
        assert server.opened == 1
        assert "gzip" in server.arrived[0].values("accept-encoding")[0]


@pytest.mark.parametrize("value", ["120", "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_retry_after_is_passed_on(status: str, value: str) -> None:
    """The Retry-After header comes back as it was sent, in either form."""
    async with (
        serve(answers(answer(b"", f"Retry-After: {value}", status=status))) as server,
        endpoint(server) as opened,
    ):
        assert await post(opened) == Reply(int(status[:3]), b"", value)


@pytest.mark.parametrize("cookie", ["session=abc", "=;;; odd \x01 cookie"])
async def test_cookies_are_not_kept(cookie: str) -> None:
    """What a server sets as a cookie is not sent back to it."""
    script = answers(answer(b"{}", f"Set-Cookie: {cookie}".replace("\x01", "")))
    async with serve(script) as server, endpoint(server) as opened:
        await post(opened)
        await post(opened)
        assert [arrived.values("cookie") for arrived in server.arrived] == [[], []]


CHUNKED = (
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n5;x=y\r\na": 1\r\n1\r\n}\r\n0\r\nX-T: 1\r\n\r\n'
)
TO_THE_END = b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}'
CONTINUED = (
    b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b'{"a": 1}')
)


@pytest.mark.parametrize("data", [CHUNKED, TO_THE_END, CONTINUED], ids=["chunked", "until-close", "informational"])
async def test_framings(data: bytes) -> None:
    """Chunks, a body that ends with the connection, and informational answers before the real one all arrive whole."""
    async with serve(sends(data)) as server, endpoint(server) as opened:
        assert await post(opened) == Reply(200, b'{"a": 1}')


async def test_a_page_instead_of_json_is_an_answer() -> None:
    """A 200 with HTML is handed on whole: whether it can be used is for the request's decoder to say."""
    page = b"<html>login</html>"
    async with serve(answers(answer(page, "Content-Type: text/html"))) as server, endpoint(server) as opened:
        assert await post(opened) == Reply(200, page)


async def test_an_answer_that_switches_protocols() -> None:
    """A 101 nobody asked for is an answer like any other, and its connection speaks no HTTP any more."""
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with serve(sends_and_stalls(switched)) as server, endpoint(server) as opened:
        assert await post(opened, deadline_seconds=1.0) == Reply(101, b"")
        await server.until_nothing_is_open()


async def test_an_answer_before_the_request_was_read() -> None:
    """A refusal sent before the body was read is the answer, and the half-written connection is not used again."""

    async def refuse(wire: Wire) -> None:
        if wire.number == 1:
            await wire.send(answer(b"{}", status="413 Content Too Large"))
            await asyncio.sleep(3600)
        else:
            await answers(answer())(wire)

    async with serve(refuse) as server, endpoint(server) as opened:
        assert (await post(opened, body=b"x" * 32 * 1024 * 1024, deadline_seconds=3.0)).status == 413
        assert (await post(opened)).status == 200
        assert server.opened == 2


async def test_an_answer_nobody_asked_for_is_no_answer_to_the_next_call() -> None:
    """Bytes a server sends after its answer are not taken for the answer to the next call."""
    surplus = asyncio.Event()

    async def talkative(wire: Wire) -> None:
        while await wire.request():
            await wire.send(answer(b'"own"'))
            await surplus.wait()
            await wire.send(answer(b'"surplus"'))

    async with serve(talkative) as server, endpoint(server) as opened:
        assert (await post(opened)).body == b'"own"'
        surplus.set()
        for _ in range(20):
            await asyncio.sleep(0)  # each is a turn of the loop: the surplus is read
        assert (await post(opened)).body == b'"own"'


async def test_an_endpoint_must_be_entered() -> None:
    """Posting to an endpoint that was not opened says so."""
    with pytest.raises(RuntimeError, match="must be entered"):
        await post(HttpEndpoint(settings("http://127.0.0.1:1"), max_response_bytes=1))
