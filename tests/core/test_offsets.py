"""An offset is committed when everything before it is done, in whatever order that happened."""

from __future__ import annotations

import random

from airflow_provider_ai.core.offsets import Offsets


def taken(*numbers: int) -> Offsets:
    offsets = Offsets()
    assert all(offsets.take(number) for number in numbers)
    return offsets


def test_it_moves_over_what_is_done_without_a_gap() -> None:
    """What is done behind a gap waits for the gap to close."""
    offsets = taken(4, 5, 6, 7)
    assert offsets.done(6) is None
    assert offsets.done(4) == 5
    assert offsets.done(5) == 7
    assert offsets.done(7) == 8


def test_offsets_that_the_topic_skips_are_no_gap() -> None:
    """Compaction and transactions leave holes."""
    offsets = taken(1, 10, 11)
    assert offsets.done(1) == 2
    assert offsets.done(10) == 11


def test_what_is_done_twice_or_was_never_taken_changes_nothing() -> None:
    """A second delete is harmless, before and after the commit."""
    offsets = taken(1, 2)
    assert offsets.done(2) is None
    assert offsets.done(2) is None
    assert offsets.done(9) is None
    assert offsets.done(1) == 3
    assert offsets.done(1) is None
    assert offsets.done(2) is None
    assert Offsets().done(0) is None


def test_an_offset_that_came_before_says_that_the_partition_began_anew() -> None:
    """It is not taken."""
    offsets = taken(5, 6)
    assert not offsets.take(6)
    assert not offsets.take(2)
    assert offsets.take(7)


def test_in_any_order_nothing_undone_is_ever_passed(seed: int) -> None:
    """And in the end everything is committed."""
    chance = random.Random(seed)
    numbers = sorted(chance.sample(range(2000), 500))
    offsets = taken(*numbers)
    left, committed = set(numbers), 0
    for number in chance.sample(numbers, len(numbers)):
        left.discard(number)
        committed = offsets.done(number) or committed
        assert not any(each < committed for each in left)
        assert committed == 0 or committed - 1 in numbers
    assert committed == numbers[-1] + 1
