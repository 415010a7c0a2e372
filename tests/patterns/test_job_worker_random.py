"""Workers under random faults on a virtual clock: whatever happens, every job ends once and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob
from airflow_provider_ai.core.job_settings import DispatcherSettings
from airflow_provider_ai.core.jobs import JobState
from airflow_provider_ai.exceptions import QueueUnavailableError, StoreUnavailableError
from airflow_provider_ai.patterns.dispatcher import Dispatcher
from airflow_provider_ai.patterns.job_worker import JobWorker
from airflow_provider_ai.testing import InMemoryDeadLetters, QueueFaults
from tests.patterns.job_harness import EPOCH, REJECTED, SUBMISSION, Scene, ScriptedHandler, now, play

JOBS = 300
SPOILED = {7, 70, 170}  # their endpoint rejects them


class Partitioned:
    """A worker's own view of the store: cut off while ``cut``."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **settings: Any) -> Any:
            if self.cut:
                raise StoreUnavailableError("cut off")
            return getattr(self._store, name)(*args, **settings)

        return call


class Storm(Scene):
    """Three workers that are killed, cut off and stopped, over queues that duplicate, reorder, delay and lose acks."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        faults = QueueFaults(
            duplicated=0.1, lost_acks=0.1, reordered=0.5, late_seconds=3.0, random=random.Random(chance.random())
        )
        super().__init__(seed=seed, faults=faults, visibility_timeout_seconds=6, deadline_seconds=30, max_attempts=8)
        self.chance = chance
        self.kills = self.cuts = 0
        self.effects: Counter[tuple[str, str]] = Counter()
        self.views: dict[JobWorker, Partitioned] = {}
        self.handler.script = self.work
        self.dispatcher = Dispatcher(
            store=self.store,
            dead_letters=InMemoryDeadLetters(clock=lambda: EPOCH + now()),
            transport=self.transport,
            settings=DispatcherSettings(poll_seconds=0.01, resend_after_seconds=60),
            epoch=lambda: EPOCH + now(),
            random=chance.random,
        )

    async def work(self, job: HandledJob) -> Ending:
        """Takes a while, fails now and then, and has an effect under its key."""
        await asyncio.sleep(self.chance.uniform(0.05, 2.0))
        fate = self.chance.random()
        if job.payload["n"] in SPOILED:
            return REJECTED
        if fate < 0.05:
            return Ending(kind=EndingKind.RETRY, reason="server_error")
        if fate < 0.10:
            return Ending(kind=EndingKind.LATER, reason="throttled", retry_after_seconds=1.0)
        if fate < 0.12:
            raise ConnectionError
        if fate < 0.14:
            await asyncio.sleep(20.0)
        self.effects[job.job_id, job.idempotency_key] += 1
        return Ending(kind=EndingKind.DONE, output=b'{"n":%d}' % job.payload["n"])

    def add_worker(self) -> None:
        view = Partitioned(self.store)
        self.views[self.start(store=view)] = view

    async def strike(self) -> None:
        """One of the things that happen to a fleet."""
        victim = self.chance.choice(list(self.running))
        what = self.chance.random()
        if what < 0.4:
            self.kills += 1
            await self.kill(victim)
            self.add_worker()
        elif what < 0.6:
            self.cuts += 1
            self.views[victim].cut = True
            asyncio.get_running_loop().call_later(self.chance.uniform(1, 15), setattr, self.views[victim], "cut", False)
        elif what < 0.7:
            await self.stop(victim)
            self.add_worker()
        elif what < 0.8:
            self.store.available = False
            asyncio.get_running_loop().call_later(self.chance.uniform(1, 10), setattr, self.store, "available", True)
        elif what < 0.9:
            queue = self.chance.choice([self.requests, self.results, self.dead])
            queue.available = False
            asyncio.get_running_loop().call_later(self.chance.uniform(1, 10), setattr, queue, "available", True)

    def dispatch(self) -> None:
        """A round of everything a dispatcher does."""
        for work in (self.dispatcher.take_results, self.dispatcher.take_dead_letters, self.dispatcher.reconcile):
            try:
                work()
            except (StoreUnavailableError, QueueUnavailableError):
                continue

    def arrived(self) -> int:
        return len(self.store.arrivals(SUBMISSION, most=100_000)) if self.store.available else -1


@pytest.mark.parametrize("number", range(4))
def test_every_job_ends_once_whatever_happens(seed: int, number: int) -> None:
    """None lost, none with two outcomes, none done with two keys; attempts beyond one a job are paid for by faults."""

    async def main() -> None:
        storm = Storm(seed + number)
        jobs = storm.submit(JOBS)
        for _ in range(3):
            storm.add_worker()
        results: dict[str, set[bytes]] = {job.job_id: set() for job in jobs}
        while storm.arrived() < JOBS:
            await asyncio.sleep(storm.chance.uniform(0.1, 2.0))
            if now() < 1_000 + 90:
                await storm.strike()
            storm.dispatch()
            for job in storm.store.jobs(SUBMISSION, most=JOBS) if storm.store.available else ():
                if job.result is not None and job.result.inline is not None:
                    results[job.job_id].add(job.result.inline)
        await storm.until(lambda: storm.requests.available and storm.drained())
        await storm.stop_all()

        arrivals = storm.store.arrivals(SUBMISSION, most=100_000)
        assert [arrival.position for arrival in arrivals] == list(range(JOBS))
        for arrival in arrivals:
            job = storm.store.job(arrival.job_id)
            assert job is not None
            assert arrival.outcome == job.outcome
            assert job.state in (JobState.SUCCEEDED, JobState.FAILED)
            if arrival.position in SPOILED:
                assert job.reason in ("rejected", "attempts_exhausted")
            elif job.state is JobState.SUCCEEDED:
                assert results[job.job_id] == {b'{"n":%d}' % arrival.position}
                assert storm.effects[job.job_id, job.job_id] >= 1
        assert {key for _, key in storm.effects} <= {job.job_id for job in jobs}
        assert all(name == key for name, key in storm.effects)
        print(f"kills {storm.kills}, cuts {storm.cuts}, calls {sum(storm.handler.calls.values())}")

    play(main, limit_seconds=20_000)


@pytest.mark.parametrize("number", range(3))
def test_nothing_is_called_twice_by_what_queues_do(seed: int, number: int) -> None:
    """Duplicated, reordered and late messages and lost acks alone cost no call: exactly one a job."""

    async def main() -> None:
        chance = random.Random(seed + number)
        faults = QueueFaults(duplicated=0.3, lost_acks=0.3, reordered=0.5, late_seconds=10, random=chance)
        scene = Scene(faults=faults, visibility_timeout_seconds=6)
        jobs = scene.submit(JOBS)
        scene.handler.script = lambda job: _quick(job, chance)
        for _ in range(3):
            scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1 for job in jobs}
        assert {name for name, _, _ in scene.published()} == {job.job_id for job in jobs}
        assert scene.states() == [JobState.SUCCEEDED] * JOBS

    play(main)


async def _quick(job: HandledJob, chance: random.Random) -> Ending:
    await asyncio.sleep(chance.uniform(0, 3))
    return Ending(kind=EndingKind.DONE, output=b"1")


def test_calls_are_bounded_by_jobs_and_deaths(seed: int) -> None:
    """Workers killed with jobs in hand: each death costs at most a call for each of its slots."""

    async def main() -> None:
        scene = Scene(seed=seed, concurrency=4, visibility_timeout_seconds=6)
        jobs = scene.submit(120)
        scene.handler.script = lambda job: _quick(job, scene.random)
        deaths = 0
        workers = [scene.start() for _ in range(3)]
        while not scene.all_final():
            await asyncio.sleep(scene.random.uniform(1, 4))
            if deaths < 10:
                deaths += 1
                await scene.kill(workers.pop(0))
                workers.append(scene.start())
        await scene.until(scene.drained)
        await scene.stop_all()
        assert sum(scene.handler.calls.values()) <= len(jobs) + deaths * 4
        assert isinstance(scene.handler, ScriptedHandler)
        assert {name for name, _, _ in scene.published()} == {job.job_id for job in jobs}

    play(main)
