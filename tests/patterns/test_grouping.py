"""Natural batching, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.patterns.grouping import Grouped
from tests.patterns import virtual_time

CALL_SECONDS = 1.0


class Doubling:
    """Work that takes a second and doubles; it keeps what it was asked."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.under_way = self.peak = 0

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        await asyncio.sleep(CALL_SECONDS)
        self.under_way -= 1
        return [2 * item for item in items]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    outcome = virtual_time.Outcome()
    virtual_time.run(main(), outcome)
    return outcome.seconds


@given(
    arrivals=st.lists(st.floats(0, 10), min_size=1, max_size=60),
    most=st.integers(1, 12),
    lanes=st.integers(1, 4),
)
def test_everyone_gets_their_own_result_once(arrivals: list[float], most: int, lanes: int) -> None:
    """Whatever the arrivals: each item is in one group, groups and lanes stay within their limits."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=most, lanes=lanes)

        async def ask(item: int, at: float) -> None:
            await asyncio.sleep(at)
            assert await grouped(item) == 2 * item

        await asyncio.gather(*(ask(item, at) for item, at in enumerate(arrivals)))

    run(main)
    asked = [item for group in work.groups for item in group]
    assert sorted(asked) == list(range(len(arrivals)))
    assert max(map(len, work.groups)) <= most
    assert work.peak <= lanes


def test_what_comes_while_a_call_runs_goes_out_in_the_next_one() -> None:
    """A lone item goes at once; those that come meanwhile are one group, in their order."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=10)
        first = asyncio.create_task(grouped(0))
        await asyncio.sleep(0.5)
        await asyncio.gather(first, *(grouped(item) for item in (1, 2, 3)))

    assert run(main) == 2 * CALL_SECONDS
    assert work.groups == [[0], [1, 2, 3]]


def test_a_failed_call_fails_its_own_group_only() -> None:
    """Each caller of the group gets the error, and the next group goes out as ever."""
    calls = 0

    async def work(items: Sequence[int]) -> Sequence[int]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(CALL_SECONDS)
        if calls == 1:
            raise ConnectionError
        return items

    async def main() -> None:
        grouped = Grouped(work, most=2)
        results = await asyncio.gather(*(grouped(item) for item in range(4)), return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionError, ConnectionError, int, int]

    run(main)


def test_a_wrong_number_of_results_is_an_error_and_no_mix_up() -> None:
    """Results are never given to the wrong caller."""

    async def work(items: Sequence[int]) -> Sequence[int]:
        return items[1:]

    async def main() -> None:
        grouped = Grouped(work, most=10)
        results = await asyncio.gather(*(grouped(item) for item in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError] * 3

    run(main)


def test_a_cancelled_caller_is_left_out_of_its_group() -> None:
    """Nobody pays for an item that nobody waits for; the others are not disturbed."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=10)
        first = asyncio.create_task(grouped(0))
        await asyncio.sleep(0.1)
        gone, stays = asyncio.create_task(grouped(1)), asyncio.create_task(grouped(2))
        await asyncio.sleep(0.1)
        gone.cancel()
        assert await stays == 4
        assert await first == 0

    run(main)
    assert work.groups == [[0], [2]]


def test_a_caller_that_goes_while_its_call_runs_disturbs_nobody() -> None:
    """The others of the group still get their results."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=10)
        gone, stays = asyncio.create_task(grouped(1)), asyncio.create_task(grouped(2))
        await asyncio.sleep(0.1)
        gone.cancel()
        assert await stays == 4
        with pytest.raises(asyncio.CancelledError):
            await gone

    run(main)


def test_whoever_asks_again_as_soon_as_it_has_its_result_is_not_forgotten() -> None:
    """It asks in the very turn of the loop in which the lane has found nothing more to do."""

    async def work(items: Sequence[int]) -> Sequence[int]:
        return items

    async def main() -> None:
        grouped = Grouped(work, most=10)
        assert [await grouped(item) for item in range(5)] == [0, 1, 2, 3, 4]

    run(main)


def test_a_busy_lane_lingers_for_a_full_group_and_a_lone_item_for_nobody() -> None:
    """After a call it waits for as many as a call carries, and goes when they are there."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=10, full=3, linger_seconds=0.5)
        lone = asyncio.create_task(grouped(0))
        await asyncio.sleep(0.9)
        early = asyncio.create_task(grouped(1))
        await lone  # at 1.0: one waits, so the lane lingers
        await asyncio.sleep(0.2)
        await asyncio.gather(early, grouped(2), grouped(3))  # full at 1.2
        await grouped(4)  # nobody waited when the lane was done: a new one, at once

    assert run(main) == pytest.approx(1.2 + CALL_SECONDS + CALL_SECONDS)
    assert work.groups == [[0], [1, 2, 3], [4]]


def test_a_group_that_does_not_fill_goes_when_the_lane_has_lingered() -> None:
    """Nobody waits longer than that."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=10, full=3, linger_seconds=0.5)
        await asyncio.gather(grouped(0), _later(0.5, grouped, 1))

    assert run(main) == pytest.approx(CALL_SECONDS + 0.5 + CALL_SECONDS)
    assert work.groups == [[0], [1]]


def test_a_large_group_is_a_multiple_of_what_a_call_carries() -> None:
    """The rest goes with those that come next."""
    work = Doubling()

    async def main() -> None:
        grouped = Grouped(work, most=100, full=10, linger_seconds=0.5)
        first = asyncio.create_task(grouped(0))
        await asyncio.sleep(0.5)
        await asyncio.gather(first, *(grouped(item) for item in range(1, 26)))

    run(main)
    assert [len(group) for group in work.groups] == [1, 20, 5]


async def _later(seconds: float, grouped: Grouped[int, int], item: int) -> int:
    await asyncio.sleep(seconds)
    return await grouped(item)
