"""One look at the store for everyone who waits: a thousand waiting tasks of a process are one query per tick.

A hub belongs to one event loop. It looks as long as somebody waits, in a thread of its own, and spends at most a
twenty-fifth of the time on it: when a look takes longer, the ticks lie further apart. Only those whose counts have
changed are woken.

A store that is down for a while is no reason to end a wait: the hub looks again, less often, and a deadline is held
nevertheless. It is decided by a look made after it, so replies that came in time count even when nobody was looking
(the process was down, say); only when the store gives no answer for 30 s more is the wait given up without one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from airflow_provider_ai.core.backoff import full_jitter
from airflow_provider_ai.core.job_waiting import STORE_UNAVAILABLE, WaitPolicy, WaitState, WaitVerdict, decide
from airflow_provider_ai.core.jobs import JobCounts
from airflow_provider_ai.exceptions import StoreUnavailableError

_SHARE = 0.04
_SLOWEST_TICK_SECONDS = 10.0
_LONGEST_BACKOFF_SECONDS = 15.0
LAST_LOOK_SECONDS = 30.0
log = logging.getLogger(__name__)


class CountsJobs(Protocol):
    """The part of a JobStore that waiting needs."""

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        """Counts of many submissions in one query."""
        ...


class WaitingHub:
    """Looks after all waits of an event loop on one store.

    :param open_store: makes the store at the first look, in the hub's thread; left when the hub is closed
    :param tick_seconds: between two looks, at least
    :param clock: epoch seconds, for deadlines
    """

    def __init__(
        self,
        open_store: Callable[[], AbstractContextManager[CountsJobs]],
        *,
        tick_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._open = open_store
        self._tick_seconds = tick_seconds
        self._waits: dict[str, list[Waiting]] = defaultdict(list)
        self._ticking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ai-waiting")
        self._opened = ExitStack()
        self._store: CountsJobs | None = None

    @asynccontextmanager
    async def waiting(self, submission: str) -> AsyncIterator[Waiting]:
        """A wait for a submission, looked after as long as the context lasts."""
        waiting = Waiting(self)
        self._waits[submission].append(waiting)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.get_running_loop().create_task(self._tick(), name="ai-waiting-hub")
        try:
            yield waiting
        finally:
            self._leave(submission, waiting)

    def close(self) -> None:
        """Look no more, and leave the store. Nobody may be waiting."""
        self._stop()
        self._thread.submit(self._opened.close)
        self._thread.shutdown(wait=False)

    def _leave(self, submission: str, waiting: Waiting) -> None:
        self._waits[submission].remove(waiting)
        if not self._waits[submission]:
            del self._waits[submission]
        if not self._waits:
            self._stop()

    def _stop(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    async def _tick(self) -> None:
        failures = 0
        while True:
            started = time.perf_counter()
            try:
                await self._look()
            except StoreUnavailableError as error:
                failures += 1
                log.warning("cannot look for replies, trying again: %s", error)
                await asyncio.sleep(self._backoff(failures))
                continue
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, or would wait forever
                self._fail(error)
                return
            failures = 0
            took = time.perf_counter() - started
            await asyncio.sleep(min(_SLOWEST_TICK_SECONDS, max(self._tick_seconds, took / _SHARE)))

    async def _look(self) -> None:
        looked_at, submissions = self.clock(), list(self._waits)
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._count, submissions)
        for submission in submissions:
            for waiting in self._waits.get(submission, ()):
                waiting.seen(found.get(submission), looked_at)

    def _count(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        if self._store is None:
            self._store = self._opened.enter_context(self._open())
        return self._store.counts(submissions)

    def _fail(self, error: Exception) -> None:
        for waits in self._waits.values():
            for waiting in waits:
                waiting.failed(error)

    def _backoff(self, failures: int) -> float:
        jitter = full_jitter(failures, base=self._tick_seconds, cap=_LONGEST_BACKOFF_SECONDS, random=random.random())
        return max(self._tick_seconds, jitter)


class Waiting:
    """One wait. Made by :meth:`WaitingHub.waiting`."""

    def __init__(self, hub: WaitingHub) -> None:
        self._hub = hub
        self._counts: JobCounts | None = None
        self._looked_at: float | None = None
        self._error: Exception | None = None
        self._impatient = False
        self._news = asyncio.Event()

    async def over(
        self, policy: WaitPolicy, *, deadline: float | None = None, expected: int | None = None
    ) -> WaitVerdict:
        """How the wait ended, when it has.

        :param deadline: epoch seconds; None for none but the jobs' own
        :param expected: how many jobs were submitted, if the caller knows
        :raises Exception: what the store raises that trying again does not mend
        """
        give_up = None if deadline is None else max(deadline, self._hub.clock()) + LAST_LOOK_SECONDS
        while (verdict := self._verdict(policy, deadline, give_up, expected)) is None:
            await self._until_news(give_up if self._impatient else deadline)
        return verdict

    def seen(self, counts: JobCounts | None, looked_at: float) -> None:
        """The hub has looked."""
        news = self._looked_at is None or self._impatient or counts != self._counts
        self._counts, self._looked_at = counts, looked_at
        if news:
            self._news.set()

    def failed(self, error: Exception) -> None:
        """The hub cannot look any more."""
        self._error = error
        self._news.set()

    def _verdict(
        self, policy: WaitPolicy, deadline: float | None, give_up: float | None, expected: int | None
    ) -> WaitVerdict | None:
        self._news.clear()
        if self._error is not None:
            raise self._error
        if self._looked_at is not None:
            verdict = decide(self._counts, policy, now=self._looked_at, deadline=deadline, expected=expected)
            if verdict.over:
                return verdict
        now = self._hub.clock()
        if give_up is not None and now >= give_up:
            counts = self._counts or JobCounts()
            return WaitVerdict(state=WaitState.TIMED_OUT, counts=counts, reason=STORE_UNAVAILABLE)
        self._impatient = deadline is not None and now >= deadline
        return None

    async def _until_news(self, moment: float | None) -> None:
        seconds = None if moment is None else moment - self._hub.clock()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass  # over() sees what time it is


# --- one hub for all who share a store and an event loop


@dataclass(slots=True)
class _Shared:
    hub: WaitingHub
    users: int = 0


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_hub(
    key: Hashable, open_store: Callable[[], AbstractContextManager[CountsJobs]], *, tick_seconds: float = 1.0
) -> AsyncIterator[WaitingHub]:
    """The running event loop's hub for a store, made for the first who asks and closed after the last.

    :param key: names the store, its credentials included: those who give the same one share a hub
    """
    hubs = _hubs.setdefault(asyncio.get_running_loop(), {})
    shared = hubs.get(key)
    if shared is None:
        shared = hubs[key] = _Shared(WaitingHub(open_store, tick_seconds=tick_seconds))
    shared.users += 1
    try:
        yield shared.hub
    finally:
        shared.users -= 1
        if not shared.users:
            del hubs[key]
            shared.hub.close()
