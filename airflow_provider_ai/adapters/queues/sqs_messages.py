"""Messages as SQS takes them, and in what batches.

Limits: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_ai.core.job_ports import Delivery, OutgoingMessage

LARGEST_BYTES = 1024 * 1024
"""Of a message with its attributes, and of a batch."""
BATCH = 10
LONGEST_DELAY_SECONDS = 900
_MOST_ATTRIBUTES = 10
_ATTRIBUTE_NAME = re.compile(r"(?!(?i:aws|amazon)\.)(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_GROUP = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a batch: the job's id, what is sent, and how many bytes count towards the limit."""

    key: str
    fields: dict[str, Any]
    size: int


class UnfitMessageError(ValueError):
    """SQS never takes this message; the text says why and quotes nothing."""


def entry_of(message: OutgoingMessage, *, fifo: bool) -> Entry:
    """A message for SendMessageBatch.

    On a FIFO queue a message without a group is a group of its own, so nothing waits for it. Its deduplication id
    covers the body: SQS drops the repetition of one send, never a later message of the same job.

    :raises UnfitMessageError: when SQS would refuse it
    """
    fields: dict[str, Any] = {"MessageBody": _text(message.body)}
    if message.attributes:
        fields["MessageAttributes"] = _attributes(message)
    if fifo:
        fields["MessageGroupId"] = _group(message.group or message.key)
        fields["MessageDeduplicationId"] = hashlib.sha256(message.key.encode() + b"\0" + message.body).hexdigest()
    else:
        if message.group:
            fields["MessageGroupId"] = _group(message.group)
        if message.delay_seconds > 0:
            fields["DelaySeconds"] = min(LONGEST_DELAY_SECONDS, -int(-message.delay_seconds // 1))
    return Entry(message.key, fields, _checked_size(message))


def batches_of(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in order, as many to a batch as SQS takes."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == BATCH or size + entry.size > LARGEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch


def delivery_of(message: dict[str, Any]) -> Delivery:
    """A received message."""
    attributes = message.get("MessageAttributes", {})
    return Delivery(
        body=message["Body"].encode(),
        attributes={name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value},
        receives=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
        handle=message["ReceiptHandle"],
    )


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Slices that make a batch each."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _text(body: bytes) -> str:
    if not body:
        raise UnfitMessageError("its body must not be empty")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UnfitMessageError("its body must be UTF-8 text") from None
    # U+FFFE and U+FFFF are text in JSON and none in SQS; in JSON they stand in strings only, where an escape will do.
    text = text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    if _NOT_XML.search(text):
        raise UnfitMessageError("its body must be JSON text, which has no control characters")
    return text


def _attributes(message: OutgoingMessage) -> dict[str, dict[str, str]]:
    attributes = message.attributes
    if len(attributes) > _MOST_ATTRIBUTES:
        raise UnfitMessageError(f"it must have at most {_MOST_ATTRIBUTES} attributes, got {len(attributes)}")
    for name, value in attributes.items():
        if not _ATTRIBUTE_NAME.fullmatch(name):
            raise UnfitMessageError("its attributes must be named by letters, digits, '_', '-' and '.'")
        if not value or _NOT_XML.search(value):
            raise UnfitMessageError(f"its attribute {name!r} must be text without control characters, and not empty")
    return {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}


def _checked_size(message: OutgoingMessage) -> int:
    size = len(message.body) + 3 * (message.body.count(b"\xef\xbf\xbe") + message.body.count(b"\xef\xbf\xbf"))
    size += sum(len(f"{name}String{value}".encode()) for name, value in message.attributes.items())
    if size > LARGEST_BYTES:
        limit = f"{LARGEST_BYTES:,} bytes with its attributes (send a claim check instead)"
        raise UnfitMessageError(f"it must be at most {limit}, got {size:,}")
    return size


def _group(name: str) -> str:
    """A tenant as SQS may be told it; whatever it cannot be told becomes a hash."""
    return name if _GROUP.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()
