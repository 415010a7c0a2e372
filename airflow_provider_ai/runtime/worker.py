"""The worker as a service: adapters opened, the pattern run until SIGTERM, everything closed."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck, StoredClaimChecks
from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import EndpointSettings, StorageOptions, require
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.job_handling import Handler
from airflow_provider_ai.core.job_metrics import WorkerMetrics
from airflow_provider_ai.core.job_settings import HandlerSettings, WebhookSettings, WorkerSettings
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import StoreUnavailableError
from airflow_provider_ai.patterns.audited_jobs import AuditedHandler, audited_jobs
from airflow_provider_ai.patterns.job_handlers import EndpointHandler, FunctionHandler
from airflow_provider_ai.patterns.job_worker import JobWorker
from airflow_provider_ai.patterns.webhook_outbox import WebhookOutbox
from airflow_provider_ai.runtime.auditing import Audit, open_auditor
from airflow_provider_ai.runtime.process import undisturbed_loop
from airflow_provider_ai.runtime.services import Pulse, health, owner_name, stopped_by_signals
from airflow_provider_ai.runtime.user_functions import imported

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

STORE_TIMEOUT_SECONDS = 10.0
_STORE_PAUSE_SECONDS = 1.0
_SMALL_BYTES = 16 * 1024
_WEBHOOK_GRACE_SECONDS = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJob:
    """Everything a worker needs: either ``handler``, or ``endpoint`` with ``request``.

    :param store: SQLAlchemy URL
    :param keys: the same as those who submit; None for payloads and results in clear
    :param audit: None for no audit
    """

    transport: TransportSettings
    store: str
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    claim_check: ClaimCheckSettings = field(default_factory=ClaimCheckSettings)
    storage: StorageOptions = field(default_factory=StorageOptions)
    handler: HandlerSettings | None = None
    endpoint: EndpointSettings | None = None
    request: Request | None = None
    webhook: WebhookSettings | None = None
    keys: KeySettings | None = None
    audit: Audit | None = None

    @property
    def served_by(self) -> str | None:
        """What answers its jobs: the endpoint's model, or the handler function."""
        if self.endpoint is not None:
            return self.endpoint.model
        return None if self.handler is None else self.handler.target

    def __post_init__(self) -> None:
        one = (self.handler is None) != (self.endpoint is None)
        require(one, "a worker needs either an [endpoint] or a [handler]", "both" if self.handler else "neither")
        require((self.endpoint is None) == (self.request is None), "endpoint and request must come together", "one")

    @property
    def model(self) -> str | None:
        """Who does the work: a model, or a function."""
        if self.endpoint is not None:
            return self.endpoint.model
        return None if self.handler is None else self.handler.target

    @property
    def prompt_hash(self) -> str | None:
        """16 hex digits of everything that shapes a request; None with a function."""
        return None if self.request is None else digest("request", self.request.identity(), length=16)


def run_worker(job: WorkerJob) -> WorkerMetrics:
    """Work until SIGTERM or Ctrl-C; what was done.

    :raises SpecError: for settings that cannot be right: a handler that cannot be imported, a port that is taken
    :raises StoreSchemaError: when the store's tables are not those of this package
    :raises EncryptionError: when results cannot be encrypted
    """
    with undisturbed_loop():
        return asyncio.run(_serve(job))


async def _serve(job: WorkerJob) -> WorkerMetrics:
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(stopped_by_signals(partial(_note, stop)))
        contents = _contents(job)
        contents.prepare("result")
        store = open_store(job.store, timeout_seconds=STORE_TIMEOUT_SECONDS)
        stack.callback(store.close)
        transport = open_transport(job.transport)
        stack.callback(transport.close)
        auditor = open_auditor(job.audit)
        stack.callback(auditor.close)
        handler = await stack.enter_async_context(_handler(job))
        if auditor.on:
            handler = AuditedHandler(handler, auditor, model=job.model, prompt_hash=job.prompt_hash)
        metrics = WorkerMetrics()
        outbox = await _outbox(job, stack, metrics)
        worker = JobWorker(
            store=audited_jobs(store.jobs(), auditor, model=job.model, prompt_hash=job.prompt_hash),
            transport=transport,
            contents=contents,
            handler=handler,
            settings=job.worker,
            owner=owner_name(),
            epoch=time.time,
            random=random.random,
            webhook=outbox,
            served_by=job.served_by,
            metrics=metrics,
            small_bytes=min(_SMALL_BYTES, job.claim_check.inline_limit_bytes // 2),  # a codec may add to them
        )
        pulse = Pulse()
        beating = asyncio.create_task(pulse.run())
        stack.callback(beating.cancel)
        stack.enter_context(
            health(
                job.worker.health_host,
                job.worker.health_port,
                live=lambda: pulse.alive,
                ready=lambda: worker.ready,
                metrics=metrics.text,
                listening=_listening,
            )
        )
        if await _store_is_ready(store, stop):
            log.info("working on %s with %d slots", transport.requests.name, job.worker.concurrency)
            await _until_stopped(worker, stop)
    log.info("stopped")
    return metrics


async def _until_stopped(worker: JobWorker, stop: asyncio.Event) -> None:
    async def pass_on() -> None:
        await stop.wait()
        worker.stop()

    passing = asyncio.create_task(pass_on())
    try:
        await worker.run()
    finally:
        passing.cancel()


async def _store_is_ready(store: Store, stop: asyncio.Event) -> bool:
    """Connect, however long that takes; False when the worker is stopped before."""
    said = False
    while not stop.is_set():
        try:
            await asyncio.to_thread(store.prepare)
        except StoreUnavailableError as error:
            if not said:
                log.warning("waiting for the store: %s", error)
            said = True
        else:
            return True
        try:
            await asyncio.wait_for(stop.wait(), _STORE_PAUSE_SECONDS)
        except TimeoutError:
            continue
    return False


@asynccontextmanager
async def _handler(job: WorkerJob) -> AsyncIterator[Handler]:
    if job.endpoint is not None and job.request is not None:
        from airflow_provider_ai.adapters.endpoints.opening import open_endpoint

        opening = open_endpoint(job.endpoint, max_response_bytes=job.worker.max_response_bytes, announce_deadline=True)
        async with opening as endpoint:
            yield EndpointHandler(endpoint, settings=job.endpoint, request=job.request)
    elif job.handler is not None:
        handler = FunctionHandler(
            imported(job.handler.target, setting="[handler] target"), most_threads=2 * job.worker.concurrency
        )
        try:
            yield handler
        finally:
            handler.close()


def _contents(job: WorkerJob) -> InlineOrClaimCheck:
    uri = job.claim_check.uri
    claims = None if uri is None else StoredClaimChecks(uri, job.storage)
    return InlineOrClaimCheck(claims, codec=open_codec(job.keys), inline_limit_bytes=job.claim_check.inline_limit_bytes)


async def _outbox(job: WorkerJob, stack: AsyncExitStack, metrics: WorkerMetrics) -> WebhookOutbox | None:
    if job.webhook is None:
        return None
    from airflow_provider_ai.adapters.webhooks import HttpWebhookSender

    sender = await stack.enter_async_context(HttpWebhookSender(job.webhook))
    outbox = WebhookOutbox(
        sender,
        concurrency=job.webhook.concurrency,
        max_attempts=job.webhook.max_attempts,
        endings=metrics.webhooks,
        random=random.random,
    )
    stack.push_async_callback(outbox.close, seconds=min(_WEBHOOK_GRACE_SECONDS, job.worker.grace_seconds))
    return outbox


def _note(stop: asyncio.Event, reason: str) -> None:
    log.info("stopping (%s): finishing or giving back what is in flight", reason)
    stop.set()


def _listening(port: int) -> None:
    log.info("health endpoint at port %d", port)
