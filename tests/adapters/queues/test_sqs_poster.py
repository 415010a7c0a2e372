"""Batches that are posted without botocore's machinery: success is enough, for everything else there is the client."""

from __future__ import annotations

import socket
import threading
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from airflow_provider_ai.adapters.queues.sqs_poster import SqsPoster
from tests.support.ministack import MiniStack
from tests.support.processes import free_port

ENTRIES = [{"Id": str(number), "MessageBody": f"é {number}"} for number in range(10)]


def poster(url: str, *, timeout: float = 5.0, **keys: str) -> SqsPoster:
    session = boto3.session.Session("test", "test", region_name="us-east-1", **keys)
    config = Config(connect_timeout=timeout, read_timeout=timeout, proxies={})
    client = session.client("sqs", endpoint_url=url, config=config)
    return SqsPoster(client, session.get_credentials(), verify=True)


def _batch(url: str) -> dict[str, Any]:
    return {"QueueUrl": url, "Entries": ENTRIES}


def test_a_batch_is_in_the_queue(ministack_server: MiniStack) -> None:
    """Whole, as it was given; the answer is the service's."""
    sqs = ministack_server.client("sqs")
    url = sqs.create_queue(QueueName="batch-sender")["QueueUrl"]
    answer = poster(ministack_server.url).post("send_message_batch", _batch(url))
    assert answer is not None
    assert {entry["Id"] for entry in answer["Successful"]} == {entry["Id"] for entry in ENTRIES}
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert {message["Body"] for message in found} <= {entry["MessageBody"] for entry in ENTRIES}


def test_every_operation_answers_as_the_client_does(ministack_server: MiniStack) -> None:
    """A message is received with its attributes, hidden for longer, and deleted."""
    sqs = ministack_server.client("sqs")
    url = sqs.create_queue(QueueName="poster-operations")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="é", MessageAttributes={"a": {"DataType": "String", "StringValue": "1"}})
    here = poster(ministack_server.url)
    received = here.post(
        "receive_message",
        {
            "QueueUrl": url,
            "MessageAttributeNames": ["All"],
            "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
        },
    )
    assert received is not None
    [message] = received["Messages"]
    assert message["Body"] == "é"
    assert message["MessageAttributes"]["a"]["StringValue"] == "1"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    handle = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}
    for operation, entry in (
        ("change_message_visibility_batch", {**handle, "VisibilityTimeout": 60}),
        ("delete_message_batch", handle),
    ):
        done = here.post(operation, {"QueueUrl": url, "Entries": [entry]})
        assert done is not None, operation
        assert [each["Id"] for each in done["Successful"]] == ["0"], operation
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_a_refusal_is_left_to_the_client(ministack_server: MiniStack) -> None:
    """Which knows what it means."""
    assert (
        poster(ministack_server.url).post("send_message_batch", _batch(f"{ministack_server.url}/000000000000/absent"))
        is None
    )


def test_nobody_there_is_left_to_the_client() -> None:
    """It tries again."""
    assert poster(f"http://127.0.0.1:{free_port()}").post("send_message_batch", _batch("http://q")) is None


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope", b""],
)
def test_an_answer_that_is_none_is_left_to_the_client(answer: bytes) -> None:
    """An error, something else than JSON, a connection that is closed."""
    with Server(answer) as server:
        assert poster(server.url).post("send_message_batch", _batch("http://q")) is None


def test_time_that_is_over_is_over() -> None:
    """The client would only double it."""
    with Server(None) as server, pytest.raises(ReadTimeoutError):
        poster(server.url, timeout=0.3).post("send_message_batch", _batch("http://q"))


class Server:
    """Answers every connection with the same bytes, then closes it; or never, for None."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._socket.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            if self._answer is None:
                continue
            request = b""
            while not request.endswith(b"]}"):  # the end of the document
                request += connection.recv(65536)
            connection.sendall(self._answer)
            connection.shutdown(socket.SHUT_WR)
