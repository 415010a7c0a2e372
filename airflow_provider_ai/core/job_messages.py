"""The message that asks for a job: the same from whoever submits it and from whoever finds that it was lost."""

from __future__ import annotations

from typing import Final

from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.jobs import Job
from airflow_provider_ai.core.messages import RequestMessage, encode_request

SUBMITTER: Final = "/airflow-ai/submitter"


def request_message(job: Job, *, now: float, source: str = SUBMITTER) -> OutgoingMessage:
    """Made from the job as the store has it, so its payload is the one that a worker's claim is checked against.

    :param now: epoch seconds
    :param source: who sends it: a URI reference
    """
    message = RequestMessage(job_id=job.job_id, source=source, time=now, payload=job.payload, expires_at=job.expires_at)
    return OutgoingMessage(key=job.job_id, body=encode_request(message), group=job.group)
