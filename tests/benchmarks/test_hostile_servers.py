"""The hostile servers have to be as hostile as they say before surviving them proves anything. Clients here are raw."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from airflow_provider_ai.core import call_reasons
from airflow_provider_ai.core.requests import reasons
from benchmarks.hostile import SCENARIOS, HostileServer, hanging_dns, hostile_servers
from benchmarks.hostile.grpc_servers import LARGE
from benchmarks.hostile.http_scripts import GIB
from benchmarks.hostile.process import SCRIPTED_GRPC
from tests.support.processes import wait_until

BODY = json.dumps({"model": "m", "inputs": [{"id": 7, "x": 1}]}).encode()
QUIET = ("never-reads", "never-answers", "answers-slowly", "tls-stalls", "grpc-silent-port", "answers-late")
SLOW = ("drips-headers", "drips-body", "drips-chunks")
ENDLESS = ("endless-body", "endless-informational", "endless-headers")
STATUSES = {"status-500": 500, "status-503": 503, "status-429": 429, "status-401": 401, "redirects": 302}
REFUSED = {"expired-certificate": "expired", "self-signed": "self-signed", "wrong-host": "not valid for"}
NO_JSON = ("html", "nan-json", "http10-garbage")
WATCHED_SECONDS = 1.5
LOOK_UP = "import socket, sys; print('begun', flush=True); socket.getaddrinfo(sys.argv[1], 80)"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, HostileServer]]:
    with hostile_servers(SCENARIOS, seed=7) as running:
        yield running


def request(path: str = "/predict") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: model\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(BODY), BODY)


def connect(server: HostileServer, path: str = "/predict") -> socket.socket:
    """A connection on which the request has been sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(request(path))
    return connection


def read(connection: socket.socket, *, seconds: float, most: int = 4 * 1024 * 1024) -> tuple[bytes, str]:
    """What arrives within a time, and how it ended: `open`, `closed`, `reset`, or `full` at ``most`` bytes."""
    got, end = b"", time.monotonic() + seconds
    while len(got) < most:
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            part = connection.recv(1024 * 1024)
        except TimeoutError:
            return got, "open"
        except ConnectionResetError:
            return got, "reset"
        if not part:
            return got, "closed"
        got += part
    return got, "full"


def answer(server: HostileServer, path: str = "/predict", *, seconds: float = 5.0) -> tuple[bytes, bytes, str]:
    """Head, body, and how the connection ended; an answer of known length ends as `open`."""
    with connect(server, path) as connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), None)
        if length is None:
            return head, *read(connection, seconds=seconds)
        body, ended = b"", "full"
        while len(body) < length and ended == "full":
            part, ended = read(connection, seconds=seconds, most=1)
            body += part
        return head, body, "open" if ended == "full" else ended


def test_scripts_and_scenarios_name_the_same_servers(servers: dict[str, HostileServer]) -> None:
    """Every scenario has a server of its own, and they are all separate processes."""
    assert len({server.port for server in servers.values()}) == len(SCENARIOS)
    assert {name for name, scenario in SCENARIOS.items() if scenario.scheme == "grpc"} > SCRIPTED_GRPC


def test_scenarios_end_in_words_that_exist() -> None:
    """Every reason is a word of the package."""
    words = {word for module in (call_reasons, reasons) for name, word in vars(module).items() if name.isupper()}
    assert {reason for scenario in SCENARIOS.values() for reason in scenario.reasons} <= words


def test_quiet_servers_accept_and_say_nothing(servers: dict[str, HostileServer]) -> None:
    """They hold the connection open and send no byte, for as long as one watches."""
    open_ones = {name: connect(servers[name]) for name in QUIET}
    time.sleep(WATCHED_SECONDS)
    seen = {name: read(connection, seconds=0.01) for name, connection in open_ones.items()}
    counted = {name: servers[name].stats()["sent"] for name in QUIET}
    for connection in open_ones.values():
        connection.close()
    assert seen == dict.fromkeys(QUIET, (b"", "open"))
    assert counted == dict.fromkeys(QUIET, 0)


def test_dripping_servers_send_a_byte_a_second(servers: dict[str, HostileServer]) -> None:
    """After what they send at once there is always progress, of two bytes (or chunks) in 1.5 s, and no end."""
    open_ones = {name: connect(servers[name]) for name in SLOW}
    time.sleep(WATCHED_SECONDS)
    seen = {name: read(connection, seconds=0.01) for name, connection in open_ones.items()}
    for connection in open_ones.values():
        connection.close()
    assert {ended for _, ended in seen.values()} == {"open"}
    assert seen["drips-headers"][0] == b"HTTP/1.1 200 OK\r\nX-"
    assert seen["drips-body"][0].partition(b"\r\n\r\n")[2] == b"  "
    assert seen["drips-chunks"][0].partition(b"\r\n\r\n")[2] == b"1\r\n \r\n" * 2


def test_a_server_that_stalls_in_its_body(servers: dict[str, HostileServer]) -> None:
    """Half of the body arrives, and the connection stays open."""
    head, body, ended = answer(servers["stalls-in-body"], seconds=0.5)
    assert (len(body), ended) == (500, "open")
    assert b"Content-Length: 1000" in head


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_servers_fill_whatever_is_read(servers: dict[str, HostileServer], name: str) -> None:
    """They send faster than one byte a second: 4 MiB are there at once, and a closed connection ends it."""
    server = servers[name]
    with connect(server) as connection:
        got, ended = read(connection, seconds=10)
    assert ended == "full"
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\n" if name == "endless-informational" else b"HTTP/1.1 200 OK")
    assert (b"\r\n\r\n" in got) == (name != "endless-headers")
    wait_until(lambda: server.stats()["open"] == 0, deadline_seconds=5, what="the server noticed")


def test_connecting_hangs_where_nobody_accepts(servers: dict[str, HostileServer]) -> None:
    """The connection is neither made nor refused."""
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", servers["never-accepts"].port), timeout=WATCHED_SECONDS)
    assert time.monotonic() - started >= WATCHED_SECONDS


def test_a_refused_connection_is_refused_at_once(servers: dict[str, HostileServer]) -> None:
    """The kernel says so."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", servers["refuses"].port), timeout=WATCHED_SECONDS)


def test_late_answers_are_good_ones(servers: dict[str, HostileServer]) -> None:
    """The answer comes after the time its path names."""
    started = time.monotonic()
    _, body, _ = answer(servers["answers-late"], "/late/0.4")
    assert 0.4 <= time.monotonic() - started < 2
    assert json.loads(body)["outputs"][0]["id"] == 7


@pytest.mark.parametrize(
    ("name", "promised", "arrived", "ended"),
    [
        ("closes-unanswered", None, b"", "closed"),
        ("resets-in-headers", None, b"HTTP/1.1 200 OK\r\nContent-Le", "reset"),
        ("truncated-json", 1000, b'{"outputs": [{"id": ', "closed"),
    ],
)
def test_connections_that_break(
    servers: dict[str, HostileServer], name: str, promised: int | None, arrived: bytes, ended: str
) -> None:
    """They end as they say: by FIN or by RST, before the answer is whole."""
    with connect(servers[name]) as connection:
        got, how = read(connection, seconds=5)
    assert (got.endswith(arrived), how) == (True, ended)
    assert promised is None or f"Content-Length: {promised}".encode() in got


def test_a_proxy_that_drops(servers: dict[str, HostileServer]) -> None:
    """It passes on the head and a part of a good answer's body."""
    _, body, ended = answer(servers["proxy-drops"])
    assert ended == "closed"
    assert body.startswith(b'{"outputs":[{"id":7')
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


def test_an_idle_connection_is_reset(servers: dict[str, HostileServer]) -> None:
    """The first answer on a connection is good, and there is no second one."""
    with connect(servers["closes-idle"]) as connection:
        got, ended = read(connection, seconds=5)
    assert json.loads(got.partition(b"\r\n\r\n")[2])["outputs"][0]["id"] == 7
    assert ended == "reset"


@pytest.mark.parametrize(("name", "starts"), [("large-body", b"[["), ("large-body-chunked", b"10000\r\n[[")])
def test_a_body_of_one_gib(servers: dict[str, HostileServer], name: str, starts: bytes) -> None:
    """It is announced or chunked, streams at once, and stops when the client goes away."""
    server = servers[name]
    with connect(server) as connection:
        got, ended = read(connection, seconds=10)
    assert (ended, got.partition(b"\r\n\r\n")[2][: len(starts)]) == ("full", starts)
    assert (f"Content-Length: {GIB}".encode() in got) == (name == "large-body")
    wait_until(lambda: server.stats()["open"] == 0, deadline_seconds=5, what="the server noticed")
    assert len(got) // 2 < server.stats()["sent"] < GIB // 8


def test_a_gzip_bomb(servers: dict[str, HostileServer]) -> None:
    """One MiB on the wire unpacks to one GiB."""
    with connect(servers["gzip-bomb"]) as connection:
        got, _ = read(connection, seconds=1)
    head, _, packed = got.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert len(packed) < 1.1 * 1024 * 1024
    assert len(zlib.decompressobj(wbits=31).decompress(packed, 64 * 1024 * 1024)) == 64 * 1024 * 1024
    assert int.from_bytes(packed[-4:], "little") == GIB  # the length in gzip's trailer


@pytest.mark.parametrize("name", NO_JSON)
def test_answers_that_are_no_json(servers: dict[str, HostileServer], name: str) -> None:
    """They come with status 200."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    with connect(servers[name]) as connection:
        head, _, body = read(connection, seconds=0.5)[0].partition(b"\r\n\r\n")
    assert head.split(b" ")[1].startswith(b"200")
    with pytest.raises(ValueError):  # noqa: PT011 - also what json raises for text that is none
        json.loads(body.decode(), parse_constant=refuse)


def test_json_that_is_no_answer(servers: dict[str, HostileServer]) -> None:
    """The wrong shape is valid JSON; the deep one is an answer with 100,000 brackets in it."""
    assert json.loads(answer(servers["wrong-shape"])[1]) == {"result": [1, 2, 3]}
    with connect(servers["deep-json"]) as connection:
        body = read(connection, seconds=0.5)[0].partition(b"\r\n\r\n")[2]
    assert (body.count(b"["), body.count(b"]")) == (100_001, 100_001)
    assert body.startswith(b'{"outputs":[{"id":7')


def test_garbage_is_no_http_and_comes_from_the_seed(servers: dict[str, HostileServer]) -> None:
    """What a server of another seed sends is other garbage; the same seed sends the same."""

    def garbage(server: HostileServer) -> bytes:
        with connect(server) as connection:
            return read(connection, seconds=0.5)[0]

    with hostile_servers(["garbage"], seed=7) as again, hostile_servers(["garbage"], seed=8) as other:
        first = garbage(servers["garbage"])
        assert not first.startswith(b"HTTP/")
        assert garbage(again["garbage"]) == first
        assert garbage(other["garbage"]) != first


@pytest.mark.parametrize("name", STATUSES)
def test_statuses(servers: dict[str, HostileServer], name: str) -> None:
    """The status is the one in the name, with the header that goes with it."""
    head, _, _ = answer(servers[name])
    assert int(head.split(b" ")[1]) == STATUSES[name]
    assert (b"Retry-After: 3600" in head) == (name == "status-429")
    assert (b"Location: /elsewhere" in head) == (name == "redirects")


def test_a_header_of_one_mib(servers: dict[str, HostileServer]) -> None:
    """The answer is whole and its header large."""
    with connect(servers["huge-header"]) as connection:
        head, _, body = read(connection, seconds=0.5)[0].partition(b"\r\n\r\n")
    assert (len(head) > 1024 * 1024, body) == (True, b"{}")


@pytest.mark.parametrize("name", REFUSED)
def test_certificates_a_client_must_refuse(servers: dict[str, HostileServer], name: str) -> None:
    """Each is refused for the reason in its name, by a client that trusts the authority; the server saw it greet."""
    server = servers[name]
    context = ssl.create_default_context(cafile=server.ca_file)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    with connection, pytest.raises(ssl.SSLCertVerificationError) as refused:
        context.wrap_socket(connection, server_hostname="127.0.0.1")
    assert REFUSED[name] in refused.value.verify_message
    assert server.stats()["hellos"] >= 1
    assert server.stats()["requests"] == 0


@pytest.mark.parametrize("name", ["good", "good-tls"])
def test_the_good_ones_answer(servers: dict[str, HostileServer], name: str) -> None:
    """With a certificate that is accepted, the answer is the stub model's."""
    server = servers[name]
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    if server.ca_file:
        context = ssl.create_default_context(cafile=server.ca_file)
        connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
    with connection:
        connection.sendall(request())
        got, ended = read(connection, seconds=0.5)
    assert (json.loads(got.partition(b"\r\n\r\n")[2])["outputs"][0]["id"], ended) == (7, "open")
    assert server.stats()["requests"] == 1


def call(server: HostileServer, *, seconds: float = 5.0, most: int = -1) -> bytes:
    """A unary gRPC call with raw bytes."""
    options = [("grpc.max_receive_message_length", most)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        answered: bytes = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"", timeout=seconds)
    return answered


def code_of(server: HostileServer, **settings: float) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failed:
        call(server, **settings)  # type: ignore[arg-type]
    code: grpc.StatusCode = failed.value.code()
    return code


@pytest.mark.parametrize("name", ["grpc-never-answers", "grpc-endless-stream"])
def test_grpc_calls_that_never_end(servers: dict[str, HostileServer], name: str) -> None:
    """The call reaches its server, and only the client's deadline ends it."""
    started = time.monotonic()
    assert code_of(servers[name], seconds=0.7) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started >= 0.7
    assert servers[name].stats()["requests"] == 1
    assert (servers[name].stats()["sent"] > 64 * 1024) == (name == "grpc-endless-stream")


def test_grpc_answers_that_are_too_large_or_none(servers: dict[str, HostileServer]) -> None:
    """64 MiB is refused by a client with a limit; random bytes arrive as they are; UNAVAILABLE is a status."""
    assert code_of(servers["grpc-large-answer"], most=4 * 1024 * 1024) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert servers["grpc-large-answer"].stats()["sent"] > LARGE
    assert len(call(servers["grpc-no-message"])) == 72
    assert code_of(servers["grpc-unavailable"]) is grpc.StatusCode.UNAVAILABLE
    assert code_of(servers["grpc-garbage"], seconds=2) is grpc.StatusCode.UNAVAILABLE


def test_a_name_server_that_hangs(tmp_path: Path) -> None:
    """The look-up of the C library hangs, in that process only, with its queries unanswered."""
    with hanging_dns() as dns:
        command = dns.command([sys.executable, "-S", "-c", LOOK_UP, dns.HOST])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            time.sleep(WATCHED_SECONDS)
            still_looking = process.poll() is None
            process.kill()
        assert still_looking
        assert dns.queries() >= 1
    assert "127.53." not in Path("/etc/resolv.conf").read_text()
