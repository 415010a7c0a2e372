"""The dispatcher as a service, and as a part of another process."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.claim_checks import StoredClaimChecks
from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.job_metrics import DispatcherMetrics
from airflow_provider_ai.core.job_settings import DispatcherSettings
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import StoreUnavailableError
from airflow_provider_ai.patterns.audited_jobs import audited_jobs, audited_letters
from airflow_provider_ai.patterns.dispatcher import Dispatcher
from airflow_provider_ai.runtime.auditing import Audit, open_auditor
from airflow_provider_ai.runtime.services import health

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

STORE_TIMEOUT_SECONDS = 10.0
_LAST_LOOK_SECONDS = 5.0  # beyond its wait, for a look that is under way
_LOOK_SECONDS = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherJob:
    """Everything a dispatcher needs.

    :param store: SQLAlchemy URL
    :param keys: for dead letters; it reads no payload
    :param audit: None for no audit
    """

    transport: TransportSettings
    store: str
    dispatcher: DispatcherSettings = field(default_factory=DispatcherSettings)
    claim_check: ClaimCheckSettings = field(default_factory=ClaimCheckSettings)
    storage: StorageOptions = field(default_factory=StorageOptions)
    keys: KeySettings | None = None
    audit: Audit | None = None


@contextmanager
def dispatching(job: DispatcherJob) -> Iterator[Dispatcher]:
    """A dispatcher that works in daemon threads as long as the context lasts. No signal handlers.

    The store is not waited for: until it is there the threads try again.
    """
    store = open_store(job.store, timeout_seconds=STORE_TIMEOUT_SECONDS, codec=open_codec(job.keys))
    transport = open_transport(job.transport)
    uri, auditor = job.claim_check.uri, open_auditor(job.audit)
    dispatcher = Dispatcher(
        store=audited_jobs(store.jobs(), auditor),
        dead_letters=audited_letters(store.dead_letters(), auditor),
        transport=transport,
        settings=job.dispatcher,
        epoch=time.time,
        random=random.random,
        claim_checks=None if uri is None else StoredClaimChecks(uri, job.storage),
    )
    try:
        dispatcher.start()
        yield dispatcher
    finally:
        dispatcher.stop(timeout_seconds=job.dispatcher.poll_seconds + _LAST_LOOK_SECONDS)
        transport.close()
        store.close()
        auditor.close()


def run_dispatcher(job: DispatcherJob, *, stop: StopToken) -> DispatcherMetrics:
    """Dispatch until a stop is asked for; what was done.

    :raises SpecError: for settings that cannot be right
    :raises StoreSchemaError: when the store's tables are not those of this package
    """
    _check_store(job)
    settings = job.dispatcher
    with (
        dispatching(job) as dispatcher,
        health(
            settings.health_host,
            settings.health_port,
            live=lambda: dispatcher.alive,
            ready=lambda: dispatcher.ready,
            metrics=dispatcher.metrics.text,
            listening=lambda port: log.info("health endpoint at port %d", port),
        ),
    ):
        log.info("dispatching from %s", job.transport.result_queue)
        while not stop.wait(_LOOK_SECONDS):
            pass
        log.info("stopping (%s)", stop.reason)
    return dispatcher.metrics


def _check_store(job: DispatcherJob) -> None:
    """A store that is down is waited for later; one that can never be used is an error now."""
    store = open_store(job.store, timeout_seconds=STORE_TIMEOUT_SECONDS)
    try:
        store.prepare()
    except StoreUnavailableError as error:
        log.warning("waiting for the store: %s", error)
    finally:
        store.close()
