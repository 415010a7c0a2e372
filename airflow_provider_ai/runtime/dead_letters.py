"""The dead letters of a deployment, opened for people."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.job_settings import DispatcherSettings
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.patterns.audited_jobs import audited_jobs, audited_letters
from airflow_provider_ai.patterns.dead_letter_desk import DeadLetterDesk
from airflow_provider_ai.patterns.dispatcher import Dispatcher
from airflow_provider_ai.runtime.auditing import Audit, open_auditor
from airflow_provider_ai.runtime.dispatcher import STORE_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

_LOOK_SECONDS = 1.0
_JOINING_SECONDS = 15.0


@contextmanager
def open_dead_letter_desk(
    transport: TransportSettings,
    store: str,
    dispatcher: DispatcherSettings,
    keys: KeySettings | None = None,
    *,
    audit: Audit | None = None,
) -> Iterator[DeadLetterDesk]:
    """Look at dead letters and deal with them.

    :param store: SQLAlchemy URL
    :param keys: those of the dispatcher
    :param audit: None for no audit
    """
    # A member of a consumer group is given its partitions only after a while.
    seconds = _JOINING_SECONDS if transport.kind == "kafka" else _LOOK_SECONDS
    opened = open_store(store, timeout_seconds=STORE_TIMEOUT_SECONDS, codec=open_codec(keys))
    queues, auditor = open_transport(transport), open_auditor(audit)
    try:
        jobs, letters = audited_jobs(opened.jobs(), auditor), audited_letters(opened.dead_letters(), auditor)
        taker = Dispatcher(
            store=jobs,
            dead_letters=letters,
            transport=queues,
            settings=replace(dispatcher, poll_seconds=seconds),
            epoch=time.time,
            random=random.random,
        )
        yield DeadLetterDesk(
            store=jobs, letters=letters, transport=queues, take=taker.take_dead_letters, epoch=time.time
        )
    finally:
        queues.close()
        opened.close()
        auditor.close()
