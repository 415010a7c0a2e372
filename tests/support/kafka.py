"""Kafka's protocol: librdkafka's mock cluster, which lives as long as the process that owns it and is reached by all.

It has no controller, so topics come into being when they are asked for by name, with four partitions.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import processes


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaCluster:
    """A running cluster."""

    bootstrap_servers: str
    service: processes.Service = field(repr=False)

    def make_topic(self, name: str) -> None:
        """Bring a topic into being."""
        from confluent_kafka import Producer

        Producer({"bootstrap.servers": self.bootstrap_servers}).list_topics(name, timeout=20)

    def messages(self, topic: str) -> list[bytes]:
        """Everything that was ever sent to a topic; the cluster keeps it."""
        from confluent_kafka import Consumer, TopicPartition

        reader = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "reader", "check.crcs": False})
        found: list[bytes] = []
        for partition in reader.list_topics(topic, timeout=20).topics[topic].partitions:
            first, end = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
            reader.assign([TopicPartition(topic, partition, first)])
            left = end - first
            while left:
                read = reader.consume(left, timeout=1.0)
                found += [message.value() or b"" for message in read]
                left -= len(read)
        reader.close()
        return found


@contextmanager
def kafka() -> Iterator[KafkaCluster]:
    """A cluster of one broker with no topics, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="kafka-") as root:
        address = Path(root) / "address"
        with processes.running(
            "Kafka (mock cluster)",
            [sys.executable, "-m", "tests.support.kafka", address],
            log_path=Path(root) / "kafka.log",
            env=processes.child_environment({}),
            cwd=processes.REPOSITORY,
            ready=address.exists,
            deadline_seconds=60.0,
        ) as service:
            yield KafkaCluster(bootstrap_servers=address.read_text(), service=service)


def _own_a_cluster(address: Path) -> None:
    from confluent_kafka import Producer

    owner = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1})
    brokers = owner.list_topics(timeout=20).brokers.values()
    written = address.with_suffix(".part")
    written.write_text(",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    written.rename(address)
    threading.Event().wait()


if __name__ == "__main__":
    _own_a_cluster(Path(sys.argv[1]))
