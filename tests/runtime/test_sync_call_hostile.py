"""The library class against real servers that misbehave: an answer in time that says why, and no payload anywhere."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from airflow_provider_ai.core.answer import Answer
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest, OpenInferenceRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller
from benchmarks.hostile import SCENARIOS, HostileServer, hanging_dns
from tests.support.processes import REPOSITORY

DEADLINE_SECONDS = 1.0
# How late exactly is what benchmarks/sync_hangs.py measures; here others use the processors too.
LATE_SECONDS, LATE_WHILE_FLOODED_SECONDS = 0.5, 2.0
FLOOR = {"priority": "routine"}
CANARY = "CANARY-4711"
GOOD = [name for name, scenario in SCENARIOS.items() if not scenario.reasons]
BAD = [name for name, scenario in SCENARIOS.items() if scenario.reasons]

CALL_BY_NAME = """
import json, sys, time
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller

caller = SyncCaller(
    endpoint=EndpointSettings(url=sys.argv[1], protocol="json", model="m"),
    request=JsonRequest(),
    fallback=[Static(1)],
    settings=CallSettings(deadline_seconds=1.0),
)
began = time.monotonic()
answer = caller.call({"x": 1})
print(json.dumps({"took": time.monotonic() - began, "ended": time.time(), "reason": answer.reason}), flush=True)
"""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[HostileServer]:
    with HostileServer(request.param) as running:
        yield running


def call(server: HostileServer) -> tuple[Answer, float]:
    """One call, and the seconds it took."""
    grpc = server.scenario.scheme == "grpc"
    endpoint = EndpointSettings(
        url=server.url, protocol="open-inference-grpc" if grpc else "json", model="m", ca_file=server.ca_file
    )
    with SyncCaller(
        endpoint=endpoint,
        request=OpenInferenceRequest() if grpc else JsonRequest(),
        fallback=[Static(FLOOR)],
        settings=CallSettings(deadline_seconds=DEADLINE_SECONDS, max_response_bytes=1024 * 1024),
    ) as caller:
        began = time.monotonic()
        answer = caller.call({"note": CANARY} if not grpc else {"note": CANARY, "age": CANARY})
        return answer, time.monotonic() - began


@pytest.mark.parametrize("server", BAD, indirect=True)
def test_a_hostile_server_gets_a_degraded_answer_in_time(
    server: HostileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Within the deadline, from the floor, with a reason that fits, and the payload is in no log."""
    with caplog.at_level(logging.DEBUG):
        answer, took = call(server)
    late = LATE_WHILE_FLOODED_SECONDS if server.scenario.busy else LATE_SECONDS
    assert took < DEADLINE_SECONDS + late
    assert (answer.degraded, answer.source, answer.output) == (True, "static", FLOOR)
    assert answer.reason in server.scenario.reasons
    assert CANARY not in caplog.text


@pytest.mark.parametrize("server", GOOD, indirect=True)
def test_a_good_server_gets_its_answer_through(server: HostileServer) -> None:
    """The same set-up with a server that behaves is not degraded."""
    answer, _ = call(server)
    assert (answer.degraded, answer.source) == (False, "primary")


@pytest.mark.parametrize("server", ["closes-idle"], indirect=True)
def test_a_connection_closed_while_idle_is_not_used_again(server: HostileServer) -> None:
    """Servers close idle connections after some seconds; the next call must not be lost on a dead one."""
    endpoint = EndpointSettings(url=server.url, protocol="json", model="m")
    with SyncCaller(endpoint=endpoint, request=JsonRequest(), fallback=[Static(FLOOR)]) as caller:
        for _ in range(5):
            assert caller.call({"x": 1}).reason is None
            connections = server.stats()["connections"]
            deadline = time.monotonic() + 5
            while server.stats()["open"]:
                assert time.monotonic() < deadline
        assert connections == 5


def test_a_look_up_that_hangs_holds_neither_the_answer_nor_the_exit() -> None:
    """With a name server that never answers: an answer within the deadline, and the process is gone right after."""
    with hanging_dns() as dns:
        command = dns.command([sys.executable, "-c", CALL_BY_NAME, f"http://{dns.HOST}:8080"])
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
        exited = time.time()
        assert dns.queries() > 0
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["reason"] == "timeout"
    assert said["took"] < DEADLINE_SECONDS + LATE_SECONDS
    assert exited - said["ended"] < 1.0
