"""One contract for every queue: at least once, by key, hidden while in hand, and again when it was not deleted."""

from __future__ import annotations

import json
import threading
import time

import pytest

from airflow_provider_ai.core.job_ports import MessageQueue, Transport
from airflow_provider_ai.exceptions import MessagesRefusedError
from airflow_provider_ai.patterns.dead_letters import dead_letter, reason_of
from tests.adapters.queues.conftest import Deployment, drain, message

MIB = 1024 * 1024


def test_what_is_sent_is_received_as_it_was(queue: MessageQueue) -> None:
    """Body, attributes and all: JSON of any language, in any number of bytes that fit."""
    texts = [
        "naïve",
        "日本語",
        "🙂" * 5,
        "\u0000\u001f\u007f\u0085",
        "\ufeff",
        "\ufffe\uffff",
        'quo"te\\',
        "x" * 60_000,
    ]
    bodies = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts]
    attributes = {"reason": "größer als ≤ 5", "job_id": "j" * 36}
    sent = [message(number, body=body, attributes=attributes) for number, body in enumerate(bodies)]
    assert list(queue.send(sent)) == [each.key for each in sent]
    found = drain(queue, expect=len(sent))
    assert sorted(json.loads(each.body)["text"] for each in found) == sorted(texts)
    assert all(each.attributes == attributes for each in found)


def test_any_number_is_sent_and_reported_in_order(queue: MessageQueue) -> None:
    """Far more than a batch of the service, and none is missing."""
    many = [message(number) for number in range(137)]
    assert list(queue.send(many)) == [each.key for each in many]
    found = drain(queue, expect=137)
    assert sorted(json.loads(each.body)["number"] for each in found) == list(range(137))
    queue.delete(found)


def test_nothing_is_nothing(queue: MessageQueue) -> None:
    """Empty lists are no calls and no errors."""
    assert list(queue.send([])) == []
    queue.delete([])
    queue.extend([], visibility_seconds=3)


def test_an_empty_queue_waits_no_longer_than_told(queue: MessageQueue) -> None:
    """And says that it is empty."""
    began = time.monotonic()
    assert list(queue.receive(most=10, wait_seconds=1, visibility_seconds=5)) == []
    assert time.monotonic() - began < 15


def test_a_waiting_receiver_gets_a_message_that_comes_meanwhile(queue: MessageQueue) -> None:
    """It does not sleep through the rest of its wait."""
    queue.send([message(0)])
    queue.delete(drain(queue, expect=1))
    sender = threading.Timer(0.5, lambda: queue.send([message(1)]))
    sender.start()
    began = time.monotonic()
    found = queue.receive(most=10, wait_seconds=20, visibility_seconds=5)
    assert [each.body for each in found] == [b'{"number":1}']
    assert time.monotonic() - began < 19
    sender.join()


def test_a_message_in_hand_is_hidden_until_its_time_is_over(queue: MessageQueue) -> None:
    """Then it comes again, to whoever asks."""
    queue.send([message(0)])
    first = drain(queue, expect=1, visibility=3)
    assert len(first) == 1
    assert list(queue.receive(most=1, wait_seconds=0, visibility_seconds=3)) == []
    again = drain(queue, expect=1, visibility=30)
    assert [each.body for each in again] == [first[0].body]
    assert again[0].receives in (0, 2)


def test_a_deleted_message_does_not_come_again(queue: MessageQueue) -> None:
    """Not after its visibility timeout either."""
    queue.send([message(0)])
    queue.delete(drain(queue, expect=1, visibility=2))
    assert drain(queue, expect=1, seconds=4) == []


def test_extending_keeps_a_message_hidden(queue: MessageQueue) -> None:
    """As a heartbeat does, for as long as it beats."""
    queue.send([message(0)])
    found = drain(queue, expect=1, visibility=3)
    for _ in range(3):
        queue.extend(found, visibility_seconds=4)
        assert drain(queue, expect=1, seconds=2, visibility=1) == []
    queue.delete(found)
    assert drain(queue, expect=1, seconds=5) == []


def test_a_message_given_back_comes_at_once(queue: MessageQueue) -> None:
    """Not after the hour it was taken for."""
    queue.send([message(0), message(1)])
    found = drain(queue, expect=2, visibility=3600)
    queue.extend(found, visibility_seconds=0)
    again = drain(queue, expect=2)
    assert sorted(each.body for each in again) == [b'{"number":0}', b'{"number":1}']


def test_deleting_twice_is_harmless(queue: MessageQueue) -> None:
    """And does not keep the others of the batch from being deleted; so it is with a heartbeat that comes late."""
    queue.send([message(number) for number in range(3)])
    found = drain(queue, expect=3, visibility=60)
    queue.delete(found[:1])
    queue.delete(found)
    queue.delete(found)
    queue.extend(found, visibility_seconds=9)
    assert drain(queue, expect=1, seconds=2) == []


def test_another_process_sees_the_same_queue(deployment: Deployment) -> None:
    """Undeleted deliveries come again when their holder has gone; deleted ones do not."""
    ours = deployment.open()
    ours.requests.send([message(number) for number in range(4)])
    held = drain(ours.requests, expect=4, visibility=3)
    assert len(held) == 4
    ours.requests.delete(held[:2])
    ours.close()
    theirs = deployment.open().requests
    again = drain(theirs, expect=2)
    assert sorted(each.body for each in again) == sorted(each.body for each in held[2:])
    theirs.delete(again)


def test_one_message_is_in_one_hand_at_a_time(queue: MessageQueue) -> None:
    """Four receivers share 200 messages, and no message is seen twice while it is held."""
    queue.send([message(number) for number in range(200)])
    seen: list[bytes] = []
    lock = threading.Lock()

    def work() -> None:
        while len(seen) < 200 and time.monotonic() < end:
            found = queue.receive(most=7, wait_seconds=1, visibility_seconds=60)
            with lock:
                seen.extend(each.body for each in found)
            queue.delete(found)

    end = time.monotonic() + 40
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == len(set(seen)) == 200


def test_a_message_that_is_too_large_is_named_and_the_others_go(queue: MessageQueue) -> None:
    """The error carries the keys of those that are in."""
    huge = message(1, body=b'"%s"' % (b"secret" * MIB))
    with pytest.raises(MessagesRefusedError, match="job-1") as refused:
        queue.send([message(0), huge, message(2)])
    assert set(refused.value.refused) == {"job-1"}
    assert refused.value.sent == ("job-0", "job-2")
    assert "secretsecret" not in str(refused.value)
    assert len(drain(queue, expect=2)) == 2


def test_a_delayed_message_comes_later(queue: MessageQueue, kind: str) -> None:
    """FIFO queues have delays for a whole queue only: there it comes at once."""
    queue.send([message(0, delay_seconds=4)])
    began = time.monotonic()
    found = drain(queue, expect=1)
    assert len(found) == 1
    assert "fifo" in kind or time.monotonic() - began > 1.5


def test_the_depth_counts_hidden_messages_too(queue: MessageQueue) -> None:
    """Until they are deleted."""
    assert queue.depth() == 0
    queue.send([message(number) for number in range(5)])
    found = drain(queue, expect=3)
    assert queue.depth() == 5
    queue.delete(found)
    end = time.monotonic() + 15
    while queue.depth() != 2:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_peeking_takes_nothing(queue: MessageQueue) -> None:
    """What people look at is still there for whoever works."""
    queue.send([message(number) for number in range(12)])
    assert len(queue.peek(most=5)) == 5
    assert len(queue.peek(most=100)) == 12
    assert len(drain(queue, expect=12)) == 12


def test_a_dead_letter_carries_its_reason_and_leaves_its_queue(transport: Transport) -> None:
    """Reason, source and job id stand beside the body, which is as it was."""
    transport.requests.send([message(0, attributes={"tenant": "a"})])
    (delivery,) = drain(transport.requests, expect=1, visibility=2)
    dead_letter(transport.requests, transport.dead_letters, delivery, "undecodable", "job-0")
    (dead,) = drain(transport.dead_letters, expect=1)
    assert dead.body == delivery.body
    assert reason_of(dead.attributes) == "undecodable"
    assert dead.attributes["source_queue"] == transport.requests.name
    assert (dead.attributes["job_id"], dead.attributes["tenant"]) == ("job-0", "a")
    assert drain(transport.requests, expect=1, seconds=4) == []
