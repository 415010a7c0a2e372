"""The sensor that waits for a model, and its trigger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred
from airflow.triggers.base import TriggerEvent

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.sensors.ai_endpoint import AIEndpointReadySensor
from airflow_provider_ai.triggers import ai_endpoint as trigger_module
from airflow_provider_ai.triggers.ai_endpoint import AIEndpointReadyTrigger
from benchmarks.stub import StubServer


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer(latency_ms=0) as stub:
        yield stub


@pytest.fixture
def stub(server: StubServer, set_connection: Callable[..., None]) -> StubServer:
    """A server that is up but whose model is not ready, behind connection `risk_model`."""
    server.set_faults(ready=False)
    set_connection(
        "risk_model", conn_type="ai_endpoint", host=server.url, password="s3cr3t-value", extra={"model": "m"}
    )
    return server


def execute(sensor: AIEndpointReadySensor) -> Any:
    ExecutorSafeguard.tracker.set(sensor)
    return sensor.execute({})


def sensor_of(**settings: Any) -> AIEndpointReadySensor:
    defaults = {"poke_interval": 0.01, "timeout": 60, "deferrable": False}
    return AIEndpointReadySensor(task_id="ready", endpoint_conn_id="risk_model", **{**defaults, **settings})


async def fired(trigger: AIEndpointReadyTrigger) -> TriggerEvent:
    async with asyncio.timeout(20):
        return await anext(trigger.run())


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait before the first event, where that wait is not what the test is about."""
    monkeypatch.setattr(trigger_module, "SETTLE_SECONDS", 0.0)


def test_it_waits_for_the_model_not_for_the_server(stub: StubServer) -> None:
    """Not ready, then ready: one look each."""
    sensor = sensor_of()
    assert sensor.poke({}) is False
    stub.set_faults(ready=True)
    assert sensor.poke({}) is True
    assert execute(sensor) is None


def test_it_gives_up_at_its_timeout(stub: StubServer) -> None:
    """As every sensor does."""
    with pytest.raises(AirflowSensorTimeout):
        execute(sensor_of(timeout=0))


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_connection_that_cannot_be_right_is_not_waited_for(
    deferrable: bool, set_connection: Callable[..., None]
) -> None:
    """No amount of waiting names a model."""
    set_connection("risk_model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra={})
    with pytest.raises(AirflowFailException, match="model must be a name") as error:
        execute(sensor_of(deferrable=deferrable))
    assert error.value.__context__ is None


def test_deferring_carries_ids_and_numbers_only(stub: StubServer) -> None:
    """What Airflow stores with the deferred task is neither secret nor address."""
    with pytest.raises(TaskDeferred) as deferred:
        execute(sensor_of(deferrable=True, poke_interval=timedelta(seconds=7), timeout=90))
    path, kwargs = deferred.value.trigger.serialize()
    assert kwargs == {"endpoint_conn_id": "risk_model", "poke_interval": 7.0}
    assert path == "airflow_provider_ai.triggers.ai_endpoint.AIEndpointReadyTrigger"
    assert deferred.value.timeout == timedelta(seconds=90)
    assert "s3cr3t-value" not in json.dumps(kwargs)


def test_a_ready_endpoint_defers_nothing(stub: StubServer) -> None:
    """No round trip through the triggerer on an ordinary night."""
    stub.set_faults(ready=True)
    assert execute(sensor_of(deferrable=True)) is None


@pytest.mark.usefixtures("settled")
async def test_the_trigger_fires_when_the_model_becomes_ready(stub: StubServer) -> None:
    """The event says that, and nothing else."""
    waiting = asyncio.ensure_future(fired(AIEndpointReadyTrigger("risk_model", 0.01)))
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(stub.set_faults, ready=True)
    assert (await waiting).payload == {"ready": True}


@pytest.mark.usefixtures("settled")
async def test_nothing_makes_the_trigger_raise(
    stub: StubServer, monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]
) -> None:
    """Connection missing, connection wrong, server away: it looks again until all is well."""
    stub.set_faults(ready=True)
    good = {"conn_type": "ai_endpoint", "host": stub.url, "extra": {"model": "m"}}
    stages = iter([None, {**good, "extra": {}}, {**good, "host": "http://127.0.0.1:9"}, good])
    monkeypatch.delenv("AIRFLOW_CONN_RISK_MODEL")
    real = AIEndpointReadyTrigger._look
    seen = []

    async def look(self: AIEndpointReadyTrigger) -> tuple[bool, str]:
        if fields := next(stages):
            set_connection("risk_model", **fields)
        seen.append(await real(self))
        return seen[-1]

    monkeypatch.setattr(AIEndpointReadyTrigger, "_look", look)
    assert (await fired(AIEndpointReadyTrigger("risk_model", 0.01))).payload == {"ready": True}
    assert [ready for ready, _ in seen] == [False, False, False, True]
    assert "SpecError" in seen[1][1]


async def test_the_first_event_does_not_come_at_once(stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger that fires while its task is still being deferred can fail that task."""
    stub.set_faults(ready=True)
    monkeypatch.setattr(trigger_module, "SETTLE_SECONDS", 0.5)
    started = time.monotonic()
    await fired(AIEndpointReadyTrigger("risk_model", 0.01))
    assert time.monotonic() - started >= 0.5


def test_the_first_event_comes_after_airflow_has_seen_the_worker_end() -> None:
    """It may look for the end of a process only once a heartbeat interval, and its scheduler learns of it later."""
    from airflow.sdk.execution_time.supervisor import MIN_HEARTBEAT_INTERVAL

    assert trigger_module.SETTLE_SECONDS >= MIN_HEARTBEAT_INTERVAL + 3


@pytest.mark.parametrize("interval", [0, -1])
def test_the_interval_is_checked(interval: float) -> None:
    """Zero would be a busy loop in the triggerer."""
    with pytest.raises((SpecError, ValueError), match="poke_interval"):
        sensor_of(poke_interval=interval)
