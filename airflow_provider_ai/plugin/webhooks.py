"""``POST /ai/webhooks/jobs/{job_id}``: workers deliver results here, signed, without a login to Airflow.

Invariants: every refusal looks the same, whether a key, a time, a job or a size was wrong, so nothing can be learnt by
trying; not more than a message's most bytes are read of anyone; 2xx means that the row is durable; 503 means that it
may be delivered again. Store and connections are used in threads.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import conf
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.webhooks.receiver import SignatureCheck
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.phi_policy import Phi
from airflow_provider_ai.hooks.ai_jobs import DEFAULT_CONN_ID, AIJobsHook
from airflow_provider_ai.hooks.audit import audit_settings
from airflow_provider_ai.hooks.phi import package_wide
from airflow_provider_ai.patterns.audited_jobs import audited_jobs
from airflow_provider_ai.runtime.auditing import Audit, open_auditor
from airflow_provider_ai.runtime.phi import require_phi
from airflow_provider_ai.runtime.request_reply import STORE_TIMEOUT_SECONDS
from airflow_provider_ai.runtime.webhook_inbox import MOST_BYTES, OVERSIZED, Taken, WebhookInbox

PREFIX = "/ai/webhooks"
LOOKED_UP_EVERY_SECONDS = 60.0
LOOKED_UP_AGAIN_AFTER_SECONDS = 5.0  # when that did not work: anyone may ask, and each look-up costs
_STATUS = {Taken.DURABLE: 204, Taken.REFUSED: 401, Taken.LATER: 503}
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Receiver:
    """What a connection says, opened."""

    checks: SignatureCheck
    url: str
    audit: AuditSettings | None
    inbox: WebhookInbox


class Receivers:
    """The receiver behind ``[ai_patterns] webhook_conn_id``; its connection is looked up once a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._receiver: _Receiver | None = None
        self._look_up_at = float("-inf")

    def receiver(self) -> _Receiver | None:
        """The receiver; None when there is no connection, or none that can be right."""
        with self._lock:
            now = time.monotonic()
            if now < self._look_up_at:
                return self._receiver
            try:
                self._receiver = self._looked_up(self._receiver)
                self._look_up_at = now + LOOKED_UP_EVERY_SECONDS
            except Exception as error:  # noqa: BLE001 - a connection, a secrets backend or a setting of whatever kind
                log.error("the connection of webhooks cannot be looked up (%s)", type(error).__name__)
                self._look_up_at = now + LOOKED_UP_AGAIN_AFTER_SECONDS
            return self._receiver

    def _looked_up(self, known: _Receiver | None) -> _Receiver:
        from airflow_provider_ai.adapters.crypto.opening import open_codec
        from airflow_provider_ai.hooks.ai_keys import keys_of
        from airflow_provider_ai.hooks.store import store_connection

        connection = AIJobsHook(conf.get("ai_patterns", "webhook_conn_id", fallback=DEFAULT_CONN_ID)).connection()
        found, keys = store_connection(connection.store_conn_id), keys_of(connection.keys_conn_id)
        settings = audit_settings()
        url, checks = found.url, SignatureCheck(connection.webhook_secrets)
        phi = Phi(on=found.phi or package_wide())
        require_phi(phi, keys=keys, audit=settings, transport=connection.transport, databases={"store": url})
        if known is not None and (known.url, known.audit) == (url, settings):
            known.checks = checks
            return known
        codec = open_codec(keys)
        store = open_store(url, timeout_seconds=STORE_TIMEOUT_SECONDS, codec=codec)
        who = Actor(kind="service", role="dispatcher")
        auditor = open_auditor(None if settings is None else Audit(settings=settings, actor=who))
        inbox = WebhookInbox(audited_jobs(store.jobs(), auditor))
        return _Receiver(checks=checks, url=url, audit=settings, inbox=inbox)

    def take(self, job_id: str, headers: dict[str, str], body: bytes | None) -> Taken:
        """Take a webhook; ``body`` is None for one that is too large."""
        found = self.receiver()
        if found is None:
            return Taken.LATER
        if body is None:
            return found.inbox.refuse(OVERSIZED)
        return found.inbox.take(job_id, headers, body, found.checks)


def make_app() -> FastAPI:
    """The application that Airflow mounts at ``PREFIX``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    receivers = Receivers()

    @app.post("/jobs/{job_id}")
    async def deliver(job_id: str, request: Request) -> Response:
        body = await limited_body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken = await run_in_threadpool(receivers.take, job_id, headers, body)
        return Response(status_code=_STATUS[taken])

    return app


async def limited_body(request: Any) -> bytes | None:
    """The body; None when it is larger than ``MOST_BYTES``, of which no more than that is read."""
    try:
        announced = int(request.headers.get("content-length", "0"))
    except ValueError:
        return None
    if announced > MOST_BYTES:
        return None
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
