"""What a process consumes of a topic: fetched by a thread of its own, handed out with a visibility timeout.

The thread polls all the time, however long a job takes, so the group never thinks it dead (``max.poll.interval.ms``);
it pauses the partitions while enough is at hand. A partition that is taken away takes its messages along: they are
forgotten here, and a late delete of one of them says nothing.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.queues.kafka_service import KafkaService, explained
from airflow_provider_ai.core.job_ports import Delivery
from airflow_provider_ai.core.offsets import Offsets
from airflow_provider_ai.exceptions import QueueError, QueueUnavailableError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition

DELAY_HEADER = "visible-at"  # epoch seconds
MOST_AHEAD = 256
_POLL_SECONDS = 0.1
_AT_ONCE = 100


@dataclass(frozen=True, slots=True, order=True)
class Handle:
    """Where a message is, and since which assignment of its partition."""

    partition: int
    offset: int
    epoch: int


@dataclass(slots=True)
class Taken:
    """A message that is fetched and not done. ``visible_at``: monotonic seconds; until then someone has it."""

    handle: Handle
    key: bytes | None
    body: bytes
    attributes: dict[str, str]
    visible_at: float = 0.0

    def delivery(self) -> Delivery:
        """As a receiver gets it."""
        return Delivery(body=self.body, attributes=dict(self.attributes), receives=0, handle=self.handle)


class Consumption:
    """One consumer and its thread. Thread-safe.

    :ivar suspect: whether something was wrong with the brokers since the last message
    """

    def __init__(self, service: KafkaService, topic: str) -> None:
        self.suspect = False
        self._service = service
        self._topic = topic
        self._changed = threading.Condition()
        self._ready: deque[Taken] = deque()
        self._later: list[tuple[float, Handle, Taken]] = []  # a heap: sent with a delay that is not over
        self._in_hand: dict[Handle, Taken] = {}
        self._assigned: dict[int, tuple[int, Offsets]] = {}
        self._moved: dict[int, int] = {}
        self._epochs = 0
        self._error: QueueError | None = None
        self._paused = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kafka-{topic}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still consumes."""
        return self._thread.is_alive()

    def take(self, most: int, wait_seconds: float, visibility_seconds: float) -> list[Taken]:
        """Up to ``most`` messages for one holder, waiting for the first.

        :raises QueueError: for what the brokers have refused since the last time
        """
        end = time.monotonic() + wait_seconds
        with self._changed:
            while not (found := self._hand_out(most, visibility_seconds)):
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _POLL_SECONDS))
        return found

    def held(self, handles: Iterable[Handle]) -> list[Taken]:
        """Those of them that are still ours."""
        with self._changed:
            return [self._in_hand[handle] for handle in handles if handle in self._in_hand]

    def hide(self, handles: Iterable[Handle], seconds: float) -> None:
        """Keep them from coming again for that long."""
        visible_at = time.monotonic() + seconds
        for taken in self.held(handles):
            taken.visible_at = visible_at

    def done(self, handles: Iterable[Handle]) -> None:
        """They are dealt with. The offsets are committed within a second, or when their partition is given away."""
        with self._changed:
            for handle in handles:
                epoch, offsets = self._assigned.get(handle.partition, (0, None))
                if offsets is None or epoch != handle.epoch:
                    continue
                self._in_hand.pop(handle, None)
                moved = offsets.done(handle.offset)
                if moved is not None:
                    self._moved[handle.partition] = moved

    def close(self, timeout_seconds: float) -> None:
        """Commit, leave the group, and end the thread; it is left behind when the brokers take too long."""
        self._stopping.set()
        self._thread.join(timeout_seconds)

    def _hand_out(self, most: int, visibility_seconds: float) -> list[Taken]:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        found = [taken for taken in self._in_hand.values() if taken.visible_at <= now][:most]
        while self._ready and len(found) < most:
            found.append(self._ready.popleft())
        for taken in found:
            taken.visible_at = now + visibility_seconds
            self._in_hand[taken.handle] = taken
        if found:
            self._changed.notify_all()
        return found

    # --- the thread

    def _run(self) -> None:
        from confluent_kafka import KafkaException

        try:
            consumer = self._service.consumer(self._topic, error_cb=self._on_error)
        except QueueError as error:
            self._fail(error)
            return
        try:
            consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stopping.is_set():
                self._consume(consumer)
        except KafkaException as error:
            self._fail(explained(self._topic, error.args[0]))
        finally:
            self._store(consumer)
            consumer.close()

    def _consume(self, consumer: Consumer) -> None:
        """Fetch what there is, one by one: a rebalance then happens between two messages and never within a batch."""
        self._regulate(consumer)
        message = consumer.poll(_POLL_SECONDS)
        for _ in range(_AT_ONCE):
            if message is None:
                break
            self._accept(message)
            message = consumer.poll(0)
        if message is not None:
            self._accept(message)
        self._store(consumer)

    def _regulate(self, consumer: Consumer) -> None:
        """Pause when there is no room for a while: what is fetched already must be fetched again after a pause."""
        with self._changed:
            if not self._paused:
                self._changed.wait_for(lambda: self._ahead() < MOST_AHEAD or self._stopping.is_set(), _POLL_SECONDS)
            ahead = self._ahead()
        if not self._paused and ahead >= MOST_AHEAD:
            consumer.pause(consumer.assignment())
            self._paused = True
        elif self._paused and ahead <= MOST_AHEAD // 2:
            consumer.resume(consumer.assignment())
            self._paused = False

    def _ahead(self) -> int:
        return len(self._ready) + len(self._later)

    def _accept(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            self._on_error(error)
            return
        self.suspect = False
        partition, offset = message.partition(), message.offset()
        with self._changed:
            if partition not in self._assigned:
                return
            if not self._assigned[partition][1].take(offset):
                self._begin(partition)
                self._assigned[partition][1].take(offset)
            self._keep(message, Handle(partition, offset, self._assigned[partition][0]))
            self._changed.notify()

    def _keep(self, message: Any, handle: Handle) -> None:
        attributes = headers_of(message)
        delay = _delay_left(attributes.pop(DELAY_HEADER, None))
        taken = Taken(handle, message.key(), message.value() or b"", attributes)
        if delay > 0:
            heapq.heappush(self._later, (time.monotonic() + delay, handle, taken))
        else:
            self._ready.append(taken)

    def _store(self, consumer: Consumer) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        with self._changed:
            moved, self._moved = self._moved, {}
        for partition, offset in moved.items():
            try:
                consumer.store_offsets(offsets=[TopicPartition(self._topic, partition, offset)])
            except KafkaException:
                continue  # taken away since: whoever has it now is given these messages again

    def _fail(self, error: QueueError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    # --- told by librdkafka, in the thread

    def _on_error(self, error: KafkaError) -> None:
        said = explained(self._topic, error)
        if isinstance(said, QueueUnavailableError):
            self.suspect = True
        else:
            self._fail(said)

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        with self._changed:
            for each in partitions:
                self._begin(each.partition)
            self._paused = False  # the new ones are not

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._store(consumer)
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        with self._changed:
            for each in partitions:
                self._forget(each.partition)

    def _begin(self, partition: int) -> None:
        self._forget(partition)
        self._epochs += 1
        self._assigned[partition] = (self._epochs, Offsets())

    def _forget(self, partition: int) -> None:
        self._assigned.pop(partition, None)
        self._moved.pop(partition, None)
        self._ready = deque(taken for taken in self._ready if taken.handle.partition != partition)
        self._later = [each for each in self._later if each[1].partition != partition]
        heapq.heapify(self._later)
        for handle in [handle for handle in self._in_hand if handle.partition == partition]:
            del self._in_hand[handle]


def headers_of(message: Any) -> dict[str, str]:
    """The headers of a message as text."""
    return {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()}


def _delay_left(visible_at: str | None) -> float:
    try:
        return 0.0 if visible_at is None else float(visible_at) - time.time()
    except ValueError:
        return 0.0
