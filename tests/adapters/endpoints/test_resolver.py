"""Looking up a host's name: shared, abandoned without a trace, and never in the way of the end of a process."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_ai.adapters.endpoints import resolver
from airflow_provider_ai.adapters.endpoints.resolver import DaemonResolver
from tests.adapters.endpoints.calling import endpoint, post
from tests.adapters.endpoints.processes import EXIT_SECONDS, run_to_its_end
from tests.support.scripted_server import answer, answers, serve

HOST = "model.example"
FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


@dataclass
class NameServer:
    """What ``getaddrinfo`` does: hangs until it may answer, and counts the threads it keeps."""

    may_answer: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def look_up(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        assert self.may_answer.wait(10.0)
        return FOUND


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """One that hangs; it lets go when the test ends."""
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    monkeypatch.setattr(resolver, "_look_ups", resolver._LookUps())
    yield server
    server.may_answer.set()


async def test_a_name_that_has_an_address() -> None:
    """A call by name reaches the server; the look-up needed no executor of the event loop."""
    async with serve(answers(answer())) as server, endpoint(f"http://localhost:{server.port}") as opened:
        assert (await post(opened)).status == 200
    assert asyncio.get_running_loop()._default_executor is None  # type: ignore[attr-defined]


async def test_the_addresses_as_aiohttp_wants_them() -> None:
    """Numeric hosts with the port that was asked for, IPv6 among them where the machine has it."""
    for found in await DaemonResolver().resolve("localhost", 8080):
        assert (found["hostname"], found["port"], found["host"]) in [
            ("localhost", 8080, "127.0.0.1"),
            ("localhost", 8080, "::1"),
        ]


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
async def test_a_name_without_an_address(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``getaddrinfo`` raises is raised to whoever asked."""

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(type(error)):
        await DaemonResolver().resolve(HOST)


async def test_those_who_ask_at_once_share_one_look_up(name_server: NameServer) -> None:
    """Also when some of them give up: the others get the answer all the same."""
    asking = [asyncio.create_task(DaemonResolver().resolve(HOST)) for _ in range(20)]
    await asyncio.sleep(0.01)
    for task in asking[::2]:
        task.cancel()
    name_server.may_answer.set()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, list] * 10
    assert name_server.asked == [HOST]


def test_other_event_loops_share_it_too(name_server: NameServer) -> None:
    """A loop that has ended meanwhile is left alone; one in another thread gets the answer."""
    answers: list[int] = []
    asked = threading.Event()

    async def gives_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(DaemonResolver().resolve(HOST), 0.01)

    async def waits() -> None:
        asking = asyncio.create_task(DaemonResolver().resolve(HOST))
        await asyncio.sleep(0)
        asked.set()
        answers.append(len(await asking))

    asyncio.run(gives_up())
    waiting = threading.Thread(target=asyncio.run, args=(waits(),))
    waiting.start()
    assert asked.wait(5.0)
    name_server.may_answer.set()
    waiting.join(5.0)
    assert (answers, name_server.asked) == ([1], [HOST])


def test_look_ups_that_hang_do_not_pile_up(name_server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost question is asked again, but only a few times at once for each name."""
    monkeypatch.setattr(resolver, "_SHARED_SECONDS", 0.0)

    async def many() -> None:
        for host in [HOST] * 30 + ["other.example"] * 30:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(DaemonResolver().resolve(host), 0.001)

    asyncio.run(many())
    assert (name_server.asked.count(HOST), name_server.asked.count("other.example")) == (4, 4)


async def test_no_further_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can start no thread fails to connect; it does not break."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="start new thread"):
        await DaemonResolver().resolve(HOST)


HANGS = """
import asyncio, socket, time
from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint
from airflow_provider_ai.adapters.endpoints.readiness import check_ready
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError

socket.getaddrinfo = lambda *_, **__: time.sleep(60)
settings = EndpointSettings(url="http://model.example", protocol="json", model="m")

async def call():
    async with HttpEndpoint(settings, max_response_bytes=1000) as endpoint:
        await endpoint.post("/", b"{}", deadline_seconds=0.2)

try:
    asyncio.run(call())
except CallFailedError as failed:
    print(failed.failure.value, check_ready(settings, timeout_seconds=0.2).ready)
print(time.monotonic(), flush=True)
"""


def test_a_process_ends_while_a_look_up_hangs() -> None:
    """It is gone within 200 ms of the end of its own work."""
    said, seconds = run_to_its_end(sys.executable, "-c", HANGS)
    assert said == "timeout False"
    assert seconds < EXIT_SECONDS
