"""What it costs to wait: a thousand waits of one process, idle, and how soon each hears of its reply.

    python -m benchmarks.async_waiters

Every wait is for a submission of its own, as a thousand deferred tasks of a triggerer are. First nothing happens, and
the CPU time of the process is taken; then replies become durable one after the other at random, and each is timed from
its commit to the moment its waiter goes on. SQLite and PostgreSQL; queries are counted.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.job_waiting import WaitPolicy
from airflow_provider_ai.core.jobs import Content, JobCounts, JobState, NewJob, Outcome, job_id
from airflow_provider_ai.patterns.waiting_hub import CountsJobs, shared_hub
from benchmarks import measure
from tests.support.postgres import postgres_server

JOBS_EACH = 10
_IDLE_SECONDS = 20.0
_REPLIES = 100
_REPLIES_PER_SECOND = 5.0
_PAYLOAD = Content(sha256="0" * 64, inline=b"{}")
_RESULT = Outcome(state=JobState.SUCCEEDED, content=Content(sha256="0" * 64, inline=b"{}"))


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.call_options("What waiting costs. --calls: waits.", calls=1000, quick_calls=50)
    options = measure.read_options(parser, arguments)
    idle = 3.0 if options.quick else _IDLE_SECONDS
    replies = min(options.calls, 10 if options.quick else _REPLIES)
    rows = []
    with TemporaryDirectory(prefix="store-") as folder, postgres_server() as server:
        stores = {
            "SQLite": f"sqlite:///{Path(folder, 'store.db')}",
            "PostgreSQL": server.url(server.create_database()),
        }
        for name, url in stores.items():
            case = Case(url, waits=options.calls, idle_seconds=idle, replies=replies, seed=options.seed)
            rows.append({"store": name, **asyncio.run(case.run())})
    return measure.report("async_waiters", vars(options), rows, _claims(rows))


def _claims(rows: Sequence[Mapping[str, Any]]) -> list[measure.Claim]:
    claims = []
    for row in rows:
        name = row["store"]
        claims += [
            measure.Claim(what=f"{name}: CPU of a core while idle, %", measured=row["idle CPU %"], limit=5.0),
            measure.Claim(what=f"{name}: queries per tick", measured=row["queries per tick"], limit=1.0),
            measure.Claim(what=f"{name}: reply durable to waiter, p50 s", measured=row["reply p50 s"], limit=2.0),
        ]
    return claims


class Counting:
    """A store whose looks are counted."""

    def __init__(self, store: CountsJobs) -> None:
        self.looks = 0
        self.asked = 0
        self._store = store

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        """Look."""
        self.looks += 1
        self.asked = len(submissions)
        return self._store.counts(submissions)


class Case:
    """Waits on one store."""

    def __init__(self, url: str, *, waits: int, idle_seconds: float, replies: int, seed: int) -> None:
        self._store = open_store(url, timeout_seconds=15.0)
        self._jobs = self._store.jobs()
        self._counting = Counting(self._jobs)
        self._waits = [f"{number:032x}" for number in range(waits)]
        self._idle_seconds = idle_seconds
        self._replies = replies
        self._random = random.Random(seed)
        self._resumed: dict[str, float] = {}

    async def run(self) -> dict[str, Any]:
        """Wait idly, then for replies."""
        await asyncio.to_thread(self._submit)
        waits = [asyncio.create_task(self._wait(submission)) for submission in self._waits]
        await asyncio.sleep(3.0)
        before, cpu, began = self._counting.looks, time.process_time(), time.perf_counter()
        await asyncio.sleep(self._idle_seconds)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - began
        looks = self._counting.looks - before
        asked = self._counting.asked
        took = await self._reply()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        self._store.close()
        return {
            "waits": len(self._waits),
            "asked at once": asked,
            "looks": looks,
            "queries per tick": looks / max(1.0, wall),  # a tick is a second, or more
            "idle CPU %": 100 * cpu / wall,
            "reply p50 s": median(took),
            "reply max s": max(took),
            "rss MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _submit(self) -> None:
        for submission in self._waits:
            self._jobs.submit([_job(submission, position) for position in range(JOBS_EACH)])
            done = {job_id(submission, position): _RESULT for position in range(JOBS_EACH - 1)}
            self._jobs.receive_many(done, via="benchmark")

    async def _wait(self, submission: str) -> None:
        async with shared_hub("store", self._open) as hub, hub.waiting(submission) as waiting:
            await waiting.over(WaitPolicy())
        self._resumed[submission] = time.perf_counter()

    @contextmanager
    def _open(self) -> Iterator[CountsJobs]:
        yield self._counting

    async def _reply(self) -> list[float]:
        """Seconds from each reply's commit to its waiter going on."""
        chosen = self._random.sample(self._waits, self._replies)
        durable = {}
        for submission in chosen:
            last = {job_id(submission, JOBS_EACH - 1): _RESULT}
            await asyncio.to_thread(self._jobs.receive_many, last, via="benchmark")
            durable[submission] = time.perf_counter()
            await asyncio.sleep(self._random.expovariate(_REPLIES_PER_SECOND))
        while len(self._resumed) < len(chosen):  # noqa: ASYNC110 - what is waited for are the tasks under test
            await asyncio.sleep(0.1)
        return [self._resumed[submission] - at for submission, at in durable.items()]


def _job(submission: str, position: int) -> NewJob:
    return NewJob(job_id=job_id(submission, position), submission=submission, position=position, payload=_PAYLOAD)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
