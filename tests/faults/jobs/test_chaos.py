"""Three hundred jobs while somebody is killed or frozen every second, and queue and store are down for ten seconds.

Real processes all the way: three workers, two dispatchers, two submissions, each submitted by one process and waited
for by two others, a triggerer and a `jobs wait`, with a dispatcher in each. Their SQS loses, doubles, delays and
reorders (:mod:`.support.relay`).
``AI_FAULT_ROUNDS`` repeats each run so many times: `make chaos`.
"""

from __future__ import annotations

import operator
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import orjson
import psutil
import pytest

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.core.job_claims import begun
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.jobs import Job, JobState, NewJob, Outcome
from airflow_provider_ai.core.messages import ResultMessage, encode_result
from airflow_provider_ai.exceptions import QueueUnavailableError, StoreUnavailableError
from tests.faults.jobs.support.invariants import again, lapses, problems
from tests.faults.jobs.support.pack import Pack, pack
from tests.faults.support.restartable import RestartablePostgres, restartable_postgres
from tests.support.ministack import MiniStack
from tests.support.processes import wait_until

KEYS = {"first": range(150), "second": range(150, 300)}
MODEL = {"latency_ms": 500.0}
CHAOS_SECONDS, LONGEST_SECONDS = 20.0, 60.0
HIT = 15
STRIKE_EVERY_SECONDS = 1.0
OUTAGE_SECONDS = 10.0
QUEUE_DOWN_AT, STORE_DOWN_AT = 2.0, 9.0
CALM_SECONDS = 240.0
ROUNDS = range(int(os.environ.get("AI_FAULT_ROUNDS", "1")))
_NAMES = UUID(int=4)
Step = tuple[float, Callable[[], object]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[RestartablePostgres]:
    with restartable_postgres() as server:
        yield server


@pytest.mark.parametrize("round_number", ROUNDS)
def test_a_file_that_is_locked_and_a_queue_that_refuses(
    tmp_path: Path, ministack_server: MiniStack, seed: int, round_number: int
) -> None:
    """SQLite; a writer that does not let go is what "down" means for it."""
    with pack(tmp_path, ministack_server, seed=seed, **MODEL) as jobs:
        writer = closing(sqlite3.connect(tmp_path / "store.db", timeout=30.0, isolation_level=None))
        with writer as other:
            store = [
                (STORE_DOWN_AT, lambda: other.execute("BEGIN IMMEDIATE")),
                (STORE_DOWN_AT + OUTAGE_SECONDS, lambda: other.execute("ROLLBACK")),
            ]
            rage(jobs, random.Random(seed), [*refused(jobs), *store])
        check(jobs, random.Random(seed))


@pytest.mark.parametrize("round_number", ROUNDS)
def test_a_server_that_is_restarted_and_a_queue_that_hangs(
    tmp_path: Path, ministack_server: MiniStack, postgres: RestartablePostgres, seed: int, round_number: int
) -> None:
    """PostgreSQL, stopped in good order; SQS takes connections and answers nothing."""
    with database(postgres) as url, pack(tmp_path, ministack_server, seed=seed, store_url=url, **MODEL) as jobs:
        store = [(STORE_DOWN_AT, postgres.stop), (STORE_DOWN_AT + OUTAGE_SECONDS, postgres.start)]
        rage(jobs, random.Random(seed), [*hanging(ministack_server), *store])
        check(jobs, random.Random(seed))


@pytest.mark.parametrize("round_number", ROUNDS)
def test_a_server_that_crashes_and_a_queue_that_refuses(
    tmp_path: Path, ministack_server: MiniStack, postgres: RestartablePostgres, seed: int, round_number: int
) -> None:
    """PostgreSQL, killed: what it had not written yet (claims, heartbeats) is lost, and jobs are claimed once more."""
    with database(postgres) as url, pack(tmp_path, ministack_server, seed=seed, store_url=url, **MODEL) as jobs:
        store = [(STORE_DOWN_AT, postgres.kill), (STORE_DOWN_AT + OUTAGE_SECONDS, postgres.start)]
        rage(jobs, random.Random(seed), [*refused(jobs), *store])
        check(jobs, random.Random(seed), crashes=1)


# --- a run


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


def hanging(ministack: MiniStack) -> list[Step]:
    """A queue that takes connections and says nothing."""
    members: list[psutil.Process] = []

    def stop() -> None:
        members.extend(ministack.service.members())
        for member in members:
            member.suspend()

    def resume() -> None:
        for member in members:
            member.resume()

    return [(QUEUE_DOWN_AT, stop), (QUEUE_DOWN_AT + OUTAGE_SECONDS, resume)]


def rage(jobs: Pack, draw: random.Random, steps: list[Step]) -> None:
    """Start everything, and for a while let nothing be."""
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
        while (now := time.monotonic() - began) < CHAOS_SECONDS or left or (now < LONGEST_SECONDS and not enough(jobs)):
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
    poisons.give(jobs)


def enough(jobs: Pack) -> bool:
    """Whether blows have hit work, or can hit none any more. On a busy machine that takes longer."""
    return sum(strike.held or 0 for strike in jobs.strikes) >= HIT or over(jobs)


def over(jobs: Pack) -> bool:
    """Whether everybody who waits has what it waited for."""
    waiters = [f"{kind}-{key}" for key in KEYS for kind in ("triggerer", "wait")]
    return jobs.processes.keys() >= set(waiters) and jobs.done(*waiters)


def begin_waiting(jobs: Pack) -> None:
    for key in KEYS:
        if jobs.done(f"submit-{key}") and f"wait-{key}" not in jobs.processes:
            jobs.triggerer(key)
            jobs.wait(key)


def check(jobs: Pack, draw: random.Random, *, crashes: int = 0) -> None:
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
    found = problems(jobs, outages=2, crashes=crashes)
    assert not found, "\n".join(found)
    assert [jobs.verdict(key)["completed"] for key in KEYS] == [len(ids) for ids in KEYS.values()]
    assert any(strike.held for strike in jobs.strikes), "nobody had a job when it was struck"
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
    print(f"looked at {jobs.auditor.looked} sends and deletes, not at {jobs.auditor.skipped}; {dict(jobs.relay.done)}")


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


# --- messages that nobody can deal with


class Poisons:
    """Messages of each submission's, once its jobs are in the store."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, jobs: Pack) -> None:
        """Put them into both queues, past the relay. A store or a queue that is down gets them another time."""
        for key in KEYS:
            if f"wait-{key}" in jobs.processes and key not in self._given:
                with suppress(StoreUnavailableError, QueueUnavailableError):
                    poison(jobs, jobs.jobs(key)[7])
                    self._given.add(key)


def poison(jobs: Pack, known: Job) -> None:
    stranger = _job(uuid5(_NAMES, known.job_id).hex, 0, b'{"id": 9999}')
    other = _job(known.job_id, known.position, b'{"id": 8888}')
    bodies = [b"no message at all", _message(stranger, schema_version=99), _message(stranger), _message(other)]
    jobs.fleet.transport.requests.send([OutgoingMessage(key=uuid4().hex, body=body) for body in bodies])
    outcome = Outcome(state=JobState.FAILED, reason="made_up")
    reply = encode_result(ResultMessage(job_id=stranger.job_id, source="/x", time=1.0, fence=1, outcome=outcome))
    jobs.fleet.transport.results.send([OutgoingMessage(key=uuid4().hex, body=body) for body in (b"[]", reply)])


def check_poison(jobs: Pack) -> None:
    """All of it is kept with its reason, and ended no job."""
    letters = jobs.fleet.opened.dead_letters()

    def reasons() -> list[str]:
        return sorted(letter.reason for letter in letters.letters(most=100))

    # "no message at all" and "[]" are the same message from everyone, and so one letter each.
    wanted = ["not_an_event", "not_json", *2 * ["payload_mismatch", "unknown_job", "unknown_schema"]]
    wait_until(lambda: len(reasons()) >= len(wanted), deadline_seconds=30, what="dead letters are kept")
    assert reasons() == sorted(wanted)


def _job(job_id: str, position: int, payload: bytes) -> Job:
    packed = InlineOrClaimCheck(None).pack(payload, kind="payload", job_id=job_id)
    return begun(NewJob(job_id=job_id, submission="none", position=position, payload=packed))


def _message(job: Job, *, schema_version: int = 1) -> bytes:
    event = orjson.loads(request_message(job, now=1.0).body)
    event["data"]["schema_version"] = schema_version
    return orjson.dumps(event)
