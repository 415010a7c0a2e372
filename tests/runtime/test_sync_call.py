"""The library class over a store: what processes share, and what happens when the store is of no help."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Callable as UserCallable
from airflow_provider_ai.core.fallback import Endpoint, LastGood, Link, Static
from airflow_provider_ai.core.requests import JsonRequest, OpenInferenceRequest
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.runtime.sync_call import CallStore, SyncCaller
from airflow_provider_ai.testing import InMemoryStore
from tests.runtime.endpoints import ModelServer, model_server
from tests.support.keys import local_keys
from tests.support.postgres import PostgresServer, postgres_server

FLOOR = Static({"priority": "routine"})
QUICK = BreakerSettings(minimum_calls=3, open_seconds=0.3)
SETTINGS = CallSettings(deadline_seconds=2.0, breaker=QUICK)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str | CallStore:
    if request.param == "memory":
        return InMemoryStore()
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


def endpoint(url: str, model: str = "m") -> EndpointSettings:
    return EndpointSettings(url=url, protocol="json", model=model)


def caller(
    model: ModelServer,
    store: str | CallStore | None = None,
    *,
    fallback: Sequence[Link] = (FLOOR,),
    settings: CallSettings = SETTINGS,
) -> SyncCaller:
    return SyncCaller(
        endpoint=endpoint(model.url), request=JsonRequest(), fallback=fallback, settings=settings, store=store
    )


def test_the_breaker_opens_after_failures_and_closes_after_a_good_probe(
    model: ModelServer, store: str | CallStore
) -> None:
    """Three failures open it: nothing is sent any more, until a probe finds the endpoint well again."""
    with caller(model, store) as calls:
        model.status = 500
        answers = [calls.call({"x": 1}) for _ in range(4)]
        assert [answer.reason for answer in answers] == ["server_error"] * 3 + ["breaker_open"]
        assert [answer.breaker_state for answer in answers] == ["closed"] * 3 + ["open"]
        assert model.calls == 3
        model.status = 200
        probe = _until(lambda: calls.call({"x": 1}), lambda answer: not answer.degraded)
        assert probe.breaker_state == "half_open"
        assert calls.call({"x": 1}).breaker_state == "closed"
        assert model.calls == 5


def test_two_callers_share_one_breaker(model: ModelServer, store: str | CallStore) -> None:
    """What one has learned of an endpoint, the other knows."""
    model.status = 500
    with caller(model, store) as first, caller(model, store) as second:
        for _ in range(3):
            first.call({"x": 1})
        assert second.call({"x": 1}).reason == "breaker_open"


def test_with_keys_the_store_does_not_say_what_was_asked_or_answered(model: ModelServer, tmp_path: Path) -> None:
    """Processes with the same keys share answers; one with none finds nothing that it could use."""
    chain = [LastGood(max_age=timedelta(hours=6)), FLOOR]
    given = {"endpoint": endpoint(model.url), "request": JsonRequest(), "fallback": chain, "settings": SETTINGS}
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with SyncCaller(**given, store=url, keys=local_keys()) as calls:
        calls.call({"age": 63})
    model.status = 500
    with SyncCaller(**given, store=url, keys=local_keys("second", "first")) as calls:
        assert calls.call({"age": 63}).source == "last-good"
    with SyncCaller(**given, store=url) as calls:
        assert calls.call({"age": 63}).source == "static"
    assert not any(b"urgent" in path.read_bytes() for path in tmp_path.iterdir())
    with pytest.raises(SpecError, match="keys must be given to the store"):
        SyncCaller(**given, store=InMemoryStore(), keys=local_keys())


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
def test_no_other_4xx_opens_the_breaker(model: ModelServer, status: int) -> None:
    """A server that refuses a request works; the next request may be a better one."""
    model.status = status
    with caller(model, InMemoryStore()) as calls:
        answers = [calls.call({"x": 1}) for _ in range(6)]
    assert {answer.breaker_state for answer in answers} == {"closed"}
    assert model.calls == 6


def test_a_request_that_cannot_be_made_says_nothing_of_the_endpoint(model: ModelServer) -> None:
    """It is never sent, and holds no place."""
    with caller(model, InMemoryStore()) as calls:
        for _ in range(6):
            assert calls.call("no records").reason == "not_records"
        assert calls.call({"x": 1}).breaker_state == "closed"


def test_the_bulkhead_rejects_what_is_too_much_and_does_not_queue(model: ModelServer, store: str | CallStore) -> None:
    """Two places are taken: further calls are answered at once by the floor, and later there is room again."""
    release = threading.Event()
    model.hold = lambda: release.wait(10)
    settings = CallSettings(deadline_seconds=4.0, max_concurrent_calls=2, store_timeout_seconds=1.0)
    with caller(model, store, settings=settings) as calls:
        holders = [threading.Thread(target=calls.call, args=({"x": 1},)) for _ in range(2)]
        for holder in holders:
            holder.start()
        _until(lambda: model.in_flight, lambda count: count == 2)
        began = time.monotonic()
        assert [calls.call({"x": 1}).reason for _ in range(4)] == ["bulkhead_full"] * 4
        assert time.monotonic() - began < 4.0
        release.set()
        for holder in holders:
            holder.join()
        assert calls.call({"x": 1}).degraded is False
    assert model.most_in_flight == 2


def test_the_last_good_answer_serves_the_same_input_and_no_other(model: ModelServer, store: str | CallStore) -> None:
    """With its age and its model; a fallback's answer is never kept as a good one."""
    chain = [LastGood(max_age=timedelta(hours=6)), FLOOR]
    with caller(model, store, fallback=chain) as calls:
        assert calls.call({"age": 63}).output == {"priority": "urgent"}
        model.status = 500
        kept = calls.call({"age": 63})
        assert (kept.output, kept.source, kept.degraded) == ({"priority": "urgent"}, "last-good", True)
        assert kept.age_seconds is not None
        assert 0 <= kept.age_seconds < 60
        assert kept.model == "m"
        assert [calls.call({"age": 64}).source for _ in range(2)] == ["static", "static"]


def test_a_good_answer_that_is_too_old_is_not_used(model: ModelServer) -> None:
    """Older than max_age: the next link answers."""
    now = [1000.0]
    with caller(model, InMemoryStore(clock=lambda: now[0]), fallback=[LastGood(max_age=60), FLOOR]) as calls:
        calls.call({"age": 63})
        model.status = 500
        now[0] += 59
        assert calls.call({"age": 63}).source == "last-good"
        now[0] += 2
        assert calls.call({"age": 63}).source == "static"


def test_a_second_endpoint_has_a_breaker_of_its_own(model: ModelServer, store: str | CallStore) -> None:
    """While the first one's is open, the second answers."""
    with model_server() as small:
        small.answer = "soon"
        model.status = 500
        with caller(model, store, fallback=[Endpoint(endpoint(small.url, "small")), FLOOR]) as calls:
            answers = [calls.call({"x": 1}) for _ in range(5)]
    assert [answer.model for answer in answers] == ["small"] * 5
    assert [answer.reason for answer in answers] == ["server_error"] * 3 + ["breaker_open"] * 2
    assert (model.calls, small.calls) == (3, 5)


def test_the_remaining_time_goes_out_in_a_header(model: ModelServer) -> None:
    """The server may give up when nobody waits any more."""
    with caller(model) as calls:
        calls.call({"x": 1})
    left = int({name.lower(): value for name, value in model.headers[0].items()}["x-request-timeout-ms"])
    assert 1500 < left < 2000


def test_a_store_that_refuses_costs_nothing_but_its_help(
    model: ModelServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No file can be made there: the call goes on, and the log says what is wrong."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caller(model, f"sqlite:///{blocked}/store.db") as calls:
        answer = calls.call({"x": 1})
    assert (answer.degraded, answer.breaker_state) == (False, "unknown")
    assert "the store fails" in caplog.text


def test_a_store_that_hangs_costs_at_most_its_cap(model: ModelServer) -> None:
    """PostgreSQL stopped in its tracks: the first call waits a moment for it, the next not at all."""
    with postgres_server(durable=False) as server:
        store = server.url(server.create_database())
        settings = CallSettings(deadline_seconds=5.0, store_timeout_seconds=1.0)
        with caller(model, store, settings=settings) as calls:
            assert calls.call({"x": 1}).breaker_state == "closed"
            with _Frozen(server):
                took = []
                for _ in range(3):
                    began = time.monotonic()
                    answer = calls.call({"x": 1})
                    took.append(time.monotonic() - began)
                    assert (answer.degraded, answer.breaker_state) == (False, "unknown")
            assert 0.4 < took[0] < 2.0  # half a second: a tenth of the deadline
            assert max(took[1:]) < 0.4


def test_a_password_in_the_stores_url_is_not_logged(model: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not even when the store cannot be reached."""
    with caller(model, "postgresql://ai:Sesame-4711@127.0.0.1:9/ai") as calls:
        assert calls.call({"x": 1}).degraded is False
    assert "the store fails" in caplog.text
    assert "Sesame" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fallback": []}, "fallback must be a list of links that ends in Static"),
        ({"fallback": [LastGood(max_age=60), FLOOR]}, "LastGood needs a store"),
        ({"fallback": [Endpoint("connection"), FLOOR]}, "needs Airflow to look it up"),
        ({"fallback": [UserCallable("no_such_module:function"), FLOOR]}, "cannot be imported"),
        ({"fallback": [UserCallable("os:sep"), FLOOR]}, "must be a function"),
        ({"request": OpenInferenceRequest(columns=["x"])}, "request must be one of protocol 'json'"),
        ({"store": "mysql://host/db"}, "must begin with sqlite: or postgresql:"),
        ({"store": "sqlite://"}, "must name a SQLite file"),
    ],
)
def test_what_cannot_be_right_is_refused_when_the_caller_is_made(changes: dict[str, Any], message: str) -> None:
    """Before any call, with what to do."""
    settings = {"endpoint": endpoint("http://127.0.0.1:9"), "request": JsonRequest(), "fallback": [FLOOR], **changes}
    with pytest.raises(SpecError, match=message):
        SyncCaller(**settings)


def test_certificates_that_cannot_be_loaded_are_refused_when_the_caller_is_made(tmp_path: Path) -> None:
    """Not degraded answer after degraded answer until somebody looks."""
    broken = EndpointSettings(url="https://127.0.0.1:9", protocol="json", model="m", ca_file=str(tmp_path / "no.pem"))
    with pytest.raises(SpecError, match="cannot load the endpoint's TLS files"):
        SyncCaller(endpoint=broken, request=JsonRequest(), fallback=[FLOOR])


def _until(look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 10
    while True:
        seen = look()
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.005)


class _Frozen:
    """All processes of a server, stopped for a while."""

    def __init__(self, server: PostgresServer) -> None:
        self._pids = [process.pid for process in server.service.members()]

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)
