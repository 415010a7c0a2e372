"""The operator that submits jobs and waits for them, on queues in memory and a store in SQLite."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_ai.core.jobs import JobState
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.ai_jobs import load_replies
from airflow_provider_ai.operators.request_reply import (
    AISubmitAndWaitOperator,
    SqsSubmitAndWaitOperator,
    WarehouseSink,
)
from airflow_provider_ai.operators.settings import WarehouseSink as SharedSink
from airflow_provider_ai.runtime import embedded_dispatcher
from airflow_provider_ai.triggers.ai_jobs import AIJobsTrigger
from airflow_provider_ai.triggers.job_replies import JobRepliesTrigger
from tests.airflow_shell.job_deployment import JobDeployment, jobs

__all__ = ["jobs"]

CANARY = "PHI-77dd1e"
NOTES = [{"note": f"{CANARY}-{number}"} for number in range(3)]
RUN = "manual__2026-03-01T00:00:00+00:00"


def operator(**settings: Any) -> AISubmitAndWaitOperator:
    return AISubmitAndWaitOperator(task_id="summarise", **{"requests": NOTES, **settings})


def context(run_id: str = RUN, map_index: int = -1) -> Any:
    ti = SimpleNamespace(dag_id="notes", run_id=run_id, task_id="summarise", map_index=map_index)
    return {"ti": ti, "params": {}}


def deferred(task: AISubmitAndWaitOperator, **given: Any) -> dict[str, Any]:
    """The kwargs of the trigger that the task waits with."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context(**given))
    assert caught.value.method_name == "execute_complete"
    assert isinstance(caught.value.trigger, AIJobsTrigger)
    return dict(caught.value.trigger.serialize()[1])


def event(submission: str, state: str = "complete", reason: str | None = None, **counts: int) -> dict[str, Any]:
    return {"submission": submission, "state": state, "reason": reason, "counts": counts}


def summary(request: dict[str, Any]) -> dict[str, int]:
    return {"length": len(request["note"])}


def test_requests_are_submitted_before_the_task_defers(jobs: JobDeployment) -> None:
    """Rows and messages first; what Airflow keeps of it are ids, numbers and words."""
    kwargs = deferred(operator(job_deadline=timedelta(hours=2)))
    assert sorted(jobs.requests(), key=str) == NOTES
    left = kwargs.pop("deadline") - time.time()
    assert left == pytest.approx(7200 + 360, abs=30)
    submission = kwargs.pop("submission")
    assert kwargs == {
        "transport_conn_id": "ai_jobs",
        "store_conn_id": None,
        "on_failed_jobs": "fail",
        "max_failed_fraction": 0.01,
        "expected": 3,
        "embed_dispatcher": True,
        "cancel_on_kill": True,
    }
    assert len(submission) == 32
    with jobs.store() as store:
        [first, *_] = store.jobs().jobs(submission)
    assert first.sent
    assert (first.expires_at or 0) - time.time() == pytest.approx(7200, abs=30)


def test_another_attempt_means_the_same_jobs(jobs: JobDeployment) -> None:
    """A retry, a clear, another scheduler: no second message. Another run, index or generation: other jobs."""
    first = deferred(operator())["submission"]
    assert deferred(operator())["submission"] == first
    assert len(jobs.requests()) == 3
    others = [
        deferred(operator(), run_id="other")["submission"],
        deferred(operator(), map_index=1)["submission"],
        deferred(operator(generation=1))["submission"],
    ]
    assert len({first, *others}) == 4
    assert len(jobs.requests()) == 12


def test_the_manifest_holds_counts_and_references(jobs: JobDeployment) -> None:
    """Never a payload; the replies are read with it, in order."""
    submission = deferred(operator())["submission"]
    jobs.finish(submission, summary)
    manifest = operator().execute_complete(context(), event(submission, jobs=3, completed=3))
    assert manifest == {
        "submission": submission,
        "jobs": 3,
        "completed": 3,
        "failed": 0,
        "expired": 0,
        "cancelled": 0,
        "pending": 0,
        "reasons": {},
        "output": {"transport_conn_id": "ai_jobs", "submission": submission},
    }
    assert [reply.output for reply in load_replies(manifest)] == [{"length": 12}] * 3
    assert CANARY not in json.dumps(manifest)


async def test_nothing_that_crosses_airflow_can_be_guessed_from(jobs: JobDeployment) -> None:
    """A hash of one of a few answers tells which it was: none of requests or replies is in kwargs, events or XCom."""
    asked = operator(requests=[{"pulse": number} for number in (60, 61)])
    kwargs = await asyncio.to_thread(deferred, asked)
    submission = kwargs["submission"]
    await asyncio.to_thread(jobs.finish, submission, [{"priority": "urgent"}, {"priority": "routine"}])
    waits = (AIJobsTrigger(**kwargs), JobRepliesTrigger(embed_dispatcher=False))
    events = [(await anext(aiter(wait.run()))).payload for wait in waits]
    manifest = await asyncio.to_thread(operator().execute_complete, context(), events[0])
    crossing = json.dumps([kwargs, events, manifest])
    with jobs.store() as store:
        found = store.jobs().jobs(submission)
    hashes = [content.sha256 for job in found for content in (job.payload, job.result) if content]
    assert len(set(hashes)) == 4
    assert submission in crossing
    assert [hash for hash in hashes if hash[:8] in crossing] == []


def test_an_attempt_that_finds_all_replies_does_not_defer(jobs: JobDeployment) -> None:
    """Cleared after its end, or retried after a warehouse was down."""
    jobs.finish(deferred(operator())["submission"], summary)
    assert operator().execute(context())["completed"] == 3
    assert len(jobs.requests()) == 3


@pytest.mark.parametrize("deferrable", [True, False])
def test_replies_land_in_a_table_once(
    jobs: JobDeployment, deferrable: bool, set_connection: Callable[..., None], tmp_path: Path
) -> None:
    """Both ways of waiting land the same rows, and a second landing adds none."""
    import duckdb

    set_connection("warehouse", conn_type="duckdb", host=str(tmp_path / "w.duckdb"))
    sink = WarehouseSink(conn_id="warehouse", table="summaries")
    jobs.finish(deferred(operator())["submission"], summary)
    task = operator(sink=sink, deferrable=deferrable)
    manifest = task.execute(context())
    assert manifest["output"] == {
        "conn_id": "warehouse",
        "table": "summaries",
        "schema": None,
        "rows": 3,
        "written": 3,
    }
    assert task.execute(context())["output"]["written"] == 0
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        assert connection.execute("SELECT length, _run_id FROM summaries").fetchall() == [(12, RUN)] * 3


def test_waiting_in_the_worker_slot_ends_with_the_replies(jobs: JobDeployment) -> None:
    """Nobody is deferred, and a dispatcher of the task's own takes the replies."""
    task = operator(deferrable=False)

    def answer() -> None:
        while len(jobs.requests()) < 3:
            time.sleep(0.02)
        jobs.finish(_submission(jobs), summary)

    answering = threading.Thread(target=answer)
    answering.start()
    assert task.execute(context())["completed"] == 3
    answering.join()


def _submission(jobs: JobDeployment) -> str:
    from airflow_provider_ai.core.messages import decode_request

    job_id = decode_request(jobs.transport.requests.peek(most=1)[0].body).job_id
    with jobs.store() as store:
        found = store.jobs().job(job_id)
    assert found is not None
    return found.submission


def test_a_dead_job_fails_the_task_with_its_reason(jobs: JobDeployment) -> None:
    """For good: a retry would find the same. It is told what to do."""
    submission = deferred(operator())["submission"]
    jobs.finish(submission, [{"length": 1}, JobState.FAILED, None])
    failed = event(submission, "failed", "jobs_failed", jobs=3, completed=1, failed=1, pending=1)
    with pytest.raises(AirflowFailException, match=r"1 of 3 jobs ended without a result .*was_failed: 1.*redrive"):
        operator().execute_complete(context(), failed)
    with pytest.raises(AirflowFailException, match="was_failed: 1"):
        operator().execute(context())


def test_a_deadline_leaves_the_jobs_to_a_retry(jobs: JobDeployment) -> None:
    """They go on; the next attempt waits for the same ones."""
    submission = deferred(operator())["submission"]
    late = event(submission, "timed_out", "deadline", jobs=3, completed=1, pending=2)
    with pytest.raises(AirflowException, match="2 of 3 jobs are still pending at the deadline") as failed:
        operator().execute_complete(context(), late)
    assert not isinstance(failed.value, AirflowFailException)
    assert deferred(operator())["submission"] == submission
    assert len(jobs.requests()) == 3


def test_few_failures_may_be_put_aside(jobs: JobDeployment) -> None:
    """Counted by reason in the manifest."""
    task = operator(on_failed_jobs="quarantine", max_failed_fraction=0.4)
    jobs.finish(deferred(task)["submission"], [{"length": 1}, JobState.EXPIRED, {"length": 2}])
    manifest = task.execute(context())
    assert (manifest["completed"], manifest["expired"], manifest["reasons"]) == (2, 1, {"was_expired": 1})


def test_resubmit_failed_submits_them_once_more_on_the_next_attempt(jobs: JobDeployment) -> None:
    """Those alone, and the error of the first attempt is one that is retried."""
    task = operator(verb="resubmit_failed")
    submission = deferred(task)["submission"]
    jobs.finish(submission, [{"length": 1}, JobState.FAILED, {"length": 2}])
    failed = event(submission, "failed", "jobs_failed", jobs=3, completed=2, failed=1)
    with pytest.raises(AirflowException) as raised:
        task.execute_complete(context(), failed)
    assert not isinstance(raised.value, AirflowFailException)
    assert deferred(task)["expected"] == 3
    assert len(jobs.requests()) == 4
    assert deferred(task)["submission"] == submission, "it is pending: there is nothing to submit again"
    assert len(jobs.requests()) == 4


def test_what_a_person_cancelled_is_submitted_again_by_the_next_attempt(jobs: JobDeployment) -> None:
    """A task that was marked failed while it waited, and then cleared."""
    submission = deferred(operator())["submission"]
    with jobs.store() as store:
        assert store.jobs().cancel(submission) == 3
    assert deferred(operator())["submission"] == submission
    assert len(jobs.requests()) == 6
    with jobs.store() as store:
        assert {job.state for job in store.jobs().jobs(submission)} == {JobState.PENDING}


def test_stopping_while_submitting_cancels_what_has_not_begun(
    jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM: the task ends soon, and says that a retry goes on."""
    task = operator(requests=[{"n": number} for number in range(5000)])
    send = jobs.transport.requests.send

    def slowly(messages: Any) -> Any:
        task.on_kill()
        return send(messages)

    monkeypatch.setattr(jobs.transport.requests, "send", slowly)
    with pytest.raises(AirflowException, match="a retry goes on with the same jobs"):
        task.execute(context())
    with jobs.store() as store:
        states = {job.state for job in store.jobs().jobs(_submission(jobs), most=5000)}
    assert states == {JobState.CANCELLED}
    monkeypatch.setattr(jobs.transport.requests, "send", send)
    assert deferred(operator(requests=task.requests.value))["expected"] == 5000


def test_a_dataset_is_planned_once(jobs: JobDeployment, tmp_path: Path, set_connection: Callable[..., None]) -> None:
    """Its rows are the requests; a retry needs the files no more; rows of the table are named by the id column."""
    import duckdb

    folder = tmp_path / "notes" / "dt=2026-03-01"
    folder.mkdir(parents=True)
    rows = [{"visit_id": f"v{number}", "note": f"{CANARY} {number}", "other": 1} for number in range(5)]
    (folder / "part-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    set_connection("warehouse", conn_type="duckdb", host=str(tmp_path / "w.duckdb"))
    sink = WarehouseSink(conn_id="warehouse", table="summaries")
    task = operator(requests=str(folder), id_column="visit_id", columns=["note"], sink=sink)
    assert task.requests.described() == str(folder)
    submission = deferred(task)["submission"]
    assert sorted(jobs.requests(), key=str) == [{k: row[k] for k in ("note", "visit_id")} for row in rows]
    (folder / "part-0.jsonl").unlink()
    deferred(task)
    assert len(jobs.requests()) == 5
    jobs.finish(submission, lambda request: {"length": len(request["note"])})
    manifest = task.execute_complete(context(), event(submission, jobs=5, completed=5))
    assert manifest["output"]["rows"] == 5
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        files = connection.execute("SELECT DISTINCT _source_file FROM summaries").fetchall()
    assert files == [(str(folder / "part-0.jsonl"),)]


def test_changed_requests_are_no_second_submission(jobs: JobDeployment) -> None:
    """The same job with another payload is an error, and says nothing of either."""
    deferred(operator())
    with pytest.raises(AirflowFailException, match="another payload") as failed:
        operator(requests=[{"note": f"{CANARY}-changed"}, *NOTES[1:]]).execute(context())
    assert CANARY not in str(failed.value)


def test_no_request_is_no_job(jobs: JobDeployment) -> None:
    """An empty night ends at once."""
    assert operator(requests=[]).execute(context())["jobs"] == 0


def test_large_payloads_go_through_the_claim_check(jobs: JobDeployment, set_connection: Callable[..., None]) -> None:
    """Objects first; the message refers to them."""
    set_connection("ai_jobs", conn_type="ai_jobs", extra={**jobs.extra, "inline_limit_bytes": 100})
    deferred(operator(requests=[{"note": "x" * 200}]))
    assert jobs.requests() == [{"note": "x" * 200}]
    assert len(list((jobs.folder / "claims").rglob("payload/*"))) == 1


def test_no_payload_is_shown_or_logged(
    jobs: JobDeployment, caplog: pytest.LogCaptureFixture, run_dag: Callable[..., Any]
) -> None:
    """Neither in the stored DAG nor in what the task says."""
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("notes", schedule=None) as dag:
        operator()
    assert CANARY not in json.dumps(DagSerialization.to_dict(dag))
    assert "3 records: note" in json.dumps(DagSerialization.to_dict(dag))
    with caplog.at_level(logging.DEBUG):
        jobs.finish(deferred(operator())["submission"], summary)
        operator().execute(context())
    assert CANARY not in caplog.text


def test_requests_of_other_tasks_make_them_upstream() -> None:
    """And are data: no template in them is rendered."""

    @task
    def notes() -> list[dict[str, str]]:
        return [{"note": "{{ ds }}"}]

    with DAG("notes", schedule=None) as dag:
        operator(requests=notes())
    assert dag.get_task("summarise").upstream_task_ids == {"notes"}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"requests": "s3://lake/notes/"}, "id_column must name"),
        ({"requests": "notes"}, "requests must be a mapping"),
        ({"requests": 7}, "requests must be a mapping"),
        ({"wait": "push"}, "wait must be"),
        ({"on_failed_jobs": "ignore"}, "on_failed_jobs must be"),
        ({"max_failed_fraction": 2}, "must be in"),
        ({"job_deadline": 0}, "job_deadline must be"),
        ({"verb": "recompute"}, "verb must be"),
        ({"sink": "table"}, "sink must be"),
    ],
)
def test_known_mistakes_are_refused_when_the_dag_is_parsed(mistake: dict[str, Any], words: str) -> None:
    """Before anything is submitted."""
    with pytest.raises(SpecError, match=words):
        operator(**mistake)


def test_the_front_for_sqs_takes_no_other(jobs: JobDeployment, set_connection: Callable[..., None]) -> None:
    """A connection to Kafka under its name would surprise."""
    front = SqsSubmitAndWaitOperator(task_id="summarise", requests=NOTES)
    assert len(deferred(front)["submission"]) == 32
    set_connection("ai_jobs", conn_type="ai_jobs", host="127.0.0.1:9092", extra={**jobs.extra, "kind": "kafka"})
    with pytest.raises(AirflowFailException, match="must be of kind sqs"):
        front.execute(context())


def test_a_webhook_is_asked_for_with_the_job(jobs: JobDeployment) -> None:
    """Workers look at it there."""
    submission = deferred(operator(wait="webhook", group="ward-7"))["submission"]
    with jobs.store() as store:
        assert {(job.webhook, job.group) for job in store.jobs().jobs(submission)} == {(True, "ward-7")}


def test_the_sink_is_the_batchs() -> None:
    """One class for both."""
    assert WarehouseSink is SharedSink


def test_the_embedded_dispatcher_is_one_for_all(jobs: JobDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait; it ends a while after the last of them."""
    started: list[Any] = []
    stopped: list[Any] = []

    def start(settings: Any) -> Callable[[], None]:
        started.append(settings)
        return lambda: stopped.append(settings)

    from airflow_provider_ai.hooks.ai_jobs import AIJobsHook

    monkeypatch.setattr(embedded_dispatcher, "_start", start)
    monkeypatch.setattr(embedded_dispatcher, "LINGER_SECONDS", 0.01)
    settings = AIJobsHook().get_conn()
    with (
        embedded_dispatcher.embedded_dispatcher(settings),
        embedded_dispatcher.embedded_dispatcher(AIJobsHook().get_conn()),
    ):
        assert len(started) == 1
    deadline = time.monotonic() + 10
    while not stopped and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stopped == started == [settings]
