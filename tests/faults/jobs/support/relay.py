"""An SQS that behaves as badly as SQS may: it stands between the processes and MiniStack, and is seeded.

What a standard queue and a network are allowed to do, it does: a message comes twice, late, in another order; an answer
is lost though the call was carried out; a call is refused; a delete or a change of visibility has no effect. And what
should not happen but does: a request or a result is lost though the queue had said it was in.

A FIFO queue takes no message twice within five minutes, and delays none by itself. There a second copy is one that was
sent again later than that, and what is late is the whole call.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

Body = dict[str, Any]
_UPSTREAM_SECONDS = 60.0
_SEND, _RECEIVE = "SendMessageBatch", "ReceiveMessage"
_CHANGES = ("DeleteMessageBatch", "ChangeMessageVisibilityBatch")
_LATE_SECONDS = 2

MISCHIEF: dict[str, dict[str, float]] = {
    _SEND: {"lose": 0.03, "twice": 0.12, "late": 0.15, "mute": 0.05, "refuse": 0.03},
    _RECEIVE: {"mute": 0.02, "refuse": 0.02},
    "DeleteMessageBatch": {"lose": 0.06, "mute": 0.05, "refuse": 0.03},
    "ChangeMessageVisibilityBatch": {"lose": 0.05, "mute": 0.03},
}
"""How often, by operation. ``lose``: said to be done, and not; ``mute``: done, and nothing said; ``late``: delayed."""


class Watcher(Protocol):
    """Sees what is asked for before it is done, and what the asker has been told."""

    def sending(self, queue: str, bodies: list[bytes]) -> None: ...

    def sent(self, queue: str, bodies: list[bytes]) -> None: ...

    def received(self, queue: str, bodies: Mapping[str, bytes]) -> None: ...

    def deleting(self, queue: str, handles: list[str]) -> None: ...


class Relay:
    """A server at ``url``. Mischief begins with :meth:`unleash`; ``down`` refuses everything.

    :param upstream: URL of the real queue service
    :param safe: names of queues of which no message is lost for good: the dead letters have no second home
    """

    def __init__(self, upstream: str, *, seed: int, watcher: Watcher, safe: frozenset[str] = frozenset()) -> None:
        self.done: Counter[str] = Counter()
        self.down = False
        self._address = urlsplit(upstream).netloc
        self._watcher = watcher
        self._safe = safe
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._unleashed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="relay", daemon=True).start()

    def unleash(self) -> None:
        """Begin mischief."""
        self._unleashed = True

    def calm(self) -> None:
        """Be a good queue from now on."""
        self._unleashed = self.down = False

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    # --- one call

    def answer(self, target: str, headers: Mapping[str, str], body: Body) -> tuple[int, bytes] | None:
        """Status and body; None to close the connection without a word."""
        operation, queue = target.rpartition(".")[2], str(body.get("QueueUrl", "")).rpartition("/")[2]
        if self.down:
            return None
        trick = self._trick(operation, queue)
        if trick == "refuse":
            return 503, b'{"__type":"ServiceUnavailable","message":"out of order"}'
        self._before(operation, queue, body)
        if trick == "lose":
            status, answer = 200, _pretended(operation, body)
        else:
            fifo = queue.endswith(".fifo")
            if trick == "late":
                body = self._held_up(body) if fifo else self._spoilt(body)
            status, answer = self._forward(headers, body)
            if trick == "twice":
                self._forward(headers, _sent_anew(body) if fifo else body)
        if self.down or trick == "mute":
            return None
        if status == 200:
            self._after(operation, queue, body, answer)
        return status, json.dumps(answer).encode()

    def _trick(self, operation: str, queue: str) -> str | None:
        if not self._unleashed:
            return None
        with self._lock:
            draw = self._random.random()
            for trick, share in MISCHIEF.get(operation, {}).items():
                draw -= share
                if draw < 0:
                    if trick == "lose" and operation == _SEND and queue in self._safe:
                        return None
                    self.done[f"{operation} {trick}"] += 1
                    return trick
        return None

    def _spoilt(self, body: Body) -> Body:
        """Each message late by itself: so they overtake each other."""
        with self._lock:
            entries = [entry | {"DelaySeconds": self._random.randint(0, _LATE_SECONDS)} for entry in body["Entries"]]
        return body | {"Entries": entries}

    def _held_up(self, body: Body) -> Body:
        with self._lock:
            seconds = self._random.uniform(0, _LATE_SECONDS)
        time.sleep(seconds)
        return body

    def _before(self, operation: str, queue: str, body: Body) -> None:
        if operation == _SEND:
            self._watcher.sending(queue, [entry["MessageBody"].encode() for entry in body["Entries"]])
        elif operation == "DeleteMessageBatch":
            self._watcher.deleting(queue, [entry["ReceiptHandle"] for entry in body["Entries"]])

    def _after(self, operation: str, queue: str, body: Body, answer: Body) -> None:
        if operation == _SEND:
            done = {each["Id"] for each in answer.get("Successful", ())}
            sent = [entry["MessageBody"].encode() for entry in body["Entries"] if entry["Id"] in done]
            self._watcher.sent(queue, sent)
        elif operation == _RECEIVE:
            messages = answer.get("Messages", [])
            with self._lock:
                self._random.shuffle(messages)
            self._watcher.received(queue, {each["ReceiptHandle"]: each["Body"].encode() for each in messages})

    def _forward(self, headers: Mapping[str, str], body: Body) -> tuple[int, Body]:
        passed = ("x-amz", "content-type", "authorization")
        kept = {name: value for name, value in headers.items() if name.lower().startswith(passed)}
        connection = HTTPConnection(self._address, timeout=_UPSTREAM_SECONDS)
        try:
            connection.request("POST", "/", json.dumps(body).encode(), kept)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()


def _sent_anew(body: Body) -> Body:
    """The same messages, with other deduplication ids."""
    name = "MessageDeduplicationId"
    return body | {"Entries": [entry | {name: f"{entry[name][:60]}-anew"} for entry in body["Entries"]]}


def _pretended(operation: str, body: Body) -> Body:
    """What SQS says when it has done it."""
    done = []
    for entry in body["Entries"]:
        said = {"Id": entry["Id"]}
        if operation == _SEND:
            digest = hashlib.md5(entry["MessageBody"].encode(), usedforsecurity=False).hexdigest()
            said |= {"MessageId": str(uuid4()), "MD5OfMessageBody": digest}
        done.append(said)
    return {"Successful": done, "Failed": []}


def _handler(relay: Relay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(OSError):  # whoever asked was killed
                super().handle()

        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = relay.answer(self.headers["X-Amz-Target"], dict(self.headers), body)
            except (OSError, HTTPException, ValueError):
                answer = None  # half a request of somebody who was killed, or no upstream
            if answer is None:
                self.close_connection = True
                return
            status, content = answer
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            return

    return Handler


@contextmanager
def relay(upstream: str, *, seed: int, watcher: Watcher, safe: frozenset[str]) -> Iterator[Relay]:
    """A running relay."""
    made = Relay(upstream, seed=seed, watcher=watcher, safe=safe)
    try:
        yield made
    finally:
        made.calm()
        made.close()
