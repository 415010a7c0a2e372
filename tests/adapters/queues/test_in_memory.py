"""The queues in memory: time passes when a test says so, and things go wrong as often as it asks."""

from __future__ import annotations

import random

import pytest

from airflow_provider_ai.exceptions import QueueUnavailableError
from airflow_provider_ai.testing import InMemoryQueue, InMemoryTransport, QueueFaults
from tests.adapters.queues.conftest import message


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def take(queue: InMemoryQueue, most: int = 1000) -> list[bytes]:
    return [each.body for each in queue.receive(most=most, wait_seconds=0, visibility_seconds=30)]


def test_visibility_follows_the_clock() -> None:
    """To the second."""
    clock = Clock()
    queue = InMemoryQueue(clock=clock)
    queue.send([message(0), message(1, delay_seconds=5)])
    assert take(queue) == [b'{"number":0}']
    clock.now += 5
    assert take(queue) == [b'{"number":1}']
    clock.now += 24.9
    assert take(queue) == []
    clock.now += 0.1
    assert take(queue) == [b'{"number":0}']


def test_a_stale_handle_neither_deletes_nor_hides() -> None:
    """The message is in another hand by then."""
    clock = Clock()
    queue = InMemoryQueue(clock=clock)
    queue.send([message(0)])
    stale = queue.receive(most=1, wait_seconds=0, visibility_seconds=1)
    clock.now += 1
    (again,) = queue.receive(most=1, wait_seconds=0, visibility_seconds=10)
    queue.delete(stale)
    queue.extend(stale, visibility_seconds=1000)
    assert queue.depth() == 1
    clock.now += 10
    assert again.receives == 2
    assert take(queue) == [b'{"number":0}']


def test_faults_strike_as_often_as_asked(seed: int) -> None:
    """Twice in, back after a delete, out of order: each by its fraction."""
    faults = QueueFaults(duplicated=0.3, lost_acks=0.3, reordered=1.0, random=random.Random(seed))
    clock = Clock()
    queue = InMemoryQueue(clock=clock, faults=faults)
    queue.send([message(number) for number in range(1000)])
    assert 1200 < queue.depth() < 1400
    bodies = take(queue, 5000)
    assert bodies != sorted(bodies, key=lambda body: int(body[10:-1]))
    clock.now += 30
    before = queue.depth()
    queue.delete(queue.receive(most=5000, wait_seconds=0, visibility_seconds=30))
    assert 0.2 < queue.depth() / before < 0.4


def test_late_messages_come_later(seed: int) -> None:
    """By up to so much."""
    clock = Clock()
    queue = InMemoryQueue(clock=clock, faults=QueueFaults(late_seconds=10, random=random.Random(seed)))
    queue.send([message(number) for number in range(100)])
    assert len(take(queue)) < 30
    clock.now += 10
    assert queue.depth() == 100
    assert len(take(queue)) > 70


def test_a_transport_that_has_a_redrive_policy_keeps_it() -> None:
    """After so many deliveries a request is a dead letter, body and attributes as they were."""
    clock = Clock()
    transport = InMemoryTransport(clock=clock, max_receives=2)
    transport.requests.send([message(0, attributes={"a": "b"})])
    for _ in range(2):
        (found,) = transport.requests.receive(most=1, wait_seconds=0, visibility_seconds=1)
        clock.now += 1
    assert transport.requests.receive(most=1, wait_seconds=0, visibility_seconds=1) == []
    (dead,) = transport.dead_letters.receive(most=1, wait_seconds=0, visibility_seconds=1)
    assert (dead.body, dead.attributes) == (found.body, {"a": "b"})


def test_a_queue_that_is_down_says_so_and_has_lost_nothing() -> None:
    """For every call."""
    queue = InMemoryQueue()
    queue.send([message(0)])
    queue.available = False
    for work in (lambda: queue.send([]), queue.depth, lambda: take(queue), lambda: queue.delete([])):
        with pytest.raises(QueueUnavailableError):
            work()
    queue.available = True
    assert len(take(queue)) == 1
