"""Workers on a virtual clock, with a store and queues in memory, and a handler that a test scripts."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import orjson

from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import Delivery, OutgoingMessage, Transport
from airflow_provider_ai.core.job_settings import WorkerSettings
from airflow_provider_ai.core.jobs import Content, Job, JobState, NewJob, job_id
from airflow_provider_ai.core.messages import decode_result
from airflow_provider_ai.exceptions import ClaimCheckError, EncryptionError
from airflow_provider_ai.patterns.job_worker import JobWorker
from airflow_provider_ai.testing import InMemoryQueue, QueueFaults
from airflow_provider_ai.testing.job_store import InMemoryJobStore
from tests.patterns import virtual_time

EPOCH = 1_700_000_000.0
SUBMISSION = "submission"
Script = Callable[[HandledJob], Awaitable[Ending] | Ending]


def done(job: HandledJob) -> Ending:
    return Ending(kind=EndingKind.DONE, output=orjson.dumps({"double": 2 * job.payload["n"]}))


def retry(reason: str = "server_error") -> Ending:
    return Ending(kind=EndingKind.RETRY, reason=reason)


def later(reason: str = "throttled", seconds: float | None = None) -> Ending:
    return Ending(kind=EndingKind.LATER, reason=reason, retry_after_seconds=seconds)


REJECTED = Ending(kind=EndingKind.REJECTED, reason="rejected")


def taking(seconds: float, then: Script = done) -> Script:
    """A handler that takes a while."""

    async def script(job: HandledJob) -> Ending:
        await asyncio.sleep(seconds)
        ending = then(job)
        return ending if isinstance(ending, Ending) else await ending

    return script


class ScriptedHandler:
    """Counts calls by job; ``began`` and ``ended`` hold what it was called with and what it returned."""

    def __init__(self, script: Script = done) -> None:
        self.script = script
        self.began: list[HandledJob] = []
        self.calls: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.running = self.peak = 0

    async def handle(self, job: HandledJob, *, deadline_seconds: float) -> Ending:
        self.began.append(job)
        self.calls[job.job_id] += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            ending = self.script(job)
            found = ending if isinstance(ending, Ending) else await ending
        except asyncio.CancelledError:
            self.cancelled[job.job_id] += 1
            raise
        finally:
            self.running -= 1
        self.ended[job.job_id] += 1
        return found


class Contents:
    """Contents inline, as they are; ``lost`` makes claim checks lead nowhere, ``error`` is what the keys say."""

    lost = False
    error: EncryptionError | None = None

    def prepare(self, kind: str) -> None:
        if self.error is not None:
            raise self.error

    def pack(self, data: bytes, *, kind: str, job_id: str, origin: str | None = None) -> Content:
        self.prepare(kind)
        return Content(sha256=hashlib.sha256(data).hexdigest(), inline=data)

    def unpack(self, content: Content, *, kind: str, job_id: str, origin: str | None = None) -> bytes:
        if self.lost or content.inline is None or hashlib.sha256(content.inline).hexdigest() != content.sha256:
            raise ClaimCheckError("not there")
        return content.inline


class Queue(InMemoryQueue):
    """Never waits: on a virtual clock nothing would come meanwhile. Keeps what was asked of it."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.asked: list[int] = []
        self.waits: list[float] = []
        self.deleted = 0

    def receive(self, *, most: int, wait_seconds: float, visibility_seconds: float) -> Sequence[Delivery]:
        self.asked.append(most)
        self.waits.append(wait_seconds)
        return super().receive(most=most, wait_seconds=0, visibility_seconds=visibility_seconds)

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        super().delete(deliveries)
        self.deleted += len(deliveries)


def now() -> float:
    """Seconds on the virtual clock."""
    return asyncio.get_running_loop().time()


class Scene:
    """Store, queues and workers. To be made inside of the loop."""

    def __init__(self, *, seed: int = 0, faults: QueueFaults | None = None, **settings: Any) -> None:
        self.random = random.Random(seed)
        self.store = InMemoryJobStore(clock=lambda: EPOCH + now())
        self.dead = Queue("dead", clock=now)
        self.requests = Queue("requests", clock=now, faults=faults)
        self.results = Queue("results", clock=now)
        self.transport = Transport(requests=self.requests, results=self.results, dead_letters=self.dead)
        self.contents = Contents()
        self.settings = WorkerSettings(**{"concurrency": 8, "grace_seconds": 8.0, **settings})
        self.handler = ScriptedHandler()
        self.running: dict[JobWorker, asyncio.Task[None]] = {}
        self._numbers = itertools.count()

    def payload(self, position: int) -> Content:
        return self.contents.pack(orjson.dumps({"n": position}), kind="payload", job_id="")

    def submit(self, number: int = 1, *, first: int = 0, send: bool = True, **settings: Any) -> list[Job]:
        """Jobs with payloads {"n": position}, in the store and in the queue."""
        positions = range(first, first + number)
        new = [
            NewJob(
                job_id=job_id(SUBMISSION, position),
                submission=SUBMISSION,
                position=position,
                payload=self.payload(position),
                **settings,
            )
            for position in positions
        ]
        jobs = list(self.store.submit(new))
        if send:
            self.send(*jobs)
        return jobs

    def send(self, *jobs: Job) -> None:
        self.requests.send([self.message(job) for job in jobs])

    def message(self, job: Job) -> OutgoingMessage:
        return request_message(job, now=EPOCH + now())

    def worker(self, handler: ScriptedHandler | None = None, **parts: Any) -> JobWorker:
        """A worker that is not started."""
        settings = {
            "store": self.store,
            "transport": self.transport,
            "contents": self.contents,
            "handler": handler or self.handler,
            "settings": self.settings,
            "owner": f"worker-{next(self._numbers)}",
            "epoch": lambda: EPOCH + now(),
            "random": self.random.random,
        }
        return JobWorker(**{**settings, **parts})

    def start(self, handler: ScriptedHandler | None = None, **parts: Any) -> JobWorker:
        """A worker that runs."""
        worker = self.worker(handler, **parts)
        self.running[worker] = asyncio.create_task(worker.run())
        return worker

    async def kill(self, worker: JobWorker) -> None:
        """As SIGKILL: it does nothing more, and gives nothing back."""
        task = self.running.pop(worker)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def stop(self, worker: JobWorker) -> None:
        """As SIGTERM, and wait for its end."""
        worker.stop()
        await self.running.pop(worker)

    async def stop_all(self) -> None:
        await asyncio.gather(*map(self.stop, list(self.running)))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something, as long as the virtual clock allows."""
        while not condition():  # noqa: ASYNC110 - on a virtual clock
            await asyncio.sleep(0.05)

    def states(self) -> list[JobState]:
        return [job.state for job in self.store.jobs(SUBMISSION, most=100_000)]

    def all_final(self) -> bool:
        return all(state.final for state in self.states())

    def drained(self) -> bool:
        return self.requests.depth() == 0

    def published(self) -> list[tuple[str, JobState, str | None]]:
        """Results in the result queue: job id, state, reason."""
        found = [decode_result(delivery.body) for delivery in self.results.peek(most=100_000)]
        return [(each.job_id, each.outcome.state, each.outcome.reason) for each in found]

    def buried(self) -> list[tuple[str | None, str]]:
        """Dead letters: job id, reason."""
        letters = self.dead.peek(most=100_000)
        return [(each.attributes.get("job_id"), each.attributes["reason"]) for each in letters]


def play(main: Callable[[], Coroutine[Any, Any, None]], *, limit_seconds: float = 3600.0) -> float:
    """Run a scene; the virtual seconds it took."""
    outcome = virtual_time.Outcome()
    virtual_time.run(main(), outcome, limit_seconds=limit_seconds)
    return outcome.seconds
