"""Asynchronous calls in a real Airflow that lost its scheduler, or jobs to faults of their own: it goes on."""

from __future__ import annotations

from collections import Counter

from tests.end_to_end.job_airflow import JobAirflow
from tests.support import airflow_env
from tests.support.processes import wait_until


def test_a_killed_scheduler_loses_nothing(job_airflow: JobAirflow) -> None:
    """Replies come and triggers fire while there is none; the next one takes the tasks up, and no job is done twice."""
    names = [f"unscheduled-{number}" for number in range(3)]
    ids = [key for name in names for key in job_airflow.write(name, 3)]
    api, services = job_airflow.api, job_airflow.airflow.services
    runs = [job_airflow.start("ask_once", name) for name in names]
    for run in runs:
        job_airflow.wait_deferred("ask_once", run)
    assert job_airflow.scenario.sent() == len(ids)
    services["scheduler"].kill()
    with job_airflow.scenario.worker():
        wait_until(
            lambda: all(ti["state"] == "scheduled" for run in runs for ti in job_airflow.instances("ask_once", run)),
            deadline_seconds=90,
            what="all triggers have fired",
        )
        services["scheduler"] = airflow_env.start_component(job_airflow.airflow.environment, "scheduler")
        for run in runs:
            api.wait_for_run("ask_once", run, deadline_seconds=120)
    assert [ti["try_number"] for run in runs for ti in job_airflow.instances("ask_once", run)] == [1] * len(runs)
    assert Counter(call for call in job_airflow.scenario.calls if "-unscheduled-" in call) == Counter(ids)
    assert [len(job_airflow.answers(name)) for name in names] == [3] * len(names)


def test_a_dead_job_is_redriven(job_airflow: JobAirflow) -> None:
    """Its task fails and says why. The cause gone, the DAG that ships submits it anew, and a cleared task lands all."""
    good = job_airflow.write("redriven/part=0", 2)
    [bad] = job_airflow.write("redriven/part=1", 1, text="REJECT")
    api, jobs = job_airflow.api, job_airflow.deployments["ai_jobs"]
    with jobs.worker():
        run = job_airflow.start("ask_anew", "redriven")
        api.wait_for_run("ask_anew", run, deadline_seconds=120, state="failed")
    [instance] = job_airflow.instances("ask_anew", run)
    log = api.task_log(instance)
    assert "1 of 3 jobs ended without a result" in log
    assert "Reasons: not_a_note: 1" in log
    assert "redrive them (DAG dead_letter_redrive), then clear this task" in log

    redrive = api.trigger("dead_letter_redrive", conf={"reason": "not_a_note"})
    api.wait_for_run("dead_letter_redrive", redrive, deadline_seconds=120)
    done = api.xcom("dead_letter_redrive", redrive, "redrive")
    assert done == {"letters": 1, "jobs": 1, "sent": 1, "skipped": 0}
    with jobs.worker("mended"):
        api.clear("ask_anew", run, ["ask"])
        api.wait_for_run("ask_anew", run, deadline_seconds=120)

    assert Counter(call for call in jobs.calls if "-redriven-" in call) == Counter({**dict.fromkeys(good, 1), bad: 2})
    assert len(job_airflow.answers("redriven")) == 3
    linked = jobs.query(
        "SELECT old.state, old.reason, old.superseded, new.generation, new.state, new.attempts"
        " FROM ai_jobs new JOIN ai_jobs old ON old.job_id = new.predecessor"
    )
    assert linked == [("failed", "not_a_note", True, 1, "succeeded", 1)]
    assert jobs.query("SELECT COUNT(*) FROM ai_dead_letters") == [(0,)]
    assert "failed" not in {told["state"] for told in api.dag_runs("replies_arrived")}, "it was told in between"
