"""Slots of a worker, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_provider_ai.patterns.slots import Slots, Turn
from tests.patterns import virtual_time

LONGEST_WAIT_SECONDS = 1.0


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    outcome = virtual_time.Outcome()
    virtual_time.run(main(), outcome)
    return outcome.seconds


async def pass_on(slots: Slots, turns: list[Turn]) -> None:
    """One job ends and the next one begins."""
    turns.pop(0).leave()
    turns.append(slots.line_up())
    assert await turns[-1].comes()


async def busy(slots: Slots, *, job_seconds: float, look_seconds: float, looks: int = 200) -> list[Turn]:
    """Jobs of a length and looks of a length, one after the other, with all of eight slots taken."""
    turns = [slots.line_up() for _ in range(8)]
    ending = max(1, round(8 * look_seconds / job_seconds))  # jobs, in a look
    for _ in range(looks):
        with slots.asking(1):
            await asyncio.sleep(look_seconds)
        await asyncio.sleep(ending * job_seconds / 8 - look_seconds)
        for _ in range(ending):
            await pass_on(slots, turns)
    return turns


def test_what_is_asked_for_takes_room_until_it_has_arrived() -> None:
    """A look for more than there are free slots is never needed; what did not come makes room again."""

    async def main() -> None:
        slots = Slots(3)
        with slots.asking(2):
            assert slots.room == 1
            assert await slots.line_up().comes()
        assert slots.room == 2

    run(main)


@pytest.mark.parametrize(
    ("job_seconds", "look_seconds", "room"),
    [
        (0.8, 0.1, 1),  # 8 slots, 0.8 s: one becomes free in 0.1 s, 1.5 in what is counted on
        (0.4, 0.1, 3),
        (16.0, 0.1, 0),  # handlers that take much longer than a look: nothing is hoarded
        (0.1, 0.1, 4),  # half of the slots and no more
    ],
)
def test_slots_that_will_be_free_when_messages_arrive_are_counted_on(job_seconds, look_seconds, room) -> None:  # type: ignore[no-untyped-def]
    """As many as end their jobs in one and a half looks, half of all slots at most."""

    async def main() -> None:
        slots = Slots(8)
        turns = await busy(slots, job_seconds=job_seconds, look_seconds=look_seconds)
        assert slots.room == room
        slots.count_on_none()
        assert slots.room == 0
        await pass_on(slots, turns)
        assert slots.room == room

    run(main)


def test_none_is_counted_on_after_one_that_did_not_become_free() -> None:
    """Whoever waited in vain for a slot says that handlers take longer than those before."""

    async def main() -> None:
        slots = Slots(8)
        await busy(slots, job_seconds=0.8, look_seconds=0.1)
        assert not await slots.line_up().comes()
        assert slots.room == 0

    run(main)


def test_a_message_waits_for_a_second_and_no_longer() -> None:
    """First come, first served; who waited too long has no slot, and takes none from those behind."""

    async def main() -> None:
        slots = Slots(1)
        has = slots.line_up()
        first = slots.line_up()
        await asyncio.sleep(0.5)
        second = slots.line_up()
        assert slots.room == -2
        assert not await first.comes()
        has.leave()
        assert await second.comes()
        first.leave()
        assert slots.room == 0
        second.leave()
        second.leave()
        assert slots.room == 1

    assert run(main) == pytest.approx(LONGEST_WAIT_SECONDS)


def test_whoever_leaves_the_line_is_passed_over() -> None:
    """Its slot goes to the next one, and there is room for another."""
    news = []

    async def main() -> None:
        slots = Slots(1, on_room=lambda: news.append(slots.room))
        has, gone, stays = slots.line_up(), slots.line_up(), slots.line_up()
        gone.leave()
        has.leave()
        assert await stays.comes()

    run(main)
    assert news == [-1, 0]


def test_slots_are_neither_lost_nor_invented(seed: int) -> None:
    """Whatever is taken, left and cancelled: in the end all slots are free, and never more were taken."""
    numbers = random.Random(seed)
    taken = peak = 0

    async def one(slots: Slots) -> None:
        nonlocal taken, peak
        await asyncio.sleep(numbers.random() * 3)
        turn = slots.line_up()
        try:
            if await turn.comes():
                taken += 1
                peak = max(peak, taken)
                try:
                    await asyncio.sleep(numbers.random())
                finally:
                    taken -= 1
        finally:
            turn.leave()

    async def main() -> None:
        slots = Slots(4)
        tasks = [asyncio.create_task(one(slots)) for _ in range(60)]
        for task in numbers.sample(tasks, 20):
            asyncio.get_running_loop().call_later(numbers.random() * 4, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.room == 4

    run(main)
    assert peak == 4
