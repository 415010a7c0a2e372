"""The Dead Letter Channel: a message that cannot be dealt with is put aside, with the reason beside it.

Order matters: it is in the dead letter queue before it leaves its own, so a crash between the two leaves two copies and
never none. The reason is one word and an attribute: whoever looks at it sees no payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.dispatch_decisions import letter_id
from airflow_provider_ai.core.job_ports import DeadLetter, Delivery, MessageQueue, OutgoingMessage, Transport
from airflow_provider_ai.core.messages import id_in
from airflow_provider_ai.exceptions import MessagesRefusedError, QueueUnavailableError

REASON, SOURCE_QUEUE, JOB_ID, TIME = "reason", "source_queue", "job_id", "dead_since"
TOO_MANY_RECEIVES = "too_many_receives"
"""The reason of a message that the queue's own redrive policy has put aside."""
_OMITTED = "too large to carry a reason; the store has the job"
_MOST_ATTRIBUTES = 10


def dead_letter(
    queue: MessageQueue, dead_letters: MessageQueue, delivery: Delivery, reason: str, key: str | None
) -> None:
    """Put a delivery of ``queue`` aside (:func:`put_aside`), then delete it there."""
    put_aside(dead_letters, delivery, reason, key, source=queue.name)
    queue.delete([delivery])


def put_aside(dead_letters: MessageQueue, delivery: Delivery, reason: str, key: str | None, *, source: str) -> None:
    """Send a copy of a delivery to the dead letters. What comes next is to delete it where it was.

    :param reason: one word, never data
    :param key: the job's id; None when the message does not say
    :param source: name of the queue that it was in
    :raises QueueUnavailableError: when it could not be put aside; it stays where it is
    """
    letter = _letter(source, delivery, reason, key)
    try:
        sent = dead_letters.send([letter])
    except MessagesRefusedError:
        sent = dead_letters.send([_stub(letter)])
    if letter.key not in sent:
        raise QueueUnavailableError(f"{dead_letters.name}: a dead letter could not be sent; it stays in {source}")


def reason_of(attributes: Mapping[str, str]) -> str:
    """Why a message is in a dead letter queue; without a word from us the queue's redrive policy put it there."""
    return attributes.get(REASON, TOO_MANY_RECEIVES)


def letter_of(delivery: Delivery, transport: Transport) -> DeadLetter:
    """What is known of a dead letter in the queue of a deployment.

    What comes without a source was put aside by the request queue itself. One with a source that is none of ours was
    put there by somebody else.
    """
    attributes = delivery.attributes
    reason = job_reasons.word(reason_of(attributes))
    source = attributes.get(SOURCE_QUEUE, transport.requests.name)
    return DeadLetter(
        letter_id=letter_id(delivery.body, reason),
        job_id=attributes.get(JOB_ID) or id_in(delivery.body),
        reason=reason,
        source=source if source in transport.names else transport.dead_letters.name,
        message=delivery.body,
    )


def _letter(source: str, delivery: Delivery, reason: str, key: str | None) -> OutgoingMessage:
    marks = {REASON: reason, SOURCE_QUEUE: source, TIME: datetime.now(UTC).isoformat(timespec="seconds")}
    if key is not None:
        marks[JOB_ID] = key
    kept = [item for item in delivery.attributes.items() if item[0] not in marks][: _MOST_ATTRIBUTES - len(marks)]
    name = key if key is not None else hashlib.sha256(delivery.body).hexdigest()
    return OutgoingMessage(key=name, body=delivery.body, attributes={**dict(kept), **marks})


def _stub(letter: OutgoingMessage) -> OutgoingMessage:
    """The same without the body and foreign attributes, for one that the queue would not take with a reason."""
    marks = {name: value for name, value in letter.attributes.items() if name in (REASON, SOURCE_QUEUE, JOB_ID, TIME)}
    named = {"id": letter.key} if JOB_ID in marks else {"sha256": letter.key}
    body = orjson.dumps({**named, "omitted": _OMITTED})
    return OutgoingMessage(key=letter.key, body=body, attributes=marks)
