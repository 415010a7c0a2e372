"""One delivery of a result over HTTP, signed: https://github.com/standard-webhooks/standard-webhooks

The id is the job's, the same for every delivery of its result, so a receiver can tell repetitions. The time, and so the
signature, is that of the delivery: one that is tried again later would else be refused as stale. Redirects are not
followed: a payload goes where the settings say and nowhere else.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType

import aiohttp
from standardwebhooks import Webhook

from airflow_provider_ai.adapters.endpoints.resolver import DaemonResolver
from airflow_provider_ai.adapters.endpoints.tls import tls_refusal
from airflow_provider_ai.core.backoff import retry_after_seconds
from airflow_provider_ai.core.job_settings import WebhookSettings
from airflow_provider_ai.core.webhook_decisions import Delivered, judge_delivery, judge_failure
from airflow_provider_ai.exceptions import SpecError


class HttpWebhookSender:
    """``async with HttpWebhookSender(settings) as sender``; to be used in that event loop.

    :param epoch: seconds since the epoch
    :raises SpecError: for a CA file that cannot be loaded
    """

    def __init__(self, settings: WebhookSettings, *, epoch: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._epoch = epoch
        self._webhook = Webhook(settings.secret)
        self._tls = _tls(settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpWebhookSender:
        connector = aiohttp.TCPConnector(limit=self._settings.concurrency, ssl=self._tls, resolver=DaemonResolver())
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, job_id: str, body: bytes) -> Delivered:
        """Deliver once; how it went. Raises nothing that the receiver or the network could cause."""
        if self._session is None:
            raise RuntimeError("HttpWebhookSender must be entered (async with) before it is used")
        now = self._epoch()
        try:
            async with self._session.post(
                self._settings.url_of(job_id),
                data=body,
                headers={"Content-Type": "application/json", **self._signed(job_id, body, now)},
                allow_redirects=False,
            ) as response:
                wait = retry_after_seconds(response.headers.get("Retry-After"), now=now)
                return judge_delivery(response.status, retry_after_seconds=wait)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            refused = tls_refusal(error)
            if refused is not None:
                return Delivered(detail=f"TLS: {refused}")
            return judge_failure(type(error).__name__)

    def _signed(self, job_id: str, body: bytes, now: float) -> dict[str, str]:
        moment = datetime.fromtimestamp(int(now), UTC)
        return {
            "webhook-id": job_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": self._webhook.sign(msg_id=job_id, timestamp=moment, data=body.decode()),
        }


def _tls(settings: WebhookSettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise SpecError(f"webhook ca_file cannot be loaded ({type(error).__name__})") from None
