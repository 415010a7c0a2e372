"""Queues in memory: visibility timeouts, redelivery, a redrive policy, and the faults that a real one has."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from airflow_provider_ai.core.job_ports import Delivery, OutgoingMessage, Transport
from airflow_provider_ai.exceptions import MessagesRefusedError, QueueUnavailableError

Clock = Callable[[], float]
_LOOK_AGAIN_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFaults:
    """What goes wrong, and how often. Fractions in ``[0, 1]``.

    :param duplicated: sends that put the message in twice
    :param lost_acks: deletes that are lost, so the message comes again
    :param reordered: receives that take messages in a random order
    :param late_seconds: a message becomes visible up to so much later
    :param random: decides; give a seeded one
    """

    duplicated: float = 0.0
    lost_acks: float = 0.0
    reordered: float = 0.0
    late_seconds: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(0))


@dataclass(slots=True)
class _Kept:
    message: OutgoingMessage
    visible_at: float
    receives: int = 0


class InMemoryQueue:
    """A queue that the threads of one process share. ``available = False`` makes every call raise
    QueueUnavailableError until it is True again.

    :param clock: seconds, for visibility; a wait for messages takes real time whatever the clock says
    :param dead_letters: where a message goes when it would be received more often than ``max_receives``
    """

    def __init__(
        self,
        name: str = "queue",
        *,
        clock: Clock = time.monotonic,
        faults: QueueFaults | None = None,
        max_receives: int | None = None,
        dead_letters: InMemoryQueue | None = None,
        largest_bytes: int = 1024 * 1024,
    ) -> None:
        self.name = name
        self.available = True
        self._clock = clock
        self._faults = faults or QueueFaults()
        self._max_receives = max_receives
        self._dead_letters = dead_letters
        self._largest_bytes = largest_bytes
        self._kept: dict[int, _Kept] = {}
        self._numbers = 0
        self._changed = threading.Condition()

    def send(self, messages: Sequence[OutgoingMessage]) -> Sequence[str]:
        """Send any number; the keys of those that are in."""
        self._require_available()
        refused: dict[str, str] = {}
        sent = []
        with self._changed:
            for message in messages:
                if len(message.body) > self._largest_bytes:
                    refused[message.key] = "it is too large"
                    continue
                copies = 2 if self._strikes(self._faults.duplicated) else 1
                for _ in range(copies):
                    self._put(message)
                sent.append(message.key)
            self._changed.notify_all()
        if refused:
            raise MessagesRefusedError(self.name, refused, sent)
        return sent

    def receive(self, *, most: int, wait_seconds: float, visibility_seconds: float) -> Sequence[Delivery]:
        """Up to ``most`` messages, waiting up to ``wait_seconds`` for the first."""
        self._require_available()
        end = time.monotonic() + wait_seconds
        with self._changed:
            while not (found := self._take(most, visibility_seconds)):
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _LOOK_AGAIN_SECONDS))
        return found

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        """They are done; a stale handle is no error."""
        self._require_available()
        with self._changed:
            for delivery in deliveries:
                if self._held(delivery) is not None and not self._strikes(self._faults.lost_acks):
                    del self._kept[_number(delivery)]

    def extend(self, deliveries: Sequence[Delivery], *, visibility_seconds: float) -> None:
        """Keep them hidden for that long from now; 0 gives them back at once."""
        self._require_available()
        with self._changed:
            for delivery in deliveries:
                kept = self._held(delivery)
                if kept is not None:
                    kept.visible_at = self._clock() + visibility_seconds
            self._changed.notify_all()

    def peek(self, *, most: int) -> Sequence[Delivery]:
        """Up to ``most`` messages that are visible, left as they are."""
        self._require_available()
        with self._changed:
            return [self._delivery(number) for number in self._visible()[:most]]

    def depth(self) -> int:
        """How many messages it holds."""
        self._require_available()
        with self._changed:
            return len(self._kept)

    def close(self) -> None:
        """Nothing to let go."""

    def _put(self, message: OutgoingMessage) -> None:
        self._numbers += 1
        late = self._faults.random.uniform(0, self._faults.late_seconds)
        self._kept[self._numbers] = _Kept(message, self._clock() + message.delay_seconds + late)

    def _take(self, most: int, visibility_seconds: float) -> list[Delivery]:
        found: list[Delivery] = []
        for number in self._in_some_order(self._visible()):
            if len(found) == most:
                break
            kept = self._kept[number]
            if self._max_receives is not None and kept.receives >= self._max_receives:
                self._bury(number)
                continue
            kept.receives += 1
            kept.visible_at = self._clock() + visibility_seconds
            found.append(self._delivery(number))
        return found

    def _visible(self) -> list[int]:
        now = self._clock()
        return [number for number, kept in self._kept.items() if kept.visible_at <= now]

    def _in_some_order(self, numbers: list[int]) -> list[int]:
        if self._strikes(self._faults.reordered):
            self._faults.random.shuffle(numbers)
        return numbers

    def _bury(self, number: int) -> None:
        message = self._kept.pop(number).message
        if self._dead_letters is not None:
            self._dead_letters.send([message])

    def _delivery(self, number: int) -> Delivery:
        kept = self._kept[number]
        message = kept.message
        handle = (number, kept.receives)
        return Delivery(body=message.body, attributes=dict(message.attributes), receives=kept.receives, handle=handle)

    def _held(self, delivery: Delivery) -> _Kept | None:
        """The message of a delivery, unless it was delivered again since."""
        kept = self._kept.get(_number(delivery))
        return kept if kept is not None and (_number(delivery), kept.receives) == delivery.handle else None

    def _strikes(self, fraction: float) -> bool:
        return self._faults.random.random() < fraction

    def _require_available(self) -> None:
        if not self.available:
            raise QueueUnavailableError(f"{self.name} is down")


def _number(delivery: Delivery) -> int:
    assert isinstance(delivery.handle, tuple)  # noqa: S101 - for the type checker: we made it
    return int(delivery.handle[0])


class InMemoryTransport(Transport):
    """Three queues; a request that is received too often becomes a dead letter.

    :param max_receives: None for no such policy
    """

    def __init__(
        self, *, clock: Clock = time.monotonic, faults: QueueFaults | None = None, max_receives: int | None = None
    ) -> None:
        dead = InMemoryQueue("dead-letters", clock=clock)
        requests = InMemoryQueue("requests", clock=clock, faults=faults, max_receives=max_receives, dead_letters=dead)
        super().__init__(
            requests=requests, results=InMemoryQueue("results", clock=clock, faults=faults), dead_letters=dead
        )
