"""What only SQS has: receipt handles, groups, deduplication, partial failures, and a service that can be away."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.queues.sqs import SqsQueue
from airflow_provider_ai.adapters.queues.sqs_messages import LARGEST_BYTES
from airflow_provider_ai.adapters.queues.sqs_service import SqsService
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import MessagesRefusedError, QueueError, QueueUnavailableError
from airflow_provider_ai.patterns.dead_letters import dead_letter, reason_of
from tests.adapters.queues.conftest import create_sqs_queues, drain, message, sqs_settings
from tests.support.ministack import MiniStack
from tests.support.processes import free_port

Open = Callable[..., SqsQueue]


@pytest.fixture
def settings(ministack_server: MiniStack) -> TransportSettings:
    made = sqs_settings(ministack_server)
    create_sqs_queues(ministack_server, made)
    return made


@pytest.fixture
def queue(settings: TransportSettings) -> Iterator[SqsQueue]:
    made = SqsQueue(SqsService(settings), settings.request_queue)
    yield made
    made.close()


class ScriptedService(SqsService):
    """Answers batch sends and deletes from a list; counts what it is asked."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    def call(self, queue: str, operation: str, **parameters: Any) -> dict[str, Any]:
        if operation == "get_queue_url":
            return {"QueueUrl": "http://127.0.0.1/q"}
        entries = parameters["Entries"]
        self.asked.append((operation, entries))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        failed = {str(number): code for number, code in answer.items()}
        return {
            "Successful": [{"Id": each["Id"]} for each in entries if each["Id"] not in failed],
            "Failed": [
                {"Id": number, "Code": code.lstrip("!"), "SenderFault": code.startswith("!")}
                for number, code in failed.items()
            ],
        }

    def close(self) -> None:
        pass


# --- partial failures


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_ai.adapters.queues.sqs._PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("_no_pause")
def test_what_sqs_failed_to_take_is_sent_again_and_nothing_else() -> None:
    """Once more with the two that failed, and then all are in."""
    service = ScriptedService([{1: "InternalError", 3: "ThrottlingException"}, {}])
    queue = SqsQueue(service, "q")
    assert list(queue.send([message(number) for number in range(5)])) == [f"job-{number}" for number in range(5)]
    assert [len(entries) for _, entries in service.asked] == [5, 2]
    assert [each["MessageBody"] for each in service.asked[1][1]] == ['{"number":1}', '{"number":3}']


@pytest.mark.usefixtures("_no_pause")
def test_what_never_gets_in_is_left_out_of_the_answer() -> None:
    """The caller sends it again some day; those that are in are known."""
    service = ScriptedService([{1: "InternalError"}, {0: "InternalError"}, {0: "InternalError"}])
    assert list(SqsQueue(service, "q").send([message(0), message(1)])) == ["job-0"]


@pytest.mark.usefixtures("_no_pause")
def test_when_nothing_gets_in_it_is_an_error() -> None:
    """One that a retry can cure."""
    service = ScriptedService([{0: "InternalError"}] * 3)
    with pytest.raises(QueueUnavailableError, match="keeps failing"):
        SqsQueue(service, "q").send([message(0)])


def test_a_service_that_goes_away_midway_leaves_what_was_sent_known() -> None:
    """No key of a batch that is in is lost, and no later batch is tried."""
    service = ScriptedService([{}, QueueUnavailableError("down")])
    sent = SqsQueue(service, "q", fifo=True).send([message(number) for number in range(35)])
    assert list(sent) == [f"job-{number}" for number in range(10)]
    assert len(service.asked) == 2


def test_what_sqs_refuses_is_named_with_its_word() -> None:
    """And is not tried again."""
    service = ScriptedService([{0: "!InvalidMessageContents"}])
    with pytest.raises(MessagesRefusedError, match="job-0 is refused: SQS says InvalidMessageContents") as refused:
        SqsQueue(service, "q").send([message(0), message(1)])
    assert refused.value.sent == ("job-1",)
    assert len(service.asked) == 1


@pytest.mark.usefixtures("_no_pause")
def test_a_delete_is_repeated_for_what_failed_and_forgiven_for_what_is_stale() -> None:
    """A stale handle means that the message is someone else's by now."""
    service = ScriptedService([{0: "!ReceiptHandleIsInvalid", 1: "InternalError"}, {}])
    queue = SqsQueue(service, "q")
    deliveries = [_delivery(f"h{number}") for number in range(3)]
    queue.delete(deliveries)
    assert [[each["ReceiptHandle"] for each in entries] for _, entries in service.asked] == [["h0", "h1", "h2"], ["h1"]]


@pytest.mark.usefixtures("_no_pause")
def test_a_delete_that_keeps_failing_says_so() -> None:
    """The messages will come again."""
    service = ScriptedService([{0: "InternalError"}] * 3)
    with pytest.raises(QueueUnavailableError, match="come again"):
        SqsQueue(service, "q").delete([_delivery("h")])


def _delivery(handle: str) -> Any:
    from airflow_provider_ai.core.job_ports import Delivery

    return Delivery(body=b"{}", attributes={}, receives=1, handle=handle)


# --- fair queues, groups, deduplication


def test_a_service_without_fair_queues_is_asked_once() -> None:
    """Then tenants are not told apart, and everything is sent; a batch that mixes both kinds too."""
    service = ScriptedService([{0: "!InvalidParameterValue"}, {}, {}])
    queue = SqsQueue(service, "q")
    assert len(queue.send([message(0, group="a"), message(1)])) == 2
    assert len(queue.send([message(2, group="b")])) == 1
    assert [["MessageGroupId" in each for each in entries] for _, entries in service.asked] == [
        [True, False],
        [False],
        [False],
    ]


def test_a_standard_queue_carries_the_tenant(
    queue: SqsQueue, settings: TransportSettings, ministack_server: MiniStack
) -> None:
    """As the group that fair queues share between; names that SQS cannot be told are hashed."""
    queue.send([message(0, group="tenant-a"), message(1, group="Ä b"), message(2)])
    client = ministack_server.client("sqs")
    url = client.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
    answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"])
    groups = {each["Body"]: each["Attributes"].get("MessageGroupId") for each in answer["Messages"]}
    assert groups['{"number":0}'] == "tenant-a"
    assert len(groups['{"number":1}']) == 64
    assert groups['{"number":2}'] is None


@pytest.fixture
def fifo(ministack_server: MiniStack) -> Iterator[SqsQueue]:
    settings = sqs_settings(ministack_server, fifo=True)
    create_sqs_queues(ministack_server, settings)
    made = SqsQueue(SqsService(settings), settings.request_queue, fifo=True)
    yield made
    made.close()


def test_one_tenants_jobs_come_one_after_the_other(fifo: SqsQueue) -> None:
    """While one of a group is in hand the next waits; jobs without a tenant wait for nobody."""
    fifo.send([message(number, group="a") for number in range(3)] + [message(9)])
    found = fifo.receive(most=1, wait_seconds=1, visibility_seconds=30)
    others = drain(fifo, expect=3, seconds=3)
    assert [each.body for each in found] == [b'{"number":0}']
    assert [each.body for each in others] == [b'{"number":9}']
    fifo.delete(found)
    rest = drain(fifo, expect=2, seconds=5)
    assert [each.body for each in rest] == [b'{"number":1}', b'{"number":2}']


def test_repeating_a_send_is_deduplicated_and_a_new_message_of_the_job_is_not(fifo: SqsQueue) -> None:
    """A result that is published again after the first copy was lost must get through."""
    for _ in range(3):
        fifo.send([message(0, body=b'{"try":1}')])
    fifo.send([message(0, body=b'{"try":2}')])
    assert sorted(each.body for each in drain(fifo, expect=4, seconds=4)) == [b'{"try":1}', b'{"try":2}']


# --- sizes


def test_a_message_of_exactly_the_limit_goes_and_one_byte_more_does_not(queue: SqsQueue) -> None:
    """Attributes count: name, type and value."""
    attributes = {"reason": "why"}
    room = LARGEST_BYTES - len("reason") - len("String") - len("why")
    assert queue.send([message(0, body=b"x" * room, attributes=attributes)]) == ["job-0"]
    with pytest.raises(MessagesRefusedError, match=r"at most 1,048,576 bytes .* got 1,048,577"):
        queue.send([message(1, body=b"x" * (room + 1), attributes=attributes)])
    (found,) = drain(queue, expect=1)
    assert len(found.body) == room


def test_large_messages_share_batches_that_fit(queue: SqsQueue) -> None:
    """Thirty of 300 kB are not three batches but ten."""
    bodies = [b'"%02d%s"' % (number, b"x" * 300_000) for number in range(30)]
    assert len(queue.send([message(number, body=body) for number, body in enumerate(bodies)])) == 30
    assert sorted(each.body[:3] for each in drain(queue, expect=30)) == sorted(body[:3] for body in bodies)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"body": b"\xff\xfe"}, "UTF-8"),
        ({"body": b"\x00"}, "control characters"),
        ({"attributes": {str(number): "v" for number in range(11)}}, "at most 10 attributes, got 11"),
        ({"attributes": {"aws.own": "v"}}, "named by letters"),
        ({"attributes": {"n": ""}}, "not empty"),
        ({"attributes": {"n": "\ud800"}}, "without control characters"),
    ],
)  # fmt: skip
def test_what_sqs_would_refuse_is_refused_here(fields: dict[str, Any], why: str) -> None:
    """With a reason and before anything is sent with it; the batch's others go."""
    service = ScriptedService([{}])
    with pytest.raises(MessagesRefusedError, match=why) as refused:
        SqsQueue(service, "q").send([message(0, **fields), message(1)])
    assert refused.value.sent == ("job-1",)


def test_a_dead_letter_that_leaves_no_room_for_a_reason_goes_without_its_body(
    settings: TransportSettings, queue: SqsQueue
) -> None:
    """The reason is worth more: the store has the job, and nobody waits for it in vain."""
    dead = open_transport(settings).dead_letters
    queue.send([message(0, body=b"x" * LARGEST_BYTES)])
    (delivery,) = drain(queue, expect=1)
    dead_letter(queue, dead, delivery, "unknown_schema", "job-0")
    (found,) = drain(dead, expect=1)
    assert (reason_of(found.attributes), found.attributes["job_id"]) == ("unknown_schema", "job-0")
    assert "omitted" in json.loads(found.body)
    assert queue.depth() == 0


# --- a service that is away, or refuses


def test_an_endpoint_that_is_down_is_unavailable_within_the_timeout(settings: TransportSettings) -> None:
    """For sends and polls alike."""
    nowhere = replace(settings, endpoint_url=f"http://127.0.0.1:{free_port()}", call_timeout_seconds=5)
    queue = open_transport(nowhere).requests
    began = time.monotonic()
    with pytest.raises(QueueUnavailableError, match="does not answer"):
        queue.send([message(0)])
    with pytest.raises(QueueUnavailableError, match="does not answer"):
        queue.receive(most=1, wait_seconds=20, visibility_seconds=30)
    assert time.monotonic() - began < 10


def test_an_endpoint_that_never_answers_is_unavailable_within_the_timeout(settings: TransportSettings) -> None:
    """It accepts the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}"
        queue = open_transport(replace(settings, endpoint_url=silent, call_timeout_seconds=2)).requests
        began = time.monotonic()
        with pytest.raises(QueueUnavailableError, match="ReadTimeoutError"):
            queue.send([message(0)])
        assert 1.5 < time.monotonic() - began < 8


def test_a_queue_that_is_gone_is_named_with_what_makes_it(
    settings: TransportSettings, queue: SqsQueue, ministack_server: MiniStack
) -> None:
    """Whether it was never there or has been deleted since."""
    never = SqsQueue(SqsService(settings), "nowhere")
    with pytest.raises(QueueError, match="nowhere: there is no such queue; `airflow-ai queues create` makes it"):
        never.send([message(0)])
    queue.send([message(0)])
    client = ministack_server.client("sqs")
    client.delete_queue(QueueUrl=client.get_queue_url(QueueName=settings.request_queue)["QueueUrl"])
    for work in (
        lambda: queue.send([message(1)]),
        lambda: queue.receive(most=1, wait_seconds=0, visibility_seconds=1),
        queue.depth,
    ):
        with pytest.raises(QueueError, match="no such queue") as gone:
            work()
        assert not isinstance(gone.value, QueueUnavailableError)


def test_no_credentials_is_an_error_that_says_so(settings: TransportSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not one that a retry cures."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(QueueError, match="no AWS credentials"):
        open_transport(replace(settings, access_key=None, secret_key=None)).requests.send([message(0)])


@pytest.mark.parametrize(
    ("status", "code", "error", "text"),
    [
        (403, "AccessDenied", QueueError, "refuses the credentials or their rights \\(AccessDenied\\)"),
        (403, "InvalidClientTokenId", QueueError, "refuses the credentials"),
        (400, "ExpiredTokenException", QueueError, "refuses the credentials"),
        (400, "com.amazon.coral.service#ThrottlingException", QueueUnavailableError, "busy"),
        (400, "RequestThrottled", QueueUnavailableError, "busy"),
        (403, "OverLimit", QueueUnavailableError, "busy"),
        (503, "whatever the proxy says: SECRET", QueueUnavailableError, "busy or out of order \\(Unknown\\)"),
        (400, "AWS.SimpleQueueService.NonExistentQueue", QueueError, "no such queue"),
        (400, "InvalidAddress", QueueError, "refuses the call \\(InvalidAddress\\); a retry cannot help"),
    ],
)  # fmt: skip
def test_what_the_service_answers_becomes_one_of_two_errors(
    settings: TransportSettings, status: int, code: str, error: type[QueueError], text: str
) -> None:
    """Over the wire: a server that gives this answer to everything. Its message is never shown."""
    from tests.adapters.queues.refusing_server import refusing

    with refusing(status, code) as url:
        queue = open_transport(replace(settings, endpoint_url=url, call_timeout_seconds=3)).requests
        with pytest.raises(error, match=text) as raised:
            queue.send([message(0)])
    assert isinstance(raised.value, QueueUnavailableError) == (error is QueueUnavailableError)
    assert "SECRET" not in str(raised.value)
