"""Kafka as a service: librdkafka's configuration, one producer for the queues of a transport, errors in our words.

librdkafka retries by itself until ``call_timeout_seconds``; what it reports then is final for that call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.queues.kafka_log import librdkafka_log
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import QueueError, QueueUnavailableError, SpecError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient

_GONE = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION")
_REFUSED = (
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED",
    "_AUTHENTICATION",
)
_WRONG = ("INVALID_REPLICATION_FACTOR", "INVALID_PARTITIONS", "INVALID_CONFIG", "POLICY_VIOLATION", "TOPIC_EXCEPTION")
_POLL_SECONDS = 0.1
_HEARTBEATS = 5  # in a session
_FETCHED_AHEAD_KIB = 16 * 1024


def explained(queue: str, error: KafkaError) -> QueueError:
    """What librdkafka reports about a queue; its text is not kept, for it may hold addresses and names."""
    word = str(error.name())
    if word in _GONE:
        return QueueError(f"{queue}: there is no such topic; `airflow-ai queues create` makes it")
    if word in _REFUSED:
        return QueueError(f"{queue}: Kafka refuses the credentials or their rights ({word}); correct them, then retry")
    if word in _WRONG:
        return QueueError(f"{queue}: Kafka refuses the call ({word}); a retry cannot help")
    return QueueUnavailableError(f"{queue}: Kafka does not answer ({word}); a retry can help")


class KafkaService:
    """Makes consumers, and has the producer. Thread-safe.

    :raises SpecError: when the extra ``kafka`` is missing, or librdkafka refuses a setting
    """

    def __init__(self, settings: TransportSettings) -> None:
        _confluent_kafka()
        self.settings = settings
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._stop = threading.Event()
        self._reporter: threading.Thread | None = None

    def produce(self, topic: str, *, on_delivery: Callable[[Any, Any], None], **message: Any) -> None:
        """Hand a message to the producer, waiting while its buffer is full.

        :param on_delivery: is told the outcome later, in a thread of ours
        :raises BufferError: when there is no room within ``call_timeout_seconds``
        """
        producer = self._running_producer()
        end = time.monotonic() + self.settings.call_timeout_seconds
        while True:
            try:
                producer.produce(topic, on_delivery=on_delivery, **message)
            except BufferError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_POLL_SECONDS / 10)
            else:
                return

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; asking does not make it.

        :raises QueueError: when there is none of that name
        """
        from confluent_kafka import KafkaException

        try:
            known = self._running_producer().list_topics(timeout=self.settings.call_timeout_seconds).topics
        except KafkaException as error:
            raise explained(topic, error.args[0]) from None
        if topic not in known or not known[topic].partitions:
            raise QueueError(f"{topic}: there is no such topic; `airflow-ai queues create` makes it")
        return sorted(known[topic].partitions)

    def consumer(self, topic: str, **changes: Any) -> Consumer:
        """A consumer of the group of a topic; it has joined nothing yet."""
        from confluent_kafka import Consumer

        session = int(self.settings.session_timeout_seconds * 1000)
        chosen = {
            "group.id": f"{self.settings.consumer_group}.{topic}",
            "auto.offset.reset": "earliest",  # jobs sent before the first worker came are jobs, too
            "enable.auto.offset.store": False,
            "auto.commit.interval.ms": 500,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session,
            "heartbeat.interval.ms": session // _HEARTBEATS,
            "queued.max.messages.kbytes": _FETCHED_AHEAD_KIB,
            **changes,
        }
        made: Consumer = _made(Consumer, {**_common(self.settings), **chosen})
        return made

    def admin(self) -> AdminClient:
        """A client that makes topics."""
        from confluent_kafka.admin import AdminClient

        made: AdminClient = _made(AdminClient, _common(self.settings))
        return made

    def close(self) -> None:
        """Deliver what was handed over, then let the connections go. A later call opens new ones."""
        with self._lock:
            producer, reporter, self._producer = self._producer, self._reporter, None
            self._stop.set()
        if producer is not None and reporter is not None:
            reporter.join()
            producer.flush(self.settings.call_timeout_seconds)

    def _running_producer(self) -> Producer:
        from confluent_kafka import Producer

        with self._lock:
            if self._producer is None:
                milliseconds = int(self.settings.call_timeout_seconds * 1000)
                chosen = {
                    "acks": "all",
                    "enable.idempotence": True,
                    "linger.ms": 1,
                    "message.timeout.ms": milliseconds,
                    "socket.timeout.ms": max(1000, milliseconds),
                    "partitioner": "murmur2_random",  # as other clients do it, so a key has one partition
                }
                self._producer = _made(Producer, {**_common(self.settings), **chosen})
                self._stop = threading.Event()
                work = (self._producer, self._stop)
                self._reporter = threading.Thread(target=_report, args=work, name="kafka-reports", daemon=True)
                self._reporter.start()
            return self._producer


def _report(producer: Producer, stop: threading.Event) -> None:
    """Serve delivery reports; librdkafka tells them to whoever polls."""
    while not stop.is_set():
        producer.poll(_POLL_SECONDS)


def _common(settings: TransportSettings) -> dict[str, Any]:
    chosen = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "airflow-ai",
        "security.protocol": settings.security,
        "reconnect.backoff.max.ms": 2000,
        "ssl.ca.location": settings.ca_file,
        "ssl.certificate.location": settings.client_cert_file,
        "ssl.key.location": settings.client_key_file or settings.client_cert_file,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _made(kind: Any, config: dict[str, Any]) -> Any:
    from confluent_kafka import KafkaException

    try:
        return kind(config, logger=librdkafka_log())
    except (KafkaException, ValueError) as error:
        raise SpecError(f"no Kafka client can be made ({type(error).__name__}): check the TLS files") from None


def _confluent_kafka() -> None:
    try:
        import confluent_kafka  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise SpecError("kind 'kafka' needs the extra 'kafka': pip install 'airflow-provider-ai[kafka]'") from None
