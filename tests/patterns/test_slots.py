"""Slots of a worker, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_provider_ai.patterns.slots import Slots
from tests.patterns import virtual_time


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    outcome = virtual_time.Outcome()
    virtual_time.run(main(), outcome)
    return outcome.seconds


def test_what_is_asked_for_takes_room_until_it_has_arrived() -> None:
    """A look for more than there are free slots is never needed; what did not come makes room again."""

    async def main() -> None:
        slots = Slots(3)
        with slots.asking(2):
            assert slots.room == 1
            assert slots.take(within_seconds=1).result()
        assert slots.room == 2

    run(main)


async def busy(slots: Slots, *, job_seconds: float, look_seconds: float, rounds: int = 200) -> None:
    """Jobs of a length and looks of a length, one after the other, with all slots taken."""
    for _ in range(8):
        slots.take(within_seconds=99)
    ending = max(1, round(8 * look_seconds / job_seconds))  # jobs, in a look
    for _ in range(rounds):
        with slots.asking(1):
            await asyncio.sleep(look_seconds)
        await asyncio.sleep(ending * job_seconds / 8 - look_seconds)
        for _ in range(ending):
            slots.give()
            slots.take(within_seconds=99)


@pytest.mark.parametrize(
    ("job_seconds", "look_seconds", "room"),
    [
        (0.8, 0.1, 1),  # 8 slots, 0.8 s: one becomes free in 0.1 s, 1.5 in what is counted on
        (0.5, 0.0625, 1),
        (16.0, 0.1, 0),  # handlers that take much longer than a look: nothing is hoarded
        (0.08, 0.1, 4),  # shorter than a look: half of the slots and no more
    ],
)
def test_slots_that_will_be_free_when_messages_arrive_are_counted_on(job_seconds, look_seconds, room) -> None:  # type: ignore[no-untyped-def]
    """As many as end their jobs in one and a half looks, half of all slots at most."""

    async def main() -> None:
        slots = Slots(8)
        await busy(slots, job_seconds=job_seconds, look_seconds=look_seconds)
        assert slots.room == room
        slots.count_on_none()
        assert slots.room == 0
        slots.give()
        slots.take(within_seconds=1)
        assert slots.room == room

    run(main)


def test_none_is_counted_on_after_one_that_did_not_become_free() -> None:
    """Whoever waited in vain for a slot says that handlers take longer than those before."""

    async def main() -> None:
        slots = Slots(8)
        await busy(slots, job_seconds=0.8, look_seconds=0.1)
        assert not await slots.take(within_seconds=1)
        assert slots.room == 0

    run(main)


def test_a_message_waits_for_a_slot_as_long_as_it_may() -> None:
    """First come, first served; who waited too long has no slot, and takes none from those behind."""

    async def main() -> None:
        slots = Slots(1)
        assert await slots.take(within_seconds=1)
        first, second = slots.take(within_seconds=1), slots.take(within_seconds=3)
        assert slots.room == -2
        assert not await first
        slots.give()
        assert await second
        slots.give()
        assert slots.room == 1

    assert run(main) == pytest.approx(1)


def test_whoever_is_cancelled_while_waiting_is_passed_over() -> None:
    """Its slot goes to the next one."""

    async def main() -> None:
        slots = Slots(1)
        slots.take(within_seconds=9)
        gone, stays = slots.take(within_seconds=9), slots.take(within_seconds=9)
        gone.cancel()
        slots.give()
        assert stays.done()
        assert await stays

    run(main)


def test_slots_are_neither_lost_nor_invented(seed: int) -> None:
    """Whatever is taken, given and given up: in the end all slots are free, and never more were taken."""
    numbers = random.Random(seed)
    taken = peak = 0

    async def one(slots: Slots) -> None:
        nonlocal taken, peak
        await asyncio.sleep(numbers.random() * 3)
        if not await slots.take(within_seconds=numbers.random()):
            return
        taken += 1
        peak = max(peak, taken)
        await asyncio.sleep(numbers.random())
        taken -= 1
        slots.give()

    async def main() -> None:
        slots = Slots(4)
        tasks = [asyncio.create_task(one(slots)) for _ in range(60)]
        await asyncio.gather(*tasks)
        assert slots.room == 4

    run(main)
    assert peak == 4
