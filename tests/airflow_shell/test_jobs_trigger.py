"""The trigger that waits for jobs: what it says, what it survives, and how rarely it looks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from airflow_provider_ai.adapters.store.jobs import StoredJobs
from airflow_provider_ai.core.jobs import Content, JobState, NewJob, job_id
from airflow_provider_ai.exceptions import StoreUnavailableError
from airflow_provider_ai.hooks.ai_jobs import AIJobsHook
from airflow_provider_ai.triggers import ai_jobs as trigger_module
from airflow_provider_ai.triggers import job_connections
from airflow_provider_ai.triggers.ai_jobs import AIJobsTrigger, verdict_of
from tests.airflow_shell.job_deployment import JobDeployment, jobs

__all__ = ["jobs"]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait before the first event, and little between two looks when one did not work."""
    monkeypatch.setattr(trigger_module, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(trigger_module, "LOOK_AGAIN_SECONDS", 0.05)


def trigger(submission: str, **settings: Any) -> AIJobsTrigger:
    given: dict[str, Any] = {
        "transport_conn_id": "ai_jobs",
        "store_conn_id": None,
        "on_failed_jobs": "fail",
        "max_failed_fraction": 0.01,
        "deadline": time.time() + 60,
        "expected": 2,
        "embed_dispatcher": False,
    }
    return AIJobsTrigger(submission=submission, **{**given, **settings})


def submit(jobs: JobDeployment, submission: str, count: int = 2) -> None:
    payload = Content(sha256="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", inline=b"{}")
    new = [
        NewJob(job_id=job_id(submission, n), submission=submission, position=n, payload=payload) for n in range(count)
    ]
    with jobs.store() as store:
        store.jobs().submit(new)


async def fired(waiting: AIJobsTrigger) -> TriggerEvent:
    async with asyncio.timeout(30):
        return await anext(waiting.run())


@pytest.mark.usefixtures("settled")
async def test_it_fires_when_all_jobs_have_ended(jobs: JobDeployment) -> None:
    """With counts and words, and nothing that was sent or answered."""
    submit(jobs, "s")
    waiting = asyncio.create_task(fired(trigger("s")))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await asyncio.to_thread(jobs.finish, "s", [{"secret": 1}, {"secret": 2}])
    event = (await waiting).payload
    assert (event["submission"], event["state"], event["reason"]) == ("s", "complete", None)
    assert event["counts"]["completed"] == 2
    assert "secret" not in json.dumps(event)
    assert verdict_of(json.loads(json.dumps(event))).over


@pytest.mark.usefixtures("settled")
async def test_a_dead_job_ends_the_wait_at_once(jobs: JobDeployment) -> None:
    """The other is not waited for."""
    submit(jobs, "s")
    jobs.finish("s", [JobState.FAILED, None])
    event = (await fired(trigger("s"))).payload
    assert (event["state"], event["reason"]) == ("failed", "jobs_failed")


@pytest.mark.usefixtures("settled")
async def test_the_deadline_ends_the_wait(jobs: JobDeployment) -> None:
    """Also a deadline that is over already."""
    submit(jobs, "s")
    event = (await fired(trigger("s", deadline=time.time() - 1))).payload
    assert (event["state"], event["reason"]) == ("timed_out", "deadline")


@pytest.mark.usefixtures("settled")
async def test_nothing_makes_it_raise(
    jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]
) -> None:
    """Connection missing, connection wrong, store down: it looks again until all is well."""
    submit(jobs, "s")
    jobs.finish("s", [{}, {}])
    good = {"conn_type": "ai_jobs", "host": "http://127.0.0.1:9", "extra": jobs.extra}
    monkeypatch.delenv("AIRFLOW_CONN_AI_JOBS")
    waiting = asyncio.create_task(fired(trigger("s")))
    await asyncio.sleep(0.3)
    set_connection("ai_jobs", **{**good, "extra": {"unknown": 1}})
    await asyncio.sleep(0.3)
    assert not waiting.done()
    failures = iter([True] * 3)
    count = StoredJobs.counts

    def counts(self: StoredJobs, submissions: Any) -> Any:
        if next(failures, False):
            raise StoreUnavailableError("down")
        return count(self, submissions)

    monkeypatch.setattr(StoredJobs, "counts", counts)
    set_connection("ai_jobs", **good)
    assert (await waiting).payload["state"] == "complete"


@pytest.mark.usefixtures("settled")
async def test_a_wait_that_cannot_look_ends_after_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No connection at all: a task that waits forever helps nobody."""
    monkeypatch.setattr(trigger_module, "GIVE_UP_SECONDS", 0.0)
    event = (await fired(trigger("s", transport_conn_id="nowhere", deadline=time.time()))).payload
    assert (event["state"], event["reason"]) == ("timed_out", "store_unavailable")


async def test_no_event_in_the_first_seconds(jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow must have seen the end of the deferring process first."""
    monkeypatch.setattr(trigger_module, "SETTLE_SECONDS", 1.0)
    submit(jobs, "s")
    jobs.finish("s", [{}, {}])
    began = time.monotonic()
    await fired(trigger("s"))
    assert time.monotonic() - began >= 1.0
    assert trigger_module.SETTLE_SECONDS < 10 < trigger_module.GIVE_UP_SECONDS


@pytest.mark.usefixtures("settled")
async def test_many_waits_are_one_look_and_one_look_up(jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred tasks: the store is asked once a tick, the connections once."""
    names = [f"s{number}" for number in range(200)]
    for name in names:
        submit(jobs, name, 1)
    looks: list[int] = []
    look_ups: list[str] = []
    count, get_conn = StoredJobs.counts, AIJobsHook.get_conn

    def counts(self: StoredJobs, submissions: Any) -> Any:
        looks.append(len(submissions))
        return count(self, submissions)

    def looked_up(self: AIJobsHook, **given: Any) -> Any:
        look_ups.append(self.transport_conn_id)
        return get_conn(self, **given)

    monkeypatch.setattr(StoredJobs, "counts", counts)
    monkeypatch.setattr(AIJobsHook, "get_conn", looked_up)
    began = time.monotonic()
    waits = [asyncio.create_task(fired(trigger(name, expected=1))) for name in names]
    await asyncio.sleep(2.5)
    for name in names:
        await asyncio.to_thread(jobs.finish, name, [{}])
    assert {event.payload["state"] for event in await asyncio.gather(*waits)} == {"complete"}
    assert len(looks) <= time.monotonic() - began + 2
    assert max(looks) == 200
    assert look_ups == ["ai_jobs"]


@pytest.mark.parametrize(("state", "cancelled"), [("failed", 2), ("success", 2), (None, 0), ("scheduled", 0)])
async def test_only_a_marked_task_cancels_its_jobs(
    jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch, state: str | None, cancelled: int
) -> None:
    """A cleared one goes on with them."""
    submit(jobs, "s")
    killed = trigger("s")
    _told(monkeypatch, killed, lambda **_: {"r": {"t_3": state}})
    await killed.on_kill()
    with jobs.store() as store:
        assert store.jobs().counts(["s"])["s"].cancelled == cancelled


async def test_jobs_are_cancelled_when_nobody_can_say(jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cancelled in vain is submitted again; what runs in vain is paid for."""

    def states(**_: Any) -> Any:
        raise RuntimeError("no answer")

    submit(jobs, "s")
    killed = trigger("s")
    _told(monkeypatch, killed, states)
    await killed.on_kill()
    with jobs.store() as store:
        assert store.jobs().counts(["s"])["s"].cancelled == 2


def _told(monkeypatch: pytest.MonkeyPatch, killed: AIJobsTrigger, states: Callable[..., Any]) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    killed.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=3)  # type: ignore[assignment]
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))


async def test_connections_are_looked_up_again_after_a_while(
    jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a corrected one is seen."""
    first = await job_connections.job_settings("ai_jobs", None)
    assert await job_connections.job_settings("ai_jobs", None) is first
    monkeypatch.setattr(job_connections, "KEPT_SECONDS", 0.0)
    again = await job_connections.job_settings("ai_jobs", None)
    assert again is not first
    assert again == first


def test_kwargs_are_the_constructors(jobs: JobDeployment) -> None:
    """Another triggerer makes the same trigger of what is stored."""
    path, kwargs = trigger("s").serialize()
    assert path == "airflow_provider_ai.triggers.ai_jobs.AIJobsTrigger"
    assert AIJobsTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)
