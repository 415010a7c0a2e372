"""A Kafka that behaves as badly as a network and a broker may: it stands between the processes and the cluster.

It passes requests and answers of Kafka's protocol on, frame by frame, and puts its own address in place of the
broker's. Seeded, it cuts connections before a request is carried out (``refuse``) or after (``mute``: the
acknowledgement is lost), holds requests back (``late``, so those of other connections overtake them), and carries a
produce request out ``twice``. ``lose`` is what a cluster does that elects an unclean leader: it said that it has a
message, and has none; it goes to another topic.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

PRODUCE, FETCH, OFFSET_COMMIT = 0, 1, 8  # https://kafka.apache.org/protocol#protocol_api_keys
_NAMES = {PRODUCE: "Produce", FETCH: "Fetch", OFFSET_COMMIT: "OffsetCommit"}
MISCHIEF: dict[int, dict[str, float]] = {
    PRODUCE: {"lose": 0.04, "twice": 0.12, "late": 0.10, "mute": 0.06, "refuse": 0.04},
    FETCH: {"mute": 0.01, "refuse": 0.01},
    OFFSET_COMMIT: {"mute": 0.06, "refuse": 0.06},
}
"""How often, by request."""
_LATE_SECONDS = 2.0
_AGAIN = 1 << 30  # marks the correlation id of a request's second copy


class KafkaRelay:
    """A broker at ``servers``. Mischief begins with :meth:`unleash`; ``down`` cuts and refuses all connections.

    :param upstream: ``host:port`` of the only broker
    :param lossy: topics of which messages may be lost for good, and the topics, with names as long, that get them
    """

    def __init__(self, upstream: str, *, seed: int, lossy: Mapping[str, str]) -> None:
        self.done: Counter[str] = Counter()
        host, _, port = upstream.rpartition(":")
        self.upstream = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        own = self._listening.getsockname()[1]
        self.servers = f"127.0.0.1:{own}"
        self.address = tuple(
            name.encode() + struct.pack(">i", at) for name, at in ((host, int(port)), ("127.0.0.1", own))
        )
        self.lossy = {topic.encode(): waste.encode() for topic, waste in lossy.items()}
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._unleashed = self._down = False
        threading.Thread(target=self._accept, name="kafka-relay", daemon=True).start()

    @property
    def down(self) -> bool:
        """Whether nobody is served."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        if down:
            self._cut()

    def unleash(self) -> None:
        """Begin mischief."""
        self._unleashed = True

    def calm(self) -> None:
        """Be a good broker from now on."""
        self._unleashed = self._down = False

    def close(self) -> None:
        """Stop serving."""
        self._listening.close()
        self._cut()

    def trick(self, api: int, frame: bytes) -> str | None:
        """What to do to a request."""
        if not self._unleashed:
            return None
        with self._lock:
            draw = self._random.random()
            for trick, share in MISCHIEF.get(api, {}).items():
                draw -= share
                if draw < 0:
                    if trick == "lose" and not any(topic in frame for topic in self.lossy):
                        return None
                    self.done[f"{_NAMES[api]} {trick}"] += 1
                    return trick
        return None

    def lateness(self) -> float:
        """Seconds."""
        with self._lock:
            return self._random.uniform(0.0, _LATE_SECONDS)

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                if self.down:
                    client.close()
                    continue
                connection = _Connection(self, client)
                with self._lock:
                    self._connections.add(connection)
                connection.begin()

    def _cut(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()


class _Connection:
    """One client's; two threads."""

    def __init__(self, relay: KafkaRelay, client: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._broker = socket.socket()
        self._muted: set[int] = set()
        self._lost: set[int] = set()

    def begin(self) -> None:
        """Serve."""
        threading.Thread(target=self._serve, args=(self._ask,), daemon=True).start()

    def close(self) -> None:
        """Cut it."""
        for each in (self._client, self._broker):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._relay.forget(self)

    def _serve(self, work: object) -> None:
        with suppress(OSError):  # somebody is gone, or was cut off
            work()  # type: ignore[operator]
        self.close()

    def _ask(self) -> None:
        self._broker.connect(self._relay.upstream)
        threading.Thread(target=self._serve, args=(self._answer,), daemon=True).start()
        while (frame := _read(self._client)) is not None:
            api, _, correlation = struct.unpack_from(">hhi", frame)
            trick = self._relay.trick(api, frame)
            if trick == "refuse":
                return
            if trick == "late":
                time.sleep(self._relay.lateness())
            elif trick == "mute":
                self._muted.add(correlation)
            elif trick == "twice":
                _write(self._broker, frame[:4] + struct.pack(">i", correlation | _AGAIN) + frame[8:])
            elif trick == "lose":
                self._lost.add(correlation)
                for topic, waste in self._relay.lossy.items():
                    frame = frame.replace(topic, waste)
            _write(self._broker, frame)

    def _answer(self) -> None:
        while (frame := _read(self._broker)) is not None:
            (correlation,) = struct.unpack_from(">i", frame)
            if correlation in self._muted:
                return
            if correlation & _AGAIN:
                continue
            if correlation in self._lost:
                for topic, waste in self._relay.lossy.items():
                    frame = frame.replace(waste, topic)
            _write(self._client, frame.replace(*self._relay.address))


def _read(source: socket.socket) -> bytes | None:
    """The next frame, without its length; None at the end."""
    size = _exactly(source, 4)
    return None if size is None else _exactly(source, int.from_bytes(size))


def _exactly(source: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = source.recv(min(size, 1 << 16))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(target: socket.socket, frame: bytes) -> None:
    target.sendall(len(frame).to_bytes(4) + frame)


@contextmanager
def kafka_relay(upstream: str, *, seed: int, lossy: Mapping[str, str]) -> Iterator[KafkaRelay]:
    """A running relay."""
    made = KafkaRelay(upstream, seed=seed, lossy=lossy)
    try:
        yield made
    finally:
        made.calm()
        made.close()
