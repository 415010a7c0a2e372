"""The sensors for jobs of others and for dead letters."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred

from airflow_provider_ai.core.job_ports import DeadLetter, OutgoingMessage
from airflow_provider_ai.core.jobs import JobState, job_id
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.sensors.ai_jobs import AIJobSensor
from airflow_provider_ai.sensors.dead_letters import DeadLetterQueueSensor
from airflow_provider_ai.triggers import ai_jobs as jobs_trigger
from airflow_provider_ai.triggers import dead_letters as letters_trigger
from tests.airflow_shell.job_deployment import JobDeployment, jobs
from tests.airflow_shell.test_jobs_trigger import submit

__all__ = ["jobs"]
FIRST, SECOND = job_id("s", 0), job_id("s", 1)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (jobs_trigger, letters_trigger):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)


def execute(sensor: Any) -> Any:
    ExecutorSafeguard.tracker.set(sensor)
    return sensor.execute({})


def sensor_of(**settings: Any) -> AIJobSensor:
    return AIJobSensor(task_id="answered", **{"poke_interval": 0.01, "timeout": 60, "deferrable": False, **settings})


def letters_of(**settings: Any) -> DeadLetterQueueSensor:
    given = {"poke_interval": 0.01, "timeout": 60, "deferrable": False, **settings}
    return DeadLetterQueueSensor(task_id="dead", **given)


async def fired(trigger: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        event = await anext(trigger.run())
    payload: dict[str, Any] = json.loads(json.dumps(event.payload))
    return payload


def deferral(sensor: Any) -> Any:
    with pytest.raises(TaskDeferred) as caught:
        execute(sensor)
    return caught.value


def test_one_job_is_waited_for_and_no_other(jobs: JobDeployment) -> None:
    """Its reply must have arrived."""
    submit(jobs, "s")
    assert sensor_of(job_id=FIRST).poke({}) is False
    jobs.finish("s", [{"a": 1}, None])
    assert sensor_of(job_id=FIRST).poke({}) is True
    assert sensor_of(job_id=SECOND).poke({}) is False
    assert sensor_of(submission="s").poke({}) is False
    with pytest.raises(AirflowSensorTimeout):
        execute(sensor_of(submission="s", timeout=0))
    jobs.finish("s", [None, {"a": 2}])
    assert execute(sensor_of(submission="s")) is None


@pytest.mark.parametrize("name", [{"job_id": FIRST}, {"submission": "s"}])
def test_what_nobody_will_answer_is_not_waited_for(jobs: JobDeployment, name: dict[str, str]) -> None:
    """A job that failed, and one that nobody has submitted."""
    with pytest.raises(AirflowFailException, match="never submitted"):
        sensor_of(**name).poke({})
    submit(jobs, "s")
    jobs.finish("s", [JobState.FAILED, None])
    with pytest.raises(AirflowFailException, match=r"1 of [12] jobs ended without a result"):
        sensor_of(**name).poke({})


async def test_it_waits_in_the_triggerer(jobs: JobDeployment) -> None:
    """For one job or for all, and it cancels nothing when it is killed: the jobs are somebody else's."""
    submit(jobs, "s")
    names = ({"job_id": FIRST}, {"submission": "s"})
    one, whole = (deferral(sensor_of(deferrable=True, timeout=90, **name)) for name in names)
    assert one.timeout == timedelta(seconds=90)
    waits = [asyncio.create_task(fired(each.trigger)) for each in (one, whole)]
    await one.trigger.on_kill()
    await asyncio.to_thread(jobs.finish, "s", [{"a": 1}, None])
    assert (await waits[0])["counts"]["completed"] == 1
    assert not waits[1].done()
    await asyncio.to_thread(jobs.finish, "s", [None, JobState.EXPIRED])
    event = await waits[1]
    with pytest.raises(AirflowFailException, match="1 expired"):
        sensor_of(submission="s").execute_complete({}, event)


@pytest.mark.parametrize("given", [{}, {"job_id": FIRST, "submission": "s"}])
def test_one_of_both_must_be_named(given: dict[str, str]) -> None:
    """Neither none nor two."""
    with pytest.raises(SpecError, match="either job_id or submission"):
        sensor_of(**given)


def keep(jobs: JobDeployment, name: str, reason: str = "handler_error", source: str = "requests") -> None:
    letter = DeadLetter(letter_id=name, job_id=FIRST, reason=reason, source=source, message=b"PHI")
    with jobs.store() as store:
        store.dead_letters().keep([letter])


def test_dead_letters_are_seen_in_the_queue_and_in_the_store(jobs: JobDeployment) -> None:
    """Counted by reason, and taken from neither; not those of another deployment in the same store."""
    assert not letters_of().poke({})
    jobs.transport.dead_letters.send([OutgoingMessage(key="k", body=b"PHI")])
    assert execute(letters_of()) == {"kept": 0, "queued": 1, "reasons": {}}
    keep(jobs, "1")
    keep(jobs, "2", "rejected")
    keep(jobs, "3")
    keep(jobs, "4", source="requests-of-others")
    assert execute(letters_of()) == {"kept": 3, "queued": 1, "reasons": {"handler_error": 2, "rejected": 1}}


def test_old_letters_do_not_count(jobs: JobDeployment) -> None:
    """Those that were seen before, say."""
    keep(jobs, "1")
    past, future = (datetime.fromtimestamp(time.time() + offset, UTC).isoformat() for offset in (-60, 60))
    assert letters_of(since=past).poke({})
    assert not letters_of(since=future).poke({})
    with pytest.raises(AirflowFailException, match="since must be an ISO 8601 time with an offset"):
        letters_of(since="2026-03-01").poke({})


async def test_dead_letters_are_waited_for_in_the_triggerer(
    jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]
) -> None:
    """Whatever is wrong meanwhile."""
    trigger = deferral(letters_of(deferrable=True)).trigger
    monkeypatch.delenv("AIRFLOW_CONN_AI_JOBS")
    waiting = asyncio.create_task(fired(trigger))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    set_connection("ai_jobs", conn_type="ai_jobs", host="http://127.0.0.1:9", extra=jobs.extra)
    await asyncio.to_thread(keep, jobs, "1")
    assert await waiting == {"kept": 1, "queued": 0, "reasons": {"handler_error": 1}}
