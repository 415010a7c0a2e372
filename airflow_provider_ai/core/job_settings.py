"""Settings of those who work on jobs: worker, dispatcher and webhook. Frozen, checked where they are made."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_ai.core.config import is_number, is_whole, require
from airflow_provider_ai.core.hosts import is_loopback
from airflow_provider_ai.core.job_decisions import Patience

_LONGEST_VISIBILITY_SECONDS = 12 * 3600
_LONGEST_POLL_SECONDS = 20
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
SIGNING_KEY_FORM = "must be whsec_ and Base64 of 24 to 64 bytes"
_SECRET_BYTES = range(
    24, 65
)  # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker works.

    :param concurrency: jobs handled at a time, and so the most messages it fetches
    :param visibility_timeout_seconds: after which the message of a worker that died shows up again; kept up for longer
        work by a heartbeat, three times in that span
    :param max_attempts: tries of a job that count, by whichever workers; then it has failed
    :param deadline_seconds: what one try may take
    :param grace_seconds: on SIGTERM, how long jobs may still finish before they are given back
    :param retry_base_seconds: of the pause before the next try (full jitter), which grows up to ``retry_cap_seconds``
    :param hold_seconds: how long a worker keeps a job that the endpoint does not let in before it gives it back
    :param poll_seconds: how long one look at an empty queue waits; a worker that is idle takes so long to stop
    :param max_response_bytes: larger answers of the endpoint are refused
    :param health_port: of the health endpoint; None for none, 0 for any free one
    """

    concurrency: int = 16
    visibility_timeout_seconds: float = 30.0
    max_attempts: int = 5
    deadline_seconds: float = 300.0
    grace_seconds: float = 20.0
    retry_base_seconds: float = 1.0
    retry_cap_seconds: float = 60.0
    hold_seconds: float = 600.0
    poll_seconds: float = 2.0
    max_response_bytes: int = 64 * 1024 * 1024
    health_host: str = "127.0.0.1"
    health_port: int | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "max_response_bytes"):
            require(is_whole(getattr(self, name), 1), f"{name} must be an integer ≥ 1", getattr(self, name))
        for name in ("deadline_seconds", "retry_base_seconds", "retry_cap_seconds"):
            _check_seconds(name, getattr(self, name))
        for name in ("grace_seconds", "hold_seconds"):
            value = getattr(self, name)
            require(is_number(value) and value >= 0, f"{name} must be a number ≥ 0 (seconds)", value)
        seconds = self.visibility_timeout_seconds
        fits = is_number(seconds) and 1 <= seconds <= _LONGEST_VISIBILITY_SECONDS
        require(fits, "visibility_timeout_seconds must be a number in [1, 43200] (SQS's limit)", seconds)
        _check_poll(self.poll_seconds)
        _check_port(self.health_port)

    @property
    def lease_seconds(self) -> float:
        """Of a claim: it ends before the message shows up again, so that it is then free to be claimed."""
        return 0.9 * self.visibility_timeout_seconds

    @property
    def heartbeat_seconds(self) -> float:
        """Between heartbeats: two may fail."""
        return self.visibility_timeout_seconds / 3

    @property
    def patience(self) -> Patience:
        """How failed tries are repeated."""
        return Patience(
            max_attempts=self.max_attempts,
            base_seconds=self.retry_base_seconds,
            cap_seconds=self.retry_cap_seconds,
            wait_seconds=self.hold_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSettings:
    """A function that does the work in the place of an endpoint.

    :param target: ``module:function``; it is called as ``function(job)`` and may be ``async``
    """

    target: str

    def __post_init__(self) -> None:
        named = isinstance(self.target, str) and _TARGET.fullmatch(self.target) is not None
        require(named, "target must be module:function", self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """Where results are delivered beside the result queue, for jobs that ask for it.

    :param url: of the receiver's server; ``/ai/webhooks/jobs/{job_id}`` is added
    :param secret: ``whsec_`` and Base64 of 24 to 64 bytes (Standard Webhooks)
    :param timeout_seconds: of one delivery
    :param max_attempts: deliveries of one result; then it is left to the result queue
    :param concurrency: deliveries at a time
    """

    url: str
    secret: str = field(repr=False)
    timeout_seconds: float = 10.0
    max_attempts: int = 8
    concurrency: int = 16
    ca_file: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url if isinstance(self.url, str) else "")
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        require(known, "webhook url must look like https://host[:port], without credentials", "something else")
        require(not (parts.query or parts.fragment), "webhook url must have no query or fragment", "one")
        safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
        require(safe, "webhook url must be https:// unless it is on this machine", "http")
        require(is_webhook_secret(self.secret), f"webhook secret {SIGNING_KEY_FORM}", "something else")
        _check_seconds("timeout_seconds", self.timeout_seconds)
        for name in ("max_attempts", "concurrency"):
            require(is_whole(getattr(self, name), 1), f"{name} must be an integer ≥ 1", getattr(self, name))

    def url_of(self, job_id: str) -> str:
        """Where the result of a job is delivered."""
        return f"{self.url.rstrip('/')}/ai/webhooks/jobs/{job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSettings:
    """How a dispatcher works.

    :param lanes: threads that take results
    :param poll_seconds: how long one look at an empty queue waits; a dispatcher that is idle takes so long to stop
    :param visibility_timeout_seconds: after which a reply that a dispatcher died with shows up again
    :param reconcile_seconds: between two looks for what was lost
    :param resend_after_seconds: after which a request that was not begun is taken for lost and sent again; longer than
        the queue's backlog takes, or messages are sent twice in vain
    :param deliver_after_seconds: after which an outcome that has not arrived is taken from the store
    :param keep_days: after which finished jobs are removed from the store; None for never
    """

    lanes: int = 2
    poll_seconds: float = 5.0
    visibility_timeout_seconds: float = 60.0
    reconcile_seconds: float = 15.0
    resend_after_seconds: float = 900.0
    deliver_after_seconds: float = 30.0
    keep_days: float | None = None
    health_host: str = "127.0.0.1"
    health_port: int | None = None

    def __post_init__(self) -> None:
        require(is_whole(self.lanes, 1), "lanes must be an integer ≥ 1", self.lanes)
        for name in (
            "reconcile_seconds",
            "resend_after_seconds",
            "deliver_after_seconds",
            "visibility_timeout_seconds",
        ):
            _check_seconds(name, getattr(self, name))
        _check_poll(self.poll_seconds)
        _check_port(self.health_port)
        days = self.keep_days
        kept = days is None or (is_number(days) and days > 0)
        require(kept, "keep_days must be a number > 0 (days) or absent", days)


def _check_seconds(name: str, value: object) -> None:
    require(is_number(value) and value > 0, f"{name} must be a number > 0 (seconds)", value)  # type: ignore[operator]


def _check_poll(value: object) -> None:
    fits = is_number(value) and 0 < value <= _LONGEST_POLL_SECONDS  # type: ignore[operator]
    require(fits, "poll_seconds must be a number in (0, 20] (SQS's limit)", value)


def _check_port(value: object) -> None:
    fits = value is None or (is_whole(value, 0) and value <= 65535)  # type: ignore[operator]
    require(fits, "health_port must be an integer in [0, 65535] or absent", value)


def is_webhook_secret(secret: object) -> bool:
    """Whether it can sign webhooks: a short key could be guessed."""
    if not isinstance(secret, str) or not secret.startswith("whsec_"):
        return False
    try:
        return len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) in _SECRET_BYTES
    except binascii.Error:
        return False
