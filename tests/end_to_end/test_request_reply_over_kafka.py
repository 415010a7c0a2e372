"""The asynchronous pattern in a real Airflow whose jobs go over Kafka; the dispatcher is the one in the triggerer."""

from __future__ import annotations

from collections import Counter

from tests.end_to_end.job_airflow import JobAirflow
from tests.support.processes import wait_until

JOBS, SLOTS = 12, 8
SOON = {"visibility_timeout_seconds": 4, "concurrency": SLOTS}


def test_a_killed_worker_s_jobs_are_done_by_another(job_airflow: JobAirflow) -> None:
    """All jobs are answered; only those that it had begun are called again."""
    ids = job_airflow.write("kafka", JOBS)
    jobs = job_airflow.deployments["kafka_jobs"]
    with jobs.worker("hanging", worker=SOON) as victim:
        run = job_airflow.start("ask_over_kafka", "kafka")
        wait_until(lambda: len(jobs.calls) >= SLOTS, deadline_seconds=120, what="all slots of the first worker taken")
        job_airflow.wait_deferred("ask_over_kafka", run)
        victim.kill()
    begun = Counter(jobs.calls)
    assert set(begun.values()) == {1}
    assert len(begun) == SLOTS
    with jobs.worker(worker=SOON):
        job_airflow.api.wait_for_run("ask_over_kafka", run, deadline_seconds=150)
    assert Counter(jobs.calls) == begun + Counter(ids)
    assert len(job_airflow.answers("kafka")) == JOBS
    assert jobs.query("SELECT state, inbox_via, COUNT(*) FROM ai_jobs GROUP BY 1, 2") == [("succeeded", "queue", JOBS)]
