"""A topic of Kafka as a queue: keyed by job id, each partition consumed by one member of the group at a time.

Kafka hides nothing and takes nothing back, so the visibility timeout is kept here, among the messages this process has
fetched; what is given back is sent again, at the topic's end. Offsets are committed after ``delete``, without gaps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.queues.kafka_consumption import DELAY_HEADER, Consumption, Handle, headers_of
from airflow_provider_ai.adapters.queues.kafka_service import KafkaService, explained
from airflow_provider_ai.core.job_ports import Delivery, OutgoingMessage
from airflow_provider_ai.exceptions import MessagesRefusedError, QueueError, QueueUnavailableError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition

_UNFIT = ("MSG_SIZE_TOO_LARGE", "INVALID_MSG_SIZE", "INVALID_RECORD", "RECORD_LIST_TOO_LARGE")
_PATIENCE_SECONDS = 2.0  # on top of librdkafka's own timeout, to be told its outcome
log = logging.getLogger(__name__)


class KafkaQueue:
    """One topic; thread-safe. It joins its consumer group when it first receives."""

    def __init__(self, service: KafkaService, name: str) -> None:
        self.name = name
        self._service = service
        self._seconds = service.settings.call_timeout_seconds
        self._lock = threading.Lock()
        self._partitions: list[int] = []
        self._consumption: Consumption | None = None
        self._onlooker: Consumer | None = None

    def __repr__(self) -> str:
        return f"<KafkaQueue {self.name}>"

    def send(self, messages: Sequence[OutgoingMessage]) -> Sequence[str]:
        """Send any number, and wait until all replicas in sync have them.

        :returns: the keys of those that are in; others may be sent again
        :raises QueueUnavailableError: when none could be sent
        :raises MessagesRefusedError: when Kafka never takes some of them; all others were sent
        """
        sending = self._produce([(each.key.encode(), each.body, _headers(each)) for each in messages])
        refused = {
            messages[number].key: f"Kafka says {error.name()}"
            for number, error in sending.failed.items()
            if error.name() in _UNFIT
        }
        sent = [messages[number].key for number in sorted(sending.sent)]
        if refused:
            raise MessagesRefusedError(self.name, refused, sent)
        if len(sent) < len(messages):
            error = sending.error(self.name)
            if not sent:
                raise error
            log.warning("%d of %d messages are left to send: %s", len(messages) - len(sent), len(messages), error)
        return sent

    def receive(self, *, most: int, wait_seconds: float, visibility_seconds: float) -> Sequence[Delivery]:
        """Up to ``most`` messages of the partitions that this process has; the first time it joins the group.

        :raises QueueUnavailableError: when there is none because no broker answers
        """
        consumption = self._consuming()
        found = consumption.take(most, wait_seconds, visibility_seconds)
        if not found and consumption.suspect:
            self._service.partitions(self.name)
            consumption.suspect = False
        return [taken.delivery() for taken in found]

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        """They are done; those of a partition that was taken away come to its new owner."""
        consumption = self._consumption
        if consumption is not None:
            consumption.done(_handles(deliveries))

    def extend(self, deliveries: Sequence[Delivery], *, visibility_seconds: float) -> None:
        """Keep them hidden for that long from now; with 0 they are sent again, then marked as done.

        :raises QueueUnavailableError: when they cannot be sent; they are still in hand then
        """
        consumption = self._consumption
        if consumption is None:
            return
        if visibility_seconds > 0:
            consumption.hide(_handles(deliveries), visibility_seconds)
            return
        back = consumption.held(_handles(deliveries))
        sending = self._produce([(taken.key, taken.body, taken.attributes) for taken in back])
        consumption.done([back[number].handle for number in sending.sent])
        if len(sending.sent) < len(back):
            raise sending.error(self.name)

    def peek(self, *, most: int) -> Sequence[Delivery]:
        """Up to ``most`` messages from the committed offsets on, read beside the group."""
        with self._looking() as onlooker:
            found: list[Delivery] = []
            for part, end in self._unread(onlooker):
                found += self._read(onlooker, part, end, most - len(found))
        return found

    def depth(self) -> int:
        """How many messages are behind the committed offsets; those that are done beyond a gap count, too."""
        with self._looking() as onlooker:
            return sum(end - part.offset for part, end in self._unread(onlooker))

    def close(self) -> None:
        """Commit, leave the group, let connections go; undeleted deliveries come again."""
        with self._lock:
            consumption, self._consumption = self._consumption, None
            onlooker, self._onlooker = self._onlooker, None
        if consumption is not None:
            consumption.close(self._seconds + _PATIENCE_SECONDS)
        if onlooker is not None:
            onlooker.close()
        self._service.close()

    # --- sending and receiving

    def _produce(self, messages: Sequence[tuple[bytes | None, bytes, dict[str, str]]]) -> _Sending:
        from confluent_kafka import KafkaException

        sending = _Sending()
        if messages:
            self._known_partitions()
        for number, (key, body, headers) in enumerate(messages):
            try:
                self._service.produce(
                    self.name, key=key, value=body, headers=headers, on_delivery=sending.expecting(number)
                )
            except KafkaException as error:
                sending.report(number, error.args[0])
            except BufferError:
                sending.forget(number)
                break
        sending.wait(self._seconds + _PATIENCE_SECONDS)
        return sending

    def _known_partitions(self) -> list[int]:
        if not self._partitions:
            self._partitions = self._service.partitions(self.name)
        return self._partitions

    def _consuming(self) -> Consumption:
        self._known_partitions()
        with self._lock:
            if self._consumption is None or not self._consumption.alive:
                self._consumption = Consumption(self._service, self.name)
            return self._consumption

    # --- looking on

    @contextmanager
    def _looking(self) -> Iterator[Consumer]:
        """A consumer that is no member of the group and commits nothing; one thread at a time."""
        from confluent_kafka import KafkaException

        self._partitions = self._service.partitions(self.name)
        with self._lock:
            if self._onlooker is None:
                self._onlooker = self._service.consumer(self.name, **{"enable.auto.commit": False})
            try:
                yield self._onlooker
            except KafkaException as error:
                raise explained(self.name, error.args[0]) from None

    def _unread(self, onlooker: Consumer) -> list[tuple[TopicPartition, int]]:
        """Each partition from the first offset that is not committed, and its end."""
        from confluent_kafka import TopicPartition

        parts = [TopicPartition(self.name, partition) for partition in self._partitions]
        found = []
        for part in onlooker.committed(parts, timeout=self._seconds):
            first, end = onlooker.get_watermark_offsets(part, timeout=self._seconds)
            found.append((TopicPartition(self.name, part.partition, max(first, part.offset)), end))
        return found

    def _read(self, onlooker: Consumer, part: TopicPartition, end: int, most: int) -> list[Delivery]:
        found: list[Delivery] = []
        if most <= 0 or part.offset >= end:
            return found
        onlooker.assign([part])
        give_up = time.monotonic() + self._seconds
        while len(found) < most and time.monotonic() < give_up:
            message: Any = onlooker.poll(0.1)
            if message is None or message.error() is not None:
                continue
            found.append(_seen(message))
            if message.offset() >= end - 1:
                break
        onlooker.unassign()
        return found


class _Sending:
    """How a send is going; librdkafka tells it in a thread of its own."""

    def __init__(self) -> None:
        self.sent: set[int] = set()
        self.failed: dict[int, KafkaError] = {}
        self._expected: set[int] = set()
        self._changed = threading.Condition()

    def expecting(self, number: int) -> Any:
        """What to call with the outcome of a message."""
        with self._changed:
            self._expected.add(number)
        return lambda error, _: self.report(number, error)

    def forget(self, number: int) -> None:
        """It was not handed over after all."""
        with self._changed:
            self._expected.discard(number)

    def report(self, number: int, error: KafkaError | None) -> None:
        """The outcome of a message."""
        with self._changed:
            self._expected.discard(number)
            if error is None:
                self.sent.add(number)
            else:
                self.failed[number] = error
            if not self._expected:
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until every outcome is known, but no longer than that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._expected, seconds)

    def error(self, queue: str) -> QueueError:
        """Why some are not in."""
        errors = [explained(queue, error) for error in self.failed.values()]
        refusals = [error for error in errors if not isinstance(error, QueueUnavailableError)]
        unknown = QueueUnavailableError(f"{queue}: Kafka does not answer; a retry can help")
        return (refusals + errors + [unknown])[0]


def _headers(message: OutgoingMessage) -> dict[str, str]:
    headers = dict(message.attributes)
    if message.delay_seconds > 0:
        headers[DELAY_HEADER] = f"{time.time() + message.delay_seconds:.3f}"
    return headers


def _handles(deliveries: Sequence[Delivery]) -> list[Handle]:
    return [delivery.handle for delivery in deliveries if isinstance(delivery.handle, Handle)]


def _seen(message: Any) -> Delivery:
    attributes = headers_of(message)
    attributes.pop(DELAY_HEADER, None)
    return Delivery(body=message.value() or b"", attributes=attributes, receives=0, handle=None)
