"""One look for everyone who waits, on a clock that jumps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_ai.core.job_waiting import WaitPolicy, WaitState, WaitVerdict
from airflow_provider_ai.core.jobs import JobCounts
from airflow_provider_ai.exceptions import StoreSchemaError, StoreUnavailableError
from airflow_provider_ai.patterns.waiting_hub import WaitingHub, shared_hub
from tests.patterns import virtual_time
from tests.patterns.virtual_time import START

POLICY = WaitPolicy()
DONE = JobCounts(jobs=2, completed=2)
PENDING = JobCounts(jobs=2, completed=1, pending=1)


class Store:
    """Submissions that end at some second of the loop's time; down during ``outage``."""

    def __init__(self, ends: Mapping[str, float], *, outage: tuple[float, float] = (0.0, 0.0)) -> None:
        self.looks: list[float] = []
        self.asked: list[int] = []
        self.entered = self.left = 0
        self.error: Exception | None = None
        self._ends = ends
        self._outage = outage

    @contextmanager
    def open(self) -> Iterator[Store]:
        self.entered += 1
        yield self
        self.left += 1

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        now = asyncio.get_running_loop().time() - START
        self.looks.append(now)
        self.asked.append(len(submissions))
        if self.error is not None:
            raise self.error
        if self._outage[0] <= now < self._outage[1]:
            raise StoreUnavailableError("the store is down")
        known = [name for name in submissions if name in self._ends]
        return {name: DONE if now >= self._ends[name] else PENDING for name in known}


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    virtual_time.run(work(), virtual_time.Outcome())


def hub_on(store: Store) -> WaitingHub:
    return WaitingHub(store.open, clock=asyncio.get_running_loop().time)


async def wait_for(hub: WaitingHub, submission: str, **given: Any) -> tuple[WaitVerdict, float]:
    """The verdict, and the second it came."""
    async with hub.waiting(submission) as waiting:
        verdict = await waiting.over(POLICY, **given)
    return verdict, asyncio.get_running_loop().time() - START


def test_a_thousand_waits_are_one_query_a_tick() -> None:
    """Each hears of its own end within a tick; nobody looks when nobody waits."""

    async def work() -> None:
        store = Store({f"s{i}": float(i % 50) for i in range(1000)})
        hub = hub_on(store)
        ended = await asyncio.gather(*(wait_for(hub, f"s{i}") for i in range(1000)))
        assert {verdict.state for verdict, _ in ended} == {WaitState.COMPLETE}
        assert all(0 <= at - i % 50 <= 1.0 for i, (_, at) in enumerate(ended))
        assert len(store.looks) == 50
        assert store.asked[0] == 1000
        await asyncio.sleep(60)
        assert len(store.looks) == 50
        hub.close()

    run(work)


def test_two_may_wait_for_the_same() -> None:
    """It is asked for once, and one that leaves does not take it from the other."""

    async def work() -> None:
        store = Store({"s": 5.0})
        hub = hub_on(store)
        first = asyncio.create_task(wait_for(hub, "s"))
        second = asyncio.create_task(wait_for(hub, "s"))
        await asyncio.sleep(2)
        first.cancel()
        verdict, at = await second
        assert (verdict.state, at) == (WaitState.COMPLETE, 5.0)
        assert set(store.asked) == {1}
        hub.close()

    run(work)


def test_a_store_that_is_down_ends_no_wait() -> None:
    """It is looked at again, less often, and then as before."""

    async def work() -> None:
        store = Store({"s": 40.0}, outage=(10.0, 40.0))
        hub = hub_on(store)
        verdict, at = await wait_for(hub, "s")
        assert verdict.state is WaitState.COMPLETE
        assert 40.0 <= at <= 55.0
        assert 2 <= len([look for look in store.looks if 10 <= look < 40]) <= 30
        hub.close()

    run(work)


def test_a_deadline_is_decided_by_a_look_after_it() -> None:
    """And by the next one, not by the tick after the next reply."""

    async def work() -> None:
        store = Store({"s": 100.0})
        hub = hub_on(store)
        verdict, at = await wait_for(hub, "s", deadline=START + 20.5)
        assert (verdict.state, verdict.reason) == (WaitState.TIMED_OUT, "deadline")
        assert 20.5 <= at <= 21.5
        hub.close()

    run(work)


def test_replies_that_came_while_nobody_looked_count_after_the_deadline() -> None:
    """A process that was down over the deadline looks first and gives up then."""

    async def work() -> None:
        store = Store({"s": 0.0})
        hub = hub_on(store)
        verdict, _ = await wait_for(hub, "s", deadline=START - 3600)
        assert verdict.state is WaitState.COMPLETE
        hub.close()

    run(work)


def test_a_deadline_holds_though_the_store_is_down() -> None:
    """Half a minute later the wait is given up without an answer."""

    async def work() -> None:
        store = Store({"s": 0.0}, outage=(0.0, 1e9))
        hub = hub_on(store)
        verdict, at = await wait_for(hub, "s", deadline=START + 10)
        assert (verdict.state, verdict.reason, at) == (WaitState.TIMED_OUT, "store_unavailable", 40.0)
        hub.close()

    run(work)


@pytest.mark.parametrize("error", [StoreSchemaError("newer"), ZeroDivisionError()])
def test_what_trying_again_does_not_mend_reaches_everyone(error: Exception) -> None:
    """Nobody waits forever for a hub that has given up; whoever comes later makes it look again."""

    async def work() -> None:
        store = Store({"a": 1.0, "b": 1.0})
        store.error = error
        hub = hub_on(store)
        found = await asyncio.gather(wait_for(hub, "a"), wait_for(hub, "b"), return_exceptions=True)
        assert found == [error, error]
        store.error = None
        verdict, _ = await wait_for(hub, "a")
        assert verdict.state is WaitState.COMPLETE
        hub.close()

    run(work)


def test_an_unknown_submission_is_no_wait() -> None:
    """It is an error at the first look."""

    async def work() -> None:
        hub = hub_on(Store({}))
        verdict, at = await wait_for(hub, "s")
        assert (verdict.state, verdict.reason, at) == (WaitState.FAILED, "unknown_submission", 0.0)
        hub.close()

    run(work)


async def test_those_who_share_a_store_share_a_hub() -> None:
    """It is opened for the first and left after the last; another key is another hub."""
    store, other = ThreadStore(), ThreadStore()

    async def wait(store: ThreadStore, key: str) -> WaitingHub:
        async with shared_hub(key, store.open, tick_seconds=0.01) as hub, hub.waiting("s") as waiting:
            await waiting.over(POLICY)
            return hub

    hubs = await asyncio.gather(*(wait(store, "one") for _ in range(20)), wait(other, "two"))
    assert len(set(map(id, hubs[:20]))) == 1
    assert hubs[20] is not hubs[0]
    await asyncio.to_thread(store.was_left.wait, 10)
    assert (store.entered, store.left, other.entered) == (1, 1, 1)
    assert await wait(store, "one") is not hubs[0]
    assert store.entered == 2


def test_each_event_loop_has_its_own_hub() -> None:
    """What belongs to a loop that is gone is not handed to the next."""
    store = ThreadStore()

    async def wait() -> None:
        async with shared_hub("one", store.open, tick_seconds=0.01) as hub, hub.waiting("s") as waiting:
            verdict = await waiting.over(POLICY)
            assert verdict.state is WaitState.COMPLETE

    for _ in range(3):
        asyncio.run(wait())
    assert store.entered == 3


class ThreadStore:
    """Always done; counts how often it was opened and left."""

    def __init__(self) -> None:
        self.entered = self.left = 0
        self.was_left = threading.Event()

    @contextmanager
    def open(self) -> Iterator[ThreadStore]:
        self.entered += 1
        yield self
        self.left += 1
        self.was_left.set()

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        return dict.fromkeys(submissions, DONE)
