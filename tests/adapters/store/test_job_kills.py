"""Processes of the job store that are killed or frozen anywhere: whatever is left, the next one finishes the job."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.database import Session
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.adapters.store.tables import JOBS
from airflow_provider_ai.core.job_ports import JobStore
from airflow_provider_ai.core.jobs import JobCounts
from tests.adapters.store.conftest import OpenStore
from tests.adapters.store.jobs import SUBMISSION, claim, done, new_job, new_jobs
from tests.support.processes import wait_until

TIMEOUT_SECONDS = 20.0
LEASE_SECONDS = 0.3
STEPS = 40
JOBS_TO_DO, KILLS = 100, 12
_fork: Any = multiprocessing.get_context("fork")


def finish(jobs: JobStore) -> None:
    """All that happens to a job, as far as it has not happened yet."""
    job = new_job()
    jobs.submit([job])
    jobs.sent([job.job_id])
    while (granted := claim(jobs, job, f"worker-{os.getpid()}", lease=LEASE_SECONDS, attempts=10**6)).refusal:
        if granted.job is not None and granted.job.outcome is not None:
            break
        time.sleep(0.02)
    else:
        jobs.heartbeat({job.job_id: granted.fence}, owner=f"worker-{os.getpid()}", lease_seconds=LEASE_SECONDS)
        result = done(str(granted.fence).encode())
        jobs.complete(job.job_id, owner=f"worker-{os.getpid()}", fence=granted.fence, outcome=result)
    found = jobs.job(job.job_id)
    assert found is not None
    assert found.outcome is not None
    jobs.receive(job.job_id, found.outcome, via="queue")


def in_child(work: Callable[[], None]) -> Any:
    child = _fork.Process(target=work, daemon=True)
    child.start()
    return child


def die_at(url: str, step: int, before: bool) -> None:
    """Go through a job's life, and be killed before or after a certain statement, in a transaction or not."""
    steps = 0
    real = Session.attempt

    def attempt(self: Session, work: Any) -> Any:
        nonlocal steps
        steps += 1
        if before and steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
        value = real(self, work)
        if not before and steps == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    store = open_store(url, timeout_seconds=TIMEOUT_SECONDS)
    store.prepare()
    for kind in (Session, *Session.__subclasses__()):
        if "attempt" in vars(kind):
            kind.attempt = attempt if kind is Session else _counted(kind.attempt, attempt)  # type: ignore[method-assign]
    finish(store.jobs())


def _counted(waiting: Any, counted: Any) -> Any:
    """SQLite's own attempt, around the counted one."""

    def attempt(self: Session, work: Any) -> Any:
        return waiting(self, lambda connection: counted(Session(connection), work))

    return attempt


@pytest.mark.parametrize("before", [True, False])
def test_a_job_survives_a_kill_between_any_two_statements(opened: OpenStore, url: str, before: bool) -> None:
    """And within each transaction: one outcome, one arrival, and at most one attempt more."""
    store = opened(timeout_seconds=TIMEOUT_SECONDS)
    store.upgrade()
    jobs = store.jobs()
    for step in range(1, STEPS):
        child = in_child(lambda step=step: die_at(url, step, before))  # type: ignore[misc]
        child.join(60)
        finish(jobs)
        found = jobs.job(new_job().job_id)
        assert found is not None
        assert found.attempts <= 2
        (arrival,) = jobs.arrivals(SUBMISSION)
        assert (arrival.job_id, arrival.outcome, arrival.position) == (found.job_id, found.outcome, 0)
        assert jobs.prune(older_than_seconds=-60, most=10).jobs == 1
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert 8 < step < STEPS - 1


def freeze_and_complete(url: str, answers: Any) -> None:
    """Claim a job, freeze, and say how it ended once awake again."""
    jobs = open_store(url, timeout_seconds=TIMEOUT_SECONDS).jobs()
    granted = claim(jobs, new_job(), "zombie", lease=LEASE_SECONDS)
    os.kill(os.getpid(), signal.SIGSTOP)
    held = jobs.heartbeat({new_job().job_id: granted.fence}, owner="zombie", lease_seconds=600)
    ended = jobs.complete(new_job().job_id, owner="zombie", fence=granted.fence, outcome=done(b"zombie"))
    back = jobs.give_back(new_job().job_id, owner="zombie", fence=granted.fence, count_attempt=True)
    answers.put((sorted(held), ended, back))


def stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize("heir_done", [False, True])
def test_a_frozen_worker_wakes_up_too_late(opened: OpenStore, url: str, heir_done: bool) -> None:
    """SIGSTOP past its lease: while its heir works, and after the heir has finished, it changes nothing."""
    jobs = opened(timeout_seconds=TIMEOUT_SECONDS).jobs()
    jobs.submit([new_job()])
    answers = _fork.SimpleQueue()
    zombie = in_child(lambda: freeze_and_complete(url, answers))
    wait_until(lambda: stopped(zombie.pid), deadline_seconds=60, what="it has claimed the job and is frozen")
    heir: list[int] = []

    def taken_over() -> bool:
        granted = claim(jobs, new_job(), "heir", lease=600)
        heir.extend([granted.fence] if granted.refusal is None else [])
        return bool(heir)

    wait_until(taken_over, deadline_seconds=30, what="the lease is over")
    if heir_done:
        jobs.complete(new_job().job_id, owner="heir", fence=heir[0], outcome=done(b"heir"))
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.join(60)
    assert zombie.exitcode == 0
    assert answers.get() == ([], done(b"heir") if heir_done else None, False)
    assert jobs.complete(new_job().job_id, owner="heir", fence=heir[0], outcome=done(b"heir")) == done(b"heir")


def work_until_killed(url: str, seed: str, log: str) -> None:
    """Do the jobs in some order, and note each claim, and each result that was taken as recorded."""
    jobs = open_store(url, timeout_seconds=TIMEOUT_SECONDS).jobs()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    owner = f"worker-{os.getpid()}"
    wanted = new_jobs(JOBS_TO_DO)
    random.Random(seed).shuffle(wanted)
    while wanted:
        job = wanted.pop(0)
        granted = claim(jobs, job, owner, lease=LEASE_SECONDS, attempts=10**6)
        if granted.refusal is None:
            os.write(file, f"claimed {job.position}\n".encode())
            time.sleep(0.01)
            mine = done(f"{owner}/{granted.fence}".encode())
            if jobs.complete(job.job_id, owner=owner, fence=granted.fence, outcome=mine) == mine:
                os.write(file, f"recorded {job.position}\n".encode())
        found = jobs.job(job.job_id)
        assert found is not None
        if found.outcome is None:
            wanted.append(job)
        else:
            jobs.receive(job.job_id, found.outcome, via=owner)


def test_workers_that_are_killed_all_the_time(opened: OpenStore, url: str, seed: int, tmp_path: Path) -> None:
    """None of the jobs is lost, none ends twice, and each kill costs one attempt at most."""
    chance, log = random.Random(seed), str(tmp_path / "log")
    jobs = opened(timeout_seconds=TIMEOUT_SECONDS).jobs()
    jobs.submit(new_jobs(JOBS_TO_DO))
    number = itertools.count()

    def start() -> Any:
        order = f"{seed}-{next(number)}"
        return in_child(lambda: work_until_killed(url, order, log))

    workers = [start() for _ in range(3)]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 0.25))
        victim = chance.randrange(len(workers))
        workers[victim].kill()
        workers[victim].join(10)
        workers[victim] = start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    notes = [line.split() for line in Path(log).read_text().splitlines()]
    recorded = [position for what, position in notes if what == "recorded"]
    claims = [position for what, position in notes if what == "claimed"]
    assert jobs.counts([SUBMISSION])[SUBMISSION] == JobCounts(jobs=JOBS_TO_DO, completed=JOBS_TO_DO)
    assert len(recorded) == len(set(recorded))
    assert len(recorded) >= JOBS_TO_DO - KILLS
    attempts = sum(job.attempts for job in jobs.jobs(SUBMISSION))
    assert 0 <= attempts - len(claims) <= KILLS


def test_a_transaction_that_fails_leaves_its_connection_usable(opened: OpenStore) -> None:
    """Neither the next transaction nor another process finds a lock."""
    store, other = opened(), opened()
    store.jobs().submit(new_jobs(3))
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            delete_and_raise(store, error)
    for each in (store, other):
        each.jobs().receive(new_job().job_id, done(), via="queue")
        assert each.jobs().counts([SUBMISSION])[SUBMISSION].jobs == 3


def delete_and_raise(store: Store, error: type[BaseException]) -> None:
    with store.transaction() as session:
        session.run(sa.delete(JOBS), {})
        raise error
