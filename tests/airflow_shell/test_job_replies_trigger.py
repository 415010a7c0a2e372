"""The watcher of replies: what it tells, how often, and what it survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from airflow_provider_ai.core.jobs import JobState
from airflow_provider_ai.operators.request_reply import WarehouseSink, land_submission
from airflow_provider_ai.triggers import job_replies
from airflow_provider_ai.triggers.job_replies import JobRepliesTrigger
from tests.airflow_shell.job_deployment import JobDeployment, jobs
from tests.airflow_shell.test_jobs_trigger import submit

__all__ = ["jobs"]


def watcher(**settings: Any) -> JobRepliesTrigger:
    return JobRepliesTrigger(**{"poke_interval": 0.05, "embed_dispatcher": False, **settings})


async def told(events: AsyncIterator[Any]) -> list[str]:
    """The submissions of the next event."""
    async with asyncio.timeout(30):
        payload = (await anext(events)).payload
    assert json.loads(json.dumps(payload)) == payload
    return sorted(each["submission"] for each in payload["submissions"])


async def test_each_submission_is_told_once(jobs: JobDeployment) -> None:
    """When its last job has ended, however; those that ended together are one event, and old ones are told at first."""
    for name in ("a", "b", "c"):
        submit(jobs, name)
    jobs.finish("a", [{}, {}])
    jobs.finish("b", [{}, JobState.FAILED])
    events = watcher().run()
    assert await told(events) == ["a", "b"]
    waiting = asyncio.create_task(told(events))
    await asyncio.to_thread(jobs.finish, "c", [{}, None])
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await asyncio.to_thread(jobs.finish, "c", [None, {}])
    assert await waiting == ["c"]
    await events.aclose()  # type: ignore[attr-defined]


async def test_what_ended_long_before_is_not_told(jobs: JobDeployment) -> None:
    """A restart does not tell everything again."""
    submit(jobs, "old")
    jobs.finish("old", [{}, {}])
    events = watcher(look_back=-60.0).run()
    waiting = asyncio.create_task(told(events))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_many_are_told_in_parts(jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Airflow keeps of an event stays small."""
    monkeypatch.setattr(job_replies, "_MOST_TOLD", 2)
    for name in ("a", "b", "c"):
        submit(jobs, name)
        jobs.finish(name, [{}, {}])
    events = watcher().run()
    assert [len(await told(events)) for _ in range(2)] == [2, 1]


async def test_nothing_makes_it_stop(
    jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]
) -> None:
    """A connection that is missing for a while."""
    submit(jobs, "a")
    jobs.finish("a", [{}, {}])
    monkeypatch.delenv("AIRFLOW_CONN_AI_JOBS")
    events = watcher().run()
    waiting = asyncio.create_task(told(events))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    set_connection("ai_jobs", conn_type="ai_jobs", host="http://127.0.0.1:9", extra=jobs.extra)
    assert await waiting == ["a"]


def test_kwargs_are_the_constructors() -> None:
    """Another triggerer makes the same trigger of what is stored."""
    path, kwargs = watcher().serialize()
    assert path == "airflow_provider_ai.triggers.job_replies.JobRepliesTrigger"
    assert JobRepliesTrigger(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


def test_what_it_tells_can_be_landed(jobs: JobDeployment, set_connection: Callable[..., None], tmp_path: Any) -> None:
    """Twice, and it stands there once."""
    import duckdb

    set_connection("warehouse", conn_type="duckdb", host=str(tmp_path / "w.duckdb"))
    submit(jobs, "a")
    jobs.finish("a", [{"n": 1}, JobState.FAILED])
    sink = WarehouseSink(conn_id="warehouse", table="replies")
    assert land_submission("a", sink, run_id="r") == {"rows": 1, "written": 1}
    assert land_submission("a", sink, run_id="r") == {"rows": 1, "written": 0}
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        assert connection.execute("SELECT n, _run_id FROM replies").fetchall() == [(1, "r")]


def test_what_was_redriven_since_is_landed_when_it_has_ended_again(
    jobs: JobDeployment, set_connection: Callable[..., None], tmp_path: Any
) -> None:
    """The watcher tells it once more then; until that nothing fails, and nothing is landed."""
    set_connection("warehouse", conn_type="duckdb", host=str(tmp_path / "w.duckdb"))
    submit(jobs, "a")
    jobs.finish("a", [{"n": 1}, JobState.FAILED])
    with jobs.store() as store:
        store.jobs().redrive([job.job_id for job in store.jobs().jobs("a")])
    sink = WarehouseSink(conn_id="warehouse", table="replies")
    assert land_submission("a", sink, run_id="r") == {"rows": 0, "written": 0}
    jobs.finish("a", [None, {"n": 2}])
    assert land_submission("a", sink, run_id="r") == {"rows": 2, "written": 2}
