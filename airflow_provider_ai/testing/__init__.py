"""Fakes for testing pipelines built on this package without a server, a warehouse or a disk.

They keep the promises of the ports they stand for (a sink commits all or nothing, a log holds what was appended) and
break them only where a test asks for it. All of them are for one process; none needs a network or a clock of its own.

* :class:`FakeModelEndpoint` answers protocol ``json`` (``JsonRequest``) and counts what it was asked
* :class:`InMemoryAudit` is the audit, one chain of it
* :class:`BlockReader` reads records that a test holds in a list
* :class:`InMemoryClaimChecks` keeps payloads and results that are too large for a message
* :class:`InMemoryStorage` keeps checkpoints
* :class:`InMemorySink` is the warehouse table
* :class:`InMemoryDeadLetters` holds dead letters that were taken out of their queue
* :class:`InMemoryJobStore` is the store of jobs with its inbox
* :class:`InMemoryQueue` and :class:`InMemoryTransport` are the queues of jobs, with :class:`QueueFaults` on request
* :class:`InMemoryStore` is the store of synchronous calls: :class:`InMemoryGate` and :class:`InMemoryGoodAnswers`
"""

from __future__ import annotations

from airflow_provider_ai.testing.audit import InMemoryAudit
from airflow_provider_ai.testing.block_reader import BlockReader
from airflow_provider_ai.testing.claim_checks import InMemoryClaimChecks
from airflow_provider_ai.testing.dead_letters import InMemoryDeadLetters
from airflow_provider_ai.testing.job_store import InMemoryJobStore, UnknownReply
from airflow_provider_ai.testing.model_endpoint import FakeModelEndpoint, Fault
from airflow_provider_ai.testing.queue import InMemoryQueue, InMemoryTransport, QueueFaults
from airflow_provider_ai.testing.sink import InMemorySink
from airflow_provider_ai.testing.storage import InMemoryStorage
from airflow_provider_ai.testing.store import InMemoryGate, InMemoryGoodAnswers, InMemoryStore

__all__ = [
    "BlockReader",
    "FakeModelEndpoint",
    "Fault",
    "InMemoryAudit",
    "InMemoryClaimChecks",
    "InMemoryDeadLetters",
    "InMemoryGate",
    "InMemoryGoodAnswers",
    "InMemoryJobStore",
    "InMemoryQueue",
    "InMemorySink",
    "InMemoryStorage",
    "InMemoryStore",
    "InMemoryTransport",
    "QueueFaults",
    "UnknownReply",
]
