"""Many processes on one store: ``python -m tests.adapters.store.crowd ORDER`` forks them and starts them together.

Forked from a process that has imported everything, because Python and SQLAlchemy take long to start, but each opens
the store for itself, and all wait at a barrier before every round. The last line of output is a JSON list: what each of
them saw. ``mutant`` breaks the product in one way, to show that the tests would notice.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.jobs import ClaimRefusal
from tests.adapters.store.jobs import done, new_jobs
from tests.adapters.store.mutants import MUTANTS
from tests.support.processes import REPOSITORY, child_environment

TIMEOUT_SECONDS = 20.0
"""Of the store: these processes have two cores, and correctness is what is tested here, not speed."""
_WAIT_SECONDS = 120.0
_fork: Any = multiprocessing.get_context("fork")


def crowd(url: str, task: str, *, seed: int, processes: int, **order: Any) -> list[dict[str, Any]]:
    """Run a task in so many processes; what each of them saw.

    :param order: settings of the task; ``breaker`` and ``slots`` of the gate; ``mutant``
    """
    text = json.dumps({"url": url, "task": task, "seed": seed, "processes": processes, **order})
    done = subprocess.run(
        [sys.executable, "-m", __name__, text],
        cwd=REPOSITORY,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=2 * _WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


class Member:
    """One process of the crowd."""

    def __init__(self, order: dict[str, Any], number: int, barrier: Any, inside: Any) -> None:
        self.order = order
        self.number = number
        self.chance = random.Random(f"{order['seed']}-{number}")
        self.inside = inside
        self._barrier = barrier
        breaker = BreakerSettings(**order.get("breaker", {}))
        self.settings = CallSettings(breaker=breaker, max_concurrent_calls=order.get("slots", 64))
        self.store = open_store(order["url"], timeout_seconds=TIMEOUT_SECONDS)
        self.gate = self.store.gate(self.settings)
        self.jobs = self.store.jobs()
        self.name = f"worker-{number}"

    def together(self) -> None:
        """Go on when all are here."""
        self._barrier.wait(_WAIT_SECONDS)

    def dawdle(self, seconds: float) -> None:
        """A random while."""
        time.sleep(self.chance.uniform(0.0, seconds))


def ask(member: Member) -> dict[str, Any]:
    """One call per endpoint in ``endpoints``, all at the same time; who is let through keeps its lease."""
    member.store.revision()
    seen: dict[str, Any] = {"probes": [], "admitted": [], "ms": []}
    for endpoint in member.order["endpoints"]:
        member.together()
        started = time.perf_counter()
        admission = member.gate.admit(endpoint)
        seen["ms"].append((time.perf_counter() - started) * 1000)
        seen["probes"] += [endpoint] if admission.probe else []
        seen["admitted"] += [endpoint] if admission.refused is None else []
    return seen


def count(member: Member) -> dict[str, Any]:
    """``calls`` calls that end one way or the other."""
    member.together()
    ends = [member.chance.choice((Evidence.ALIVE, Evidence.FAILING)) for _ in range(member.order["calls"])]
    for evidence in ends:
        admission = member.gate.admit("e")
        assert admission.refused is None
        member.gate.settle(admission, evidence)
    return {evidence.value: ends.count(evidence) for evidence in (Evidence.ALIVE, Evidence.FAILING)}


def crowd_in(member: Member) -> dict[str, Any]:
    """``calls`` calls, each of which counts how many are inside with it."""
    member.together()
    peak = admitted = 0
    for _ in range(member.order["calls"]):
        admission = member.gate.admit("e")
        if admission.refused is None:
            admitted += 1
            with member.inside.get_lock():
                member.inside.value += 1
                peak = max(peak, member.inside.value)
            member.dawdle(0.004)
            with member.inside.get_lock():
                member.inside.value -= 1
            member.gate.settle(admission, Evidence.NONE)
        member.dawdle(0.004)
    return {"peak": peak, "admitted": admitted}


def fail_together(member: Member) -> dict[str, Any]:
    """A call per endpoint in ``endpoints``; all fail at the same moment."""
    states = []
    for endpoint in member.order["endpoints"]:
        admission = member.gate.admit(endpoint)
        member.together()
        states.append(member.gate.settle(admission, Evidence.FAILING).value)
    return {"states": states}


def open_new(member: Member) -> dict[str, Any]:
    """Find an empty database, all at once."""
    member.together()
    admission = member.gate.admit("e")
    return {"admitted": admission.refused is None, "alembic": "alembic" in sys.modules}


def claim_all(member: Member) -> dict[str, Any]:
    """Claim all of ``jobs`` jobs, each member in an order of its own; the positions of those that were granted."""
    wanted = new_jobs(member.order["jobs"])
    member.chance.shuffle(wanted)
    member.together()
    granted = []
    for job in wanted:
        claim = member.jobs.claim(
            job.job_id, sha256=job.payload.sha256, owner=member.name, lease_seconds=600, max_attempts=1_000
        )
        granted += [job.position] if claim.refusal is None else []
    return {"granted": granted}


def work(member: Member) -> dict[str, Any]:
    """Do ``jobs`` jobs together, and dawdle beyond the lease now and then; the results that were taken as recorded."""
    wanted = new_jobs(member.order["jobs"])
    member.chance.shuffle(wanted)
    member.together()
    recorded, late = [], 0
    while wanted:
        job = wanted.pop(0)
        claim = member.jobs.claim(
            job.job_id, sha256=job.payload.sha256, owner=member.name, lease_seconds=0.05, max_attempts=1_000
        )
        if claim.refusal is ClaimRefusal.HELD:
            wanted.append(job)
            continue
        if claim.refusal is None:
            member.dawdle(0.15 if member.chance.random() < 0.2 else 0.002)
            mine = done(f"{member.name}/{claim.fence}".encode())
            outcome = member.jobs.complete(job.job_id, owner=member.name, fence=claim.fence, outcome=mine)
            if outcome == mine:
                recorded.append([job.position, f"{member.name}/{claim.fence}"])
            else:
                late += 1
                wanted.append(job)
    return {"recorded": recorded, "late": late}


def submit_all(member: Member) -> dict[str, Any]:
    """Submit the same jobs as everyone, in an order of its own; then tell their outcome, likewise."""
    wanted = new_jobs(member.order["jobs"])
    member.chance.shuffle(wanted)
    member.together()
    found = member.jobs.submit(wanted)
    member.together()
    member.jobs.sent([job.job_id for job in wanted])
    known = [member.jobs.receive_many({job.job_id: done()}, via=member.name) for job in wanted[:50]]
    some = {job.job_id: done(member.name.encode()) for job in wanted}
    known.append(member.jobs.receive_many(some, via=member.name))
    return {"found": [job.position for job in found] == [job.position for job in wanted], "known": len(known[-1])}


TASKS: dict[str, Callable[[Member], dict[str, Any]]] = {
    task.__name__: task for task in (ask, count, crowd_in, fail_together, open_new, claim_all, work, submit_all)
}


def _live(order: dict[str, Any], number: int, barrier: Any, inside: Any, results: Any) -> None:
    try:
        results.put(TASKS[order["task"]](Member(order, number, barrier, inside)))
    except BaseException:
        barrier.abort()
        raise


def main() -> None:
    """Fork the crowd, print what it saw, and fail with any of it."""
    order = json.loads(sys.argv[1])
    if order.get("mutant"):
        MUTANTS[order["mutant"]]()
    barrier, inside, results = _fork.Barrier(order["processes"]), _fork.Value("i", 0), _fork.SimpleQueue()
    members = [
        _fork.Process(target=_live, args=(order, number, barrier, inside, results), daemon=True)
        for number in range(order["processes"])
    ]
    for member in members:
        member.start()
    for member in members:
        member.join(_WAIT_SECONDS)
    failed = [member.exitcode for member in members if member.exitcode != 0]
    if failed:
        sys.stderr.write(f"{len(failed)} of the crowd failed: {failed}\n")
        os._exit(1)
    print(json.dumps([results.get() for _ in members]), flush=True)


if __name__ == "__main__":
    main()
