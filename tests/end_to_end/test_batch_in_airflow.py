"""What happens when …: every row of the guide's table, on a real scheduler, counted at the model server.

The log of a task is what we say; the counters of the server are what happened. Each test has a data set of its own.
"""

from __future__ import annotations

import json
import os
import signal
from datetime import date
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from sqlalchemy.engine import make_url

from benchmarks.stub import StubServer, label_of
from tests.end_to_end.conftest import CANARY, BatchAirflow, Run, visits
from tests.support.ministack import MiniStack
from tests.support.mlserver import MODEL, ModelServer
from tests.support.processes import wait_until

IN_FLIGHT = 16  # concurrency of the scenarios, shared by the partitions that run side by side


@pytest.fixture(autouse=True)
def calm(batch_airflow: BatchAirflow) -> None:
    """No faults, short latency."""
    batch_airflow.stub.set_faults(latency_ms=20)


def running(run: Run, task: str = "infer") -> dict[str, Any]:
    """An instance of the task whose process is alive."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [ti for ti in run.instances(task) if ti["state"] == "running" and ti["pid"]]
        return bool(found)

    wait_until(look, deadline_seconds=60, what=f"a running {task} task", poll_seconds=0.2)
    return found[0]


def check_published(batch: BatchAirflow, name: str, ids: list[str]) -> None:
    """One row per record, with the answer that belongs to it."""
    assert sorted(batch.published(name)) == sorted(label_of(key) for key in ids)


def test_a_first_run_then_every_kind_of_clear(batch_airflow: BatchAirflow) -> None:
    """Each record is called once, however often whatever is cleared; the rows stay what they are."""
    batch = batch_airflow
    ids = batch.write("clears", 50)
    run = batch.run("clears")
    assert batch.calls(ids) == [1] * 50
    check_published(batch, "clears", ids)

    labels = [ti["rendered_map_index"] for ti in run.instances("infer")]
    assert labels == [f"part-0.parquet rows {rows}" for rows in ("0–19 (20)", "20–39 (20)", "40–49 (10)")]
    progress = run.progress("infer", map_index=0)
    assert {"phase": "infer", "done": 20, "quarantined": 0, "total": 20}.items() <= progress.items()
    report = run.xcom("reconcile")
    assert (report["records"], report["succeeded"], report["quarantined"], report["published"]) == (50, 50, 0, 50)

    plan = run.xcom("plan", key="plan")
    run.clear(("infer", 1))
    run.clear("plan")
    assert run.xcom("plan", key="plan") == plan
    run.clear("publish")
    run.clear()
    assert [ti["try_number"] for ti in run.instances("infer")] == [2, 3, 2]
    assert batch.calls(ids) == [1] * 50
    check_published(batch, "clears", ids)


def test_kill_9_then_the_retry_resumes(batch_airflow: BatchAirflow) -> None:
    """Airflow retries by itself; at most the calls in flight are made twice, and nothing is missing or doubled."""
    batch = batch_airflow
    ids = batch.write("killed", 120)
    before = batch.stub.progress()["answered"]
    batch.stub.set_faults(latency_ms=300)
    run = batch.start("killed", dag_id="one_partition")
    instance = running(run)
    answered = 40
    batch.stub.wait_for_records(before + answered, timeout_seconds=60)
    os.kill(instance["pid"], signal.SIGKILL)
    batch.stub.set_faults(latency_ms=20)
    run.wait()
    assert [ti["try_number"] for ti in run.instances("infer")] == [2]
    calls = batch.calls(ids)
    assert min(calls) == 1
    assert sum(calls) - 120 <= IN_FLIGHT
    # An answer the server has sent may not have reached the process before it died.
    assert run.xcom("infer", map_index=0)["reused"] >= answered - IN_FLIGHT
    check_published(batch, "killed", ids)


@pytest.mark.parametrize("how", ["marked failed", "cleared", "worker shut down"])
def test_a_running_task_that_is_stopped_flushes(how: str, batch_airflow: BatchAirflow) -> None:
    """The calls in flight are waited for and kept before the process ends: none of them is ever made again."""
    batch = batch_airflow
    name = how.replace(" ", "_")
    ids = batch.write(name, 160)
    before = batch.stub.progress()["answered"]
    batch.stub.set_faults(latency_ms=1000)
    run = batch.start(name, dag_id="one_partition")
    instance = running(run)
    batch.stub.wait_for_records(before + IN_FLIGHT, timeout_seconds=60)
    if how == "worker shut down":
        psutil.Process(instance["pid"]).parent().send_signal(signal.SIGTERM)
    elif how == "cleared":
        run.clear(("infer", 0), wait=False)
    else:
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/score.infer/0"
        batch.api.patch(path, {"new_state": "failed"})
    wait_until(lambda: not psutil.pid_exists(instance["pid"]), deadline_seconds=30, what="the process has ended")
    batch.stub.set_faults(latency_ms=20)
    if how == "marked failed":
        called = sum(batch.calls(ids))
        assert IN_FLIGHT <= called < 160
        assert batch.calls(ids, "answered") == batch.calls(ids)
        run.wait(state="failed")
        run.clear(("infer", 0), include_downstream=True, wait=False)
    run.wait()
    assert batch.calls(ids) == [1] * 160
    check_published(batch, name, ids)


def test_recompute_and_retry_failed(batch_airflow: BatchAirflow) -> None:
    """The verbs decide which answers count; each is asked for in a run of its own."""
    batch = batch_airflow
    ids = batch.write("verbs", 40)
    poison = ids[7], ids[33]
    batch.stub.set_faults({"do": "status", "status": 422, "ids": poison})
    report = batch.run("verbs").xcom("reconcile")
    assert (report["succeeded"], report["quarantined"], report["published"]) == (38, 2, 38)
    assert batch.calls(ids) == [1] * 40

    batch.stub.set_faults(latency_ms=20)
    batch.run("verbs")  # another run, resume: what was quarantined stays so
    assert batch.calls(ids) == [1] * 40

    run = batch.run("verbs", ai_verb="retry_failed")
    assert batch.calls(ids) == [2 if key in poison else 1 for key in ids]
    assert run.xcom("reconcile")["quarantined"] == 0
    check_published(batch, "verbs", ids)

    run = batch.run("verbs", ai_verb="recompute")
    assert batch.calls(ids) == [3 if key in poison else 2 for key in ids]
    run.clear(("infer", 0))  # a mapped task resumes the pass that its plan opened
    assert batch.calls(ids) == [3 if key in poison else 2 for key in ids]
    run.clear()  # the plan task runs again, and the run still says recompute
    assert batch.calls(ids) == [4 if key in poison else 3 for key in ids]
    check_published(batch, "verbs", ids)


def test_too_many_quarantined_then_retry_failed(batch_airflow: BatchAirflow) -> None:
    """No retry is spent, nothing is published, the message says how many and why; then only the failed are called."""
    batch = batch_airflow
    ids = batch.write("threshold", 40)
    poison = ids[:6]
    batch.stub.set_faults({"do": "status", "status": 422, "ids": poison})
    run = batch.run("threshold", state="failed")
    failed = [ti for task in ("infer", "publish") for ti in run.instances(task) if ti["state"] == "failed"]
    assert failed
    assert {ti["try_number"] for ti in failed} == {1}
    log = "".join(batch.api.task_log(ti) for ti in failed)
    assert "retry_failed" in log
    assert "422" in log
    assert batch.published("threshold") == []

    batch.stub.set_faults(latency_ms=20)
    batch.run("threshold", ai_verb="retry_failed")
    calls = batch.calls(ids)
    assert max(calls) == 2
    assert calls[6:] == [1] * 34
    check_published(batch, "threshold", ids)


def test_the_input_grows_after_the_run(batch_airflow: BatchAirflow) -> None:
    """Clearing a completed run plans what is there now; the table holds the new rows and no old ones."""
    batch = batch_airflow
    ids = batch.write("grows", 20)
    run = batch.run("grows")
    more = batch.write("grows", 10, part=1)
    run.clear()
    assert run.xcom("reconcile")["records"] == 30
    assert batch.calls(ids) == [2] * 20  # another plan is another computation
    assert batch.calls(more) == [1] * 10
    check_published(batch, "grows", ids + more)


def test_the_input_changes_under_an_unfinished_run(batch_airflow: BatchAirflow) -> None:
    """No silent mix of old answers and new rows: the plan task says so at once, and recompute is the way on."""
    batch = batch_airflow
    ids = batch.write("changes", 20)
    batch.stub.set_faults({"do": "status", "status": 422, "ids": ids})
    run = batch.run("changes", state="failed")
    more = batch.write("changes", 10, part=1)
    batch.stub.set_faults(latency_ms=20)
    run.clear(wait=False)
    run.wait(state="failed")
    [plan] = run.instances("plan")
    assert (plan["state"], plan["try_number"]) == ("failed", 2)
    log = batch.api.task_log(plan)
    assert "the input changed" in log
    assert "ai_verb=recompute" in log
    assert batch.calls(more) == [0] * 10

    batch.run("changes", ai_verb="recompute")
    check_published(batch, "changes", ids + more)


def test_a_dead_warehouse_costs_retries_and_no_calls(batch_airflow: BatchAirflow) -> None:
    """Publish is retried until its connection is mended; the model is not asked again."""
    batch = batch_airflow
    ids = batch.write("dead_warehouse", 30)
    url = make_url(batch.warehouse)
    good = {"connection_id": "flaky", "conn_type": "postgres", "host": url.host, "login": url.username}
    good |= {"schema": url.database, "port": url.port}
    batch.api.post("/connections", {**good, "port": batch.late_port})
    run = batch.start("dead_warehouse", sink="flaky")
    wait_until(
        lambda: any(ti["try_number"] > 1 for ti in run.instances("publish")),
        deadline_seconds=60,
        what="publish is retried",
        poll_seconds=0.1,
    )
    batch.api.patch("/connections/flaky", good)
    run.wait()
    assert batch.calls(ids) == [1] * 30
    check_published(batch, "dead_warehouse", ids)


def test_backfill_and_backfill_again(batch_airflow: BatchAirflow) -> None:
    """Reprocessing resumes unless the backfill's own configuration says recompute."""
    batch, first, last = batch_airflow, date(2026, 3, 1), date(2026, 3, 3)
    days = {f"backfilled/dt=2026-03-0{day}": 20 for day in (1, 2, 3)}
    ids = {day: batch.write(day, rows) for day, rows in days.items()}

    def backfill(*options: str) -> set[int]:
        batch.airflow.environment.backfill("backfilled", first, last, *options)
        batch.api.wait_for_backfill("backfilled", runs=3, deadline_seconds=120)
        # Airflow allows one backfill of a DAG at a time, and looks every 30 s whether one is over.
        wait_until(
            lambda: all(
                made["completed_at"] for made in batch.api.pages("/backfills", "backfills", dag_id="backfilled")
            ),
            deadline_seconds=60,
            what="the backfill is complete",
            poll_seconds=0.5,
        )
        for day in days:
            assert sorted(batch.published(day, "backfilled")) == sorted(label_of(key) for key in ids[day])
        return {count for day in days for count in batch.calls(ids[day])}

    assert backfill() == {1}
    assert backfill("--reprocess-behavior", "completed") == {1}
    assert backfill("--reprocess-behavior", "completed", "--dag-run-conf", '{"ai_verb": "recompute"}') == {2}


def test_lake_and_checkpoints_on_s3(batch_airflow: BatchAirflow, ministack_server: MiniStack) -> None:
    """Through the AWS connection; what is cleared finds its answers there."""
    batch, bucket = batch_airflow, ministack_server.make_bucket("lake")
    ids = [f"{CANARY}-s3-{number:04d}" for number in range(50)]
    files = ministack_server.filesystem()
    pq.write_table(visits(ids), f"{bucket}/visits/part-0.parquet", filesystem=files, row_group_size=20)
    run = Run(api=batch.api, dag_id="on_s3", run_id=batch.api.trigger("on_s3", conf={"bucket": bucket}))
    run.wait()
    assert run.xcom("reconcile")["published"] == 50
    run.clear()
    assert batch.calls(ids) == [1] * 50
    assert sorted(label for (label,) in batch.query("SELECT label FROM on_s3")) == sorted(map(label_of, ids))


def test_the_sensor_waits_in_a_real_triggerer(batch_airflow: BatchAirflow) -> None:
    """Deferred while nothing listens, done when the model is there."""
    batch = batch_airflow
    run_id = batch.api.trigger("waiting")

    def state() -> str:
        return str(batch.api.task_instances("waiting", run_id)[0]["state"])

    wait_until(lambda: state() == "deferred", deadline_seconds=60, what="the sensor is deferred", poll_seconds=0.2)
    trigger = batch.api.task_instances("waiting", run_id)[0]["trigger"]
    assert "AIEndpointReadyTrigger" in trigger["classpath"]
    assert CANARY not in str(trigger)
    with StubServer(port=batch.late_port):
        batch.api.wait_for_run("waiting", run_id, deadline_seconds=60)


def test_the_test_button_of_a_connection(batch_airflow: BatchAirflow, model_server: ModelServer) -> None:
    """Ready when the model is, and what is wrong when nothing listens; the key is not in the answer."""

    def pressed(port: int | None) -> dict[str, Any]:
        extra = json.dumps({"protocol": "open-inference", "model": MODEL})
        form = {"connection_id": "pressed", "conn_type": "ai_endpoint", "host": "http://127.0.0.1", "port": port}
        answer = batch_airflow.api.post("/connections/test", {**form, "password": f"key-{CANARY}", "extra": extra})
        assert CANARY not in str(answer)
        return dict(answer)

    assert pressed(make_url(model_server.url).port) == {"status": True, "message": f"model '{MODEL}' is ready."}
    dead = pressed(batch_airflow.late_port)
    assert not dead["status"]
    assert "cannot connect" in dead["message"]
