"""A queue of SQS, standard or FIFO.

A call of botocore costs about a millisecond of CPU however much it carries, so everything is done by tens. The parts of
a batch succeed and fail one by one: what failed for SQS's own reasons is tried again, and what is still not in is
left to the caller, who knows it by its key.
"""

from __future__ import annotations

import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_ai.adapters.queues.sqs_messages import (
    Entry,
    UnfitMessageError,
    batches_of,
    chunks,
    delivery_of,
    entry_of,
)
from airflow_provider_ai.adapters.queues.sqs_service import (
    LONGEST_POLL_SECONDS,
    RefusedCallError,
    SqsService,
    word_of,
)
from airflow_provider_ai.core.job_ports import Delivery, OutgoingMessage
from airflow_provider_ai.exceptions import MessagesRefusedError, QueueError, QueueUnavailableError

T = TypeVar("T")
BATCH = 10
LONGEST_VISIBILITY_SECONDS = 12 * 3600
_PEEK_VISIBILITY_SECONDS = 60
_TRIES = 3
_PAUSE_SECONDS = 0.2
_SENDERS = 8
_COUNTS = ("", "NotVisible", "Delayed")
_STALE = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})
_OURS = re.compile("Invalid.*|Missing.*|Unsupported.*")  # LocalStack calls these no fault of the sender
_NO_GROUPS = frozenset({"InvalidParameterValue", "InvalidParameterCombination", "UnsupportedOperation"})
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sending:
    """How a send is going; shared by the threads that carry it out."""

    sent: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    error: QueueError | None = None


class SqsQueue:
    """One queue; thread-safe.

    :param name: of the queue, not its URL
    :param fifo: whether it is a FIFO queue
    """

    def __init__(self, service: SqsService, name: str, *, fifo: bool = False) -> None:
        self.name = name
        self._service = service
        self._fifo = fifo
        self._fair = True
        self._known_url: str | None = None
        self._lock = threading.Lock()
        self._senders: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<SqsQueue {self.name}>"

    def send(self, messages: Sequence[OutgoingMessage]) -> Sequence[str]:
        """Send any number, by tens; batches of a standard queue go out side by side.

        :returns: the keys of those that are in; others may be sent again
        :raises QueueUnavailableError: when none could be sent
        :raises MessagesRefusedError: when SQS never takes some of them; all others were sent
        """
        sending = _Sending()
        entries = []
        for message in messages:
            try:
                entries.append(entry_of(message, fifo=self._fifo))
            except UnfitMessageError as error:
                sending.refused[message.key] = str(error)
        self._each(lambda batch: self._send_batch(batch, sending), list(batches_of(entries)))
        if sending.error is not None and not sending.sent:
            raise sending.error
        sent = [message.key for message in messages if message.key in sending.sent]
        if sending.refused:
            raise MessagesRefusedError(self.name, sending.refused, sent)
        if sending.error is not None:
            left = len(messages) - len(sent)
            log.warning("%d of %d messages are left to send: %s", left, len(messages), sending.error)
        return sent

    def receive(self, *, most: int, wait_seconds: float, visibility_seconds: float) -> Sequence[Delivery]:
        """Up to ``most`` messages; SQS hands out ten at a time and waits in whole seconds.

        :raises QueueUnavailableError: when there is no answer ``call_timeout_seconds`` after the wait
        """
        wait = min(LONGEST_POLL_SECONDS, math.ceil(max(0.0, wait_seconds)))
        found = self._receive(min(most, BATCH), wait, visibility_seconds)
        last = len(found)
        while last == BATCH and len(found) < most:
            try:
                more = self._receive(min(most - len(found), BATCH), 0, visibility_seconds)
            except QueueError:
                break  # those in hand come first; the next call says what is wrong
            found += more
            last = len(more)
        return found

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        """They are done; a stale receipt handle is no error.

        :raises QueueUnavailableError: when some may come again though their handles are not stale
        """
        entries = [{"ReceiptHandle": delivery.handle} for delivery in deliveries]
        self._change("delete_message_batch", entries)

    def extend(self, deliveries: Sequence[Delivery], *, visibility_seconds: float) -> None:
        """Keep them hidden for that long from now, at most 12 hours in all; 0 gives them back at once."""
        seconds = _visibility(visibility_seconds)
        entries = [{"ReceiptHandle": delivery.handle, "VisibilityTimeout": seconds} for delivery in deliveries]
        self._change("change_message_visibility_batch", entries)

    def peek(self, *, most: int) -> Sequence[Delivery]:
        """Up to ``most`` messages, given back at once; it counts as a delivery of each, and hides them meanwhile."""
        found: list[Delivery] = []
        try:
            while len(found) < most:
                more = self._receive(min(most - len(found), BATCH), 1, _PEEK_VISIBILITY_SECONDS)
                if not more:
                    break
                found += more
        finally:
            self.extend(found, visibility_seconds=0)
        return found

    def depth(self) -> int:
        """Roughly how many messages it holds: visible, hidden and delayed."""
        names = [f"ApproximateNumberOfMessages{count}" for count in _COUNTS]
        answer = self._call("get_queue_attributes", AttributeNames=names)
        return sum(int(answer.get("Attributes", {}).get(name, 0)) for name in names)

    def close(self) -> None:
        """Let connections go; undeleted deliveries come again."""
        with self._lock:
            senders, self._senders = self._senders, None
        if senders is not None:
            senders.shutdown(wait=False, cancel_futures=True)
        self._service.close()

    # --- sending

    def _send_batch(self, batch: list[Entry], sending: _Sending) -> None:
        """Send a batch, and what SQS failed to take again; the outcome is in ``sending``."""
        for attempt in range(_TRIES):
            if sending.error is not None:
                return
            if attempt:
                time.sleep(random.uniform(0.5, 1.5) * _PAUSE_SECONDS * 2**attempt)
            try:
                batch = self._try_batch(batch, sending)
            except QueueError as error:
                sending.error = error
                return
            if not batch:
                return
        sending.error = QueueUnavailableError(f"{self.name}: SQS keeps failing on some messages; a retry can help")

    def _try_batch(self, batch: list[Entry], sending: _Sending) -> list[Entry]:
        """Send a batch once; what may be tried again."""
        try:
            answer = self._call("send_message_batch", Entries=_numbered(self._fields(entry) for entry in batch))
        except RefusedCallError as error:
            if self._gives_up_groups(batch, error.word):
                return self._try_batch(batch, sending)
            raise
        sending.sent.update(batch[int(done["Id"])].key for done in answer.get("Successful", ()))
        again = []
        for failed in answer.get("Failed", ()):
            entry, word = batch[int(failed["Id"])], word_of(failed.get("Code"))
            if self._gives_up_groups([entry], word) or not (failed.get("SenderFault") or _OURS.fullmatch(word)):
                again.append(entry)
            else:
                sending.refused[entry.key] = f"SQS says {word}"
        return again

    def _fields(self, entry: Entry) -> dict[str, Any]:
        if self._fair or self._fifo or "MessageGroupId" not in entry.fields:
            return entry.fields
        return {name: value for name, value in entry.fields.items() if name != "MessageGroupId"}

    def _gives_up_groups(self, batch: Sequence[Entry], word: str) -> bool:
        """Whether a service that knows no fair queues should be asked again without the group."""
        grouped = not self._fifo and any("MessageGroupId" in self._fields(entry) for entry in batch)
        if not grouped or word not in _NO_GROUPS:
            return False
        log.info("%s: this service has no fair queues; tenants are not told apart", self.name)
        self._fair = False
        return True

    # --- everything else

    def _receive(self, most: int, wait: int, visibility_seconds: float) -> list[Delivery]:
        answer = self._call(
            "receive_message",
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait,
            VisibilityTimeout=_visibility(visibility_seconds),
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [delivery_of(message) for message in answer.get("Messages", ())]

    def _change(self, operation: str, entries: Sequence[dict[str, Any]]) -> None:
        """Carry out a batch operation on receipt handles."""
        for error in self._each(lambda batch: self._change_batch(operation, batch), list(chunks(entries))):
            if error is not None:
                raise error

    def _change_batch(self, operation: str, entries: Sequence[dict[str, Any]]) -> QueueError | None:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(random.uniform(0.5, 1.5) * _PAUSE_SECONDS * 2**attempt)
            try:
                answer = self._call(operation, Entries=_numbered(entries))
            except QueueError as error:
                return error
            failed = [each for each in answer.get("Failed", ()) if word_of(each.get("Code")) not in _STALE]
            if not failed:
                return None
            entries = [entries[int(each["Id"])] for each in failed]
        return QueueUnavailableError(f"{self.name}: SQS keeps failing on some messages; they will come again")

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self._service.call(self.name, operation, QueueUrl=self._url(), **parameters)

    def _url(self) -> str:
        if self._known_url is None:
            self._known_url = str(self._service.call(self.name, "get_queue_url", QueueName=self.name)["QueueUrl"])
        return self._known_url

    def _each(self, work: Callable[[Any], T], batches: Sequence[Any]) -> list[T]:
        """``work`` on every batch, side by side unless the queue keeps an order."""
        if len(batches) < 2 or self._fifo:
            return [work(batch) for batch in batches]
        with self._lock:
            if self._senders is None:
                self._senders = ThreadPoolExecutor(_SENDERS, thread_name_prefix=f"sqs-{self.name}")
            senders = self._senders
        return list(senders.map(work, batches))


def _numbered(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"Id": str(number), **entry} for number, entry in enumerate(entries)]


def _visibility(seconds: float) -> int:
    return min(LONGEST_VISIBILITY_SECONDS, math.ceil(max(0.0, seconds)))
