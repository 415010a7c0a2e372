"""Threads that write at the same moment share a commit, and each gets its own answer or error."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_ai.adapters.store.group_commit import GroupCommit
from airflow_provider_ai.exceptions import StoreError, StoreUnavailableError
from tests.support.processes import wait_until


class Writer:
    """Doubles its items; ``hold`` keeps it writing. Item 13 is refused, and -1 ends the thread."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.down = False

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.hold.wait(30)
        if self.down:
            raise StoreUnavailableError("down")
        if 13 in items:
            raise StoreError("unlucky")
        if -1 in items:
            raise KeyboardInterrupt
        return [2 * item for item in items]


@pytest.fixture
def writer() -> Writer:
    return Writer()


def outcome(write: GroupCommit[int, int], item: int) -> Any:
    try:
        return write(item)
    except BaseException as error:  # noqa: BLE001 - the outcome is what is looked at
        return type(error)


def gathered(writer: Writer, items: Sequence[int], *, most: int = 64) -> list[Any]:
    """The outcomes of threads that come while the first one is writing."""
    write = GroupCommit(writer, most=most)
    writer.hold.clear()
    with ThreadPoolExecutor(len(items)) as threads:
        first = threads.submit(outcome, write, items[0])
        wait_until(lambda: len(writer.batches) == 1, deadline_seconds=30, what="the first one writes")
        others = [threads.submit(outcome, write, item) for item in items[1:]]
        wait_until(lambda: len(write._waiting) == len(others), deadline_seconds=30, what="the others wait")
        writer.hold.set()
        return [first.result(30), *(other.result(30) for other in others)]


def test_alone_nobody_waits(writer: Writer) -> None:
    """One item, one write."""
    write = GroupCommit(writer, most=64)
    assert [write(1), write(2)] == [2, 4]
    assert writer.batches == [[1], [2]]


def test_those_who_come_meanwhile_share_a_write(writer: Writer) -> None:
    """Each gets its own answer."""
    assert gathered(writer, range(20, 40)) == [2 * item for item in range(20, 40)]
    assert [len(batch) for batch in writer.batches] == [1, 19]


def test_a_write_has_its_limit(writer: Writer) -> None:
    """What is more goes into the next ones."""
    assert gathered(writer, range(20, 40), most=8) == [2 * item for item in range(20, 40)]
    assert [len(batch) for batch in writer.batches] == [1, 8, 8, 3]


def test_one_bad_item_spoils_nothing(writer: Writer) -> None:
    """Refused together, they are written one by one, and only that one is refused."""
    assert gathered(writer, [1, 2, 13, 3]) == [2, 4, StoreError, 6]


def test_a_store_that_is_down_is_so_for_all(writer: Writer) -> None:
    """Nobody tries it again for each of them; later it works again."""
    writer.down = True
    assert set(gathered(writer, range(20, 26))) == {StoreUnavailableError}
    assert len(writer.batches) == 2
    writer.down = False
    assert GroupCommit(writer, most=64)(1) == 2


def test_a_thread_that_is_ended_leaves_nobody_waiting(writer: Writer) -> None:
    """The one that wrote has its own error, the others may come again."""
    outcomes = gathered(writer, [1, 2, -1, 3])
    assert outcomes[0] == 2
    assert sorted(found.__name__ for found in outcomes[1:]) == [
        "KeyboardInterrupt",
        "StoreUnavailableError",
        "StoreUnavailableError",
    ]


def test_a_thread_that_is_ended_while_it_waits(writer: Writer) -> None:
    """By a signal, while another one writes: those who come after it are served."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    write = GroupCommit(writer, most=64)
    writer.hold.clear()
    try:
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(write, 1)
            wait_until(lambda: len(writer.batches) == 1, deadline_seconds=30, what="the first one writes")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                write(2)
            last = threads.submit(write, 3)
            wait_until(lambda: len(write._waiting) == 1, deadline_seconds=30, what="another one waits")
            writer.hold.set()
            assert [first.result(30), last.result(30)] == [2, 6]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert writer.batches == [[1], [3]]
