"""The transport that settings name. Only the client of that service is imported, when its first call is made."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_ai.core.job_ports import MessageQueue, Transport
from airflow_provider_ai.core.transport_settings import TransportSettings


def open_transport(settings: TransportSettings) -> Transport:
    """The queues of a deployment. Nothing is connected before the first call.

    :raises SpecError: for a missing extra
    """
    opened = _kafka(settings) if settings.kind == "kafka" else _sqs(settings)
    requests, results, dead_letters = map(opened, settings.queues)
    return Transport(requests=requests, results=results, dead_letters=dead_letters)


def _sqs(settings: TransportSettings) -> Callable[[str], MessageQueue]:
    from airflow_provider_ai.adapters.queues.sqs import SqsQueue
    from airflow_provider_ai.adapters.queues.sqs_service import SqsService

    service = SqsService(settings)
    return lambda name: SqsQueue(service, name, fifo=settings.fifo)


def _kafka(settings: TransportSettings) -> Callable[[str], MessageQueue]:
    from airflow_provider_ai.adapters.queues.kafka import KafkaQueue
    from airflow_provider_ai.adapters.queues.kafka_service import KafkaService

    service = KafkaService(settings)
    return lambda name: KafkaQueue(service, name)
