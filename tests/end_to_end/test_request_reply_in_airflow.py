"""The asynchronous pattern in a real Airflow: real queues, real workers, a real model, and things that are killed."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date

import httpx
import psycopg
import pyarrow.parquet as pq

from tests.end_to_end.job_airflow import CANARY, JobAirflow, model_tables
from tests.end_to_end.test_batch_nightly import texts_with
from tests.support import airflow_env, clinical_data
from tests.support.processes import wait_until

DAY = date(2026, 5, 1)
WAITS = 50


def test_the_nightly_replies_land(job_airflow: JobAirflow) -> None:
    """The DAG that ships: 100 patients, each a job, each reply a row, and the manifest in XCom says so."""
    rows = clinical_data.real_rows().slice(0, 100).rename_columns(["note_id", *clinical_data.feature_columns()])
    folder = job_airflow.lake / "notes" / f"dt={DAY}"
    folder.mkdir(parents=True)
    pq.write_table(rows, folder / "part-0.parquet")
    api = job_airflow.api
    with job_airflow.deployments["ai_jobs"].worker(**model_tables(job_airflow.model)):
        run = api.trigger("nightly_note_replies", conf={"date": DAY.isoformat()})
        api.wait_for_run("nightly_note_replies", run, deadline_seconds=150)
    manifest = api.xcom("nightly_note_replies", run, "ask")
    assert {name: manifest[name] for name in ("jobs", "completed", "failed", "expired", "pending")} == {
        "jobs": 100,
        "completed": 100,
        "failed": 0,
        "expired": 0,
        "pending": 0,
    }
    with psycopg.connect(job_airflow.warehouse) as connection:
        [counts] = connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT _record_key), COUNT(*) FILTER (WHERE predict IN (0, 1)) FROM note_replies"
        ).fetchall()
    assert counts == (100, 100, 100)
    assert manifest["output"]["rows"] == 100


def test_replies_that_arrive_start_a_dag(job_airflow: JobAirflow) -> None:
    """The watcher knows nothing of the task above but what is in the store; the run lands the same replies."""
    api = job_airflow.api
    sql = "SELECT submission FROM ai_jobs GROUP BY submission HAVING COUNT(*) = 100"
    [(submission,)] = job_airflow.deployments["ai_jobs"].query(sql)

    def landed() -> list[int]:
        ended = [run["dag_run_id"] for run in api.dag_runs("replies_arrived") if run["state"] == "success"]
        return [rows for run in ended if (rows := api.xcom("replies_arrived", run, "land").get(submission))]

    wait_until(lambda: bool(landed()), deadline_seconds=150, what="the DAG has landed them")
    assert landed()[0] == 100
    with psycopg.connect(job_airflow.warehouse) as connection:
        rows = connection.execute("SELECT COUNT(*) FROM replies WHERE _source_file LIKE '%/notes/%'").fetchall()
    assert rows == [(100,)]


def test_a_killed_triggerer_loses_nothing(job_airflow: JobAirflow) -> None:
    """Fifty tasks wait while it is killed; all succeed, each job is done once."""
    ids = [job_airflow.write(f"waits/part={number:02d}", 2) for number in range(WAITS)]
    api, services = job_airflow.api, job_airflow.airflow.services
    run = job_airflow.start("fifty_waits", "waits")
    job_airflow.wait_deferred("fifty_waits", run, WAITS, seconds=300)
    assert job_airflow.scenario.sent() == 2 * WAITS
    services["triggerer"].kill()
    with job_airflow.scenario.worker():
        time.sleep(5)  # replies come while nobody waits
        services["triggerer"] = airflow_env.start_component(job_airflow.airflow.environment, "triggerer")
        api.wait_for_run("fifty_waits", run, deadline_seconds=300)
    assert {ti["state"] for ti in job_airflow.instances("fifty_waits", run)} == {"success"}
    manifests = [api.xcom("fifty_waits", run, "ask", map_index=number) for number in range(WAITS)]
    assert [manifest["completed"] for manifest in manifests] == [2] * WAITS
    calls = Counter(call for call in job_airflow.scenario.calls if "-waits-" in call)
    assert calls == Counter(key for some in ids for key in some)


def test_a_task_that_is_cleared_while_it_waits_goes_on(job_airflow: JobAirflow) -> None:
    """No job is submitted twice, and none is done twice."""
    ids = job_airflow.write("cleared", 5)
    run = job_airflow.start("ask_once", "cleared")
    attempt = job_airflow.wait_deferred("ask_once", run)
    assert job_airflow.scenario.sent() == 5
    job_airflow.api.clear("ask_once", run, ["ask"])
    job_airflow.wait_deferred("ask_once", run, after_try=attempt)
    time.sleep(6)  # what the first attempt's trigger might still do when it is killed
    assert job_airflow.scenario.sent() == 5
    with job_airflow.scenario.worker():
        job_airflow.api.wait_for_run("ask_once", run, deadline_seconds=120)
    assert Counter(call for call in job_airflow.scenario.calls if "-cleared-" in call) == Counter(ids)
    assert len(job_airflow.answers("cleared")) == 5


def test_a_task_that_is_marked_cancels_its_jobs_and_can_be_cleared(job_airflow: JobAirflow) -> None:
    """Nobody waits for them, so nobody does them; cleared later, they are submitted again."""
    ids = job_airflow.write("marked", 3)
    api = job_airflow.api
    run = job_airflow.start("ask_once", "marked")
    job_airflow.wait_deferred("ask_once", run)
    time.sleep(5)  # a trigger that has not begun is not told
    api.patch(f"/dags/ask_once/dagRuns/{run}/taskInstances/ask", {"new_state": "failed"})
    deadline = time.monotonic() + 60
    sql = "SELECT COUNT(*) FROM ai_jobs WHERE state = 'cancelled'"
    while job_airflow.scenario.query(sql) != [(3,)]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    with job_airflow.scenario.worker():
        api.clear("ask_once", run, ["ask"], only_failed=False)
        api.wait_for_run("ask_once", run, deadline_seconds=120)
    assert Counter(call for call in job_airflow.scenario.calls if "-marked-" in call) == Counter(ids)


def test_a_dead_job_fails_its_task_soon_and_says_why(job_airflow: JobAirflow) -> None:
    """Not at the deadline, and without burning retries."""
    job_airflow.write("rejected", 1, text="REJECT")
    with job_airflow.scenario.worker():
        began = time.monotonic()
        run = job_airflow.start("ask_once", "rejected")
        job_airflow.api.wait_for_run("ask_once", run, deadline_seconds=120, state="failed")
    assert time.monotonic() - began < 90
    [instance] = job_airflow.instances("ask_once", run)
    assert instance["try_number"] == 1
    log = job_airflow.api.task_log(instance)
    assert "1 of 1 jobs ended without a result" in log
    assert "not_a_note: 1" in log


def test_waiting_in_the_worker_slot_lands_the_same(job_airflow: JobAirflow) -> None:
    """With payloads that go through the claim check."""
    job_airflow.write("here", 3, bulk=5000)
    with job_airflow.scenario.worker():
        run = job_airflow.start("ask_here", "here")
        job_airflow.api.wait_for_run("ask_here", run, deadline_seconds=120)
    assert [word for _, word in job_airflow.answers("here")] == ["word"] * 3
    assert list((job_airflow.scenario.folder / "claims" / "payload").glob("*"))


def test_replies_come_by_webhook(job_airflow: JobAirflow) -> None:
    """No dispatcher runs: the API server takes the signed deliveries, and refuses all else without saying why."""
    ids = job_airflow.write("webhook", 4)
    hook, url = job_airflow.deployments["hook_jobs"], job_airflow.airflow.environment.url
    with hook.worker(
        webhook={"url": url, "secret_env": "WEBHOOK_SECRET"},
    ):
        run = job_airflow.start("ask_by_webhook", "webhook")
        job_airflow.api.wait_for_run("ask_by_webhook", run, deadline_seconds=120)
    assert Counter(hook.calls) == Counter(ids)
    assert len(job_airflow.answers("webhook")) == 4
    rows = hook.query("SELECT inbox_via, job_id FROM ai_jobs")
    assert [via for via, _ in rows] == ["webhook"] * 4
    refused = httpx.post(f"{url}/ai/webhooks/jobs/{rows[0][1]}", content=b"{}")
    assert (refused.status_code, refused.content) == (401, b"")
    assert hook.query("SELECT reason FROM ai_unknown_replies") == [("unsigned",)]


def test_no_note_is_in_airflow(job_airflow: JobAirflow) -> None:
    """Neither in the metadata database, while a task waits, nor in any log of these tests, the workers' included."""
    job_airflow.write("canary", 2)
    run = job_airflow.start("ask_once", "canary")
    job_airflow.wait_deferred("ask_once", run)
    found = dict(texts_with(CANARY, job_airflow.metadata))
    assert len(found) > 20
    assert {table: rows for table, rows in found.items() if rows} == {}
    with job_airflow.scenario.worker():
        job_airflow.api.wait_for_run("ask_once", run, deadline_seconds=120)
    assert {table: rows for table, rows in texts_with(CANARY, job_airflow.metadata) if rows} == {}
    homes = [job_airflow.airflow.environment.home, *(each.folder for each in job_airflow.deployments.values())]
    logs = [path for home in homes for path in home.rglob("*.log") if path.is_file()]
    assert len(logs) > 15
    assert [str(path) for path in logs if CANARY in path.read_text(errors="replace")] == []
    assert CANARY in (job_airflow.lake / "canary" / "notes.jsonl").read_text()  # it is really there to be found
