"""A while in which nothing is let be, and what must hold after it.

Real processes all the way: three workers, two dispatchers, two submissions, each submitted by one process and waited
for by two others, a triggerer and a `jobs wait`, with a dispatcher in each. One of them is killed or frozen every
second, and queue and store are down for ten seconds; what stands between them and their queue loses, doubles, delays
and reorders (:mod:`.relay`, :mod:`.kafka_relay`).
"""

from __future__ import annotations

import operator
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from tests.faults.jobs.support.invariants import again, lapses, problems
from tests.faults.jobs.support.pack import Pack
from tests.faults.jobs.support.poisons import Poisons, check_poison
from tests.faults.support.restartable import RestartablePostgres
from tests.support.processes import Service

KEYS = {"first": range(150), "second": range(150, 300)}
MODEL_MS = 500.0
CHAOS_SECONDS, LONGEST_SECONDS = 20.0, 60.0
HIT = 15
STRIKE_EVERY_SECONDS = 1.0
OUTAGE_SECONDS = 10.0
QUEUE_DOWN_AT, STORE_DOWN_AT = 2.0, 9.0
CALM_SECONDS = 240.0
Step = tuple[float, Callable[[], object]]


# --- outages


@contextmanager
def database(postgres: RestartablePostgres) -> Iterator[str]:
    name = postgres.server.create_database()
    yield postgres.server.url(name)
    postgres.server.drop_database(name)


def refused(jobs: Pack) -> list[Step]:
    """A queue to which no connection leads."""

    def switch(down: bool) -> None:
        jobs.relay.down = down

    return [(QUEUE_DOWN_AT, lambda: switch(True)), (QUEUE_DOWN_AT + OUTAGE_SECONDS, lambda: switch(False))]


def hanging(service: Service) -> list[Step]:
    """A queue that takes connections and says nothing."""
    members: list[psutil.Process] = []

    def stop() -> None:
        members.extend(service.members())
        for member in members:
            member.suspend()

    def resume() -> None:
        for member in members:
            member.resume()

    return [(QUEUE_DOWN_AT, stop), (QUEUE_DOWN_AT + OUTAGE_SECONDS, resume)]


@contextmanager
def locking(store: Path) -> Iterator[list[Step]]:
    """SQLite: a writer that does not let go is what "down" means for it."""
    with closing(sqlite3.connect(store, timeout=30.0, isolation_level=None)) as writer:
        yield outage(lambda: writer.execute("BEGIN IMMEDIATE"), lambda: writer.execute("ROLLBACK"))


def outage(begin: Callable[[], object], end: Callable[[], object]) -> list[Step]:
    """The store is down meanwhile."""
    return [(STORE_DOWN_AT, begin), (STORE_DOWN_AT + OUTAGE_SECONDS, end)]


# --- a run


def rage(jobs: Pack, draw: random.Random, steps: Sequence[Step], *, hits: int = HIT) -> Poisons:
    """Start everything, and for a while let nothing be. What is left of the poison.

    :param hits: how many jobs must have been in flight at their worker's end, if there is time for it
    """
    poisons = Poisons()
    for number in range(3):
        jobs.worker(f"worker-{number}")
    for number in range(2):
        jobs.dispatcher(f"dispatcher-{number}")
    for key, ids in KEYS.items():
        jobs.submit(key, ids)
    jobs.relay.unleash()
    began = time.monotonic()
    left, strike_at = sorted(steps, key=lambda step: step[0]), STRIKE_EVERY_SECONDS
    try:
        while (
            (now := time.monotonic() - began) < CHAOS_SECONDS
            or left
            or (now < LONGEST_SECONDS and not enough(jobs, hits))
        ):
            while left and left[0][0] <= now:
                left.pop(0)[1]()
            jobs.tend()
            begin_waiting(jobs)
            if not QUEUE_DOWN_AT <= now < QUEUE_DOWN_AT + OUTAGE_SECONDS:
                poisons.give(jobs)
            if now >= strike_at:
                jobs.strike_one(draw)
                strike_at += STRIKE_EVERY_SECONDS
            time.sleep(0.05)
    finally:
        for _, step in left:  # nothing stays down for the tests that follow
            step()
    return poisons


def enough(jobs: Pack, hits: int) -> bool:
    """Whether blows have hit work, or can hit none any more. On a busy machine that takes longer."""
    return sum(strike.held or 0 for strike in jobs.strikes) >= hits or over(jobs)


def over(jobs: Pack) -> bool:
    """Whether everybody who waits has what it waited for."""
    waiters = [f"{kind}-{key}" for key in KEYS for kind in ("triggerer", "wait")]
    return jobs.processes.keys() >= set(waiters) and jobs.done(*waiters)


def begin_waiting(jobs: Pack) -> None:
    for key in KEYS:
        if jobs.done(f"submit-{key}") and f"wait-{key}" not in jobs.processes:
            jobs.triggerer(key)
            jobs.wait(key)


def check(jobs: Pack, draw: random.Random, poisons: Poisons, *, crashes: int = 0) -> None:
    """In calm, every job ends, and the invariants hold; they also do when messages come that nobody needs any more."""
    jobs.fleet.opened.close()  # connections of ours from before the store went down

    def all_waited() -> bool:
        begin_waiting(jobs)
        return over(jobs)

    began = time.monotonic()
    try:
        jobs.tend_until(all_waited, deadline_seconds=CALM_SECONDS, what="every job ended and every reply is there")
    finally:
        report(jobs, time.monotonic() - began)
    jobs.relay.calm()
    poisons.give(jobs)
    found = problems(jobs, outages=2, crashes=crashes)
    assert not found, "\n".join(found)
    assert [jobs.verdict(key)["completed"] for key in KEYS] == [len(ids) for ids in KEYS.values()]
    assert any(strike.held for strike in jobs.strikes), "nobody had a job when it was struck"
    assert jobs.auditor.published, "the auditor heard no result"
    once_more(jobs, draw)
    check_poison(jobs)
    found = problems(jobs, outages=2, crashes=crashes)
    assert not found, "\n".join(found)


def report(jobs: Pack, calm_seconds: float) -> None:
    kills = [strike for strike in jobs.strikes if strike.signal == "SIGKILL"]
    held = sum(strike.held or 0 for strike in jobs.strikes)
    calls = sum(jobs.stub.counts("called").values())
    print(f"{len(kills)} kills, {len(jobs.strikes) - len(kills)} pauses, {held} jobs in flight then; {calls} calls")
    print(f"{len(again(jobs))} claims again, {lapses(jobs)} leases lost by others; calm after {calm_seconds:.1f} s")
    auditor = jobs.auditor
    print(f"looked at {auditor.looked} sends and deletes, not at {auditor.skipped}; {dict(jobs.relay.done)}")


def once_more(jobs: Pack, draw: random.Random) -> None:
    """Requests that come again, long after: told again, and not called again."""
    before = jobs.stub.counts("called")
    jobs.fleet.send(draw.sample([job for key in KEYS for job in jobs.jobs(key)], 60))
    transport = jobs.fleet.transport
    depth = operator.methodcaller("depth")
    queues = (transport.requests, transport.results, transport.dead_letters)
    try:
        jobs.tend_until(
            lambda: not any(queue.depth() for queue in queues), deadline_seconds=60, what="queues are empty"
        )
    finally:
        print({queue.name: depth(queue) for queue in queues})
    assert jobs.stub.counts("called") == before
