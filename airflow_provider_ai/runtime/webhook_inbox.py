"""Webhooks of workers → the inbox: what is signed, fresh and for a job of this store arrives; all else is refused.

A reply is acknowledged only after its row is durable, and inserted unless one is there, so a delivery that is repeated
changes nothing. What is refused is refused in one way, whatever the reason, and audited: a line in the log, and in the
store at most one row for each reason and minute, since anyone may send anything. Those rows hold no payload. A signed
reply for a job that nobody knows is kept whole, as the dispatcher keeps one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Protocol

import orjson

from airflow_provider_ai.adapters.webhooks.receiver import ID, SIGNATURE, TIMESTAMP, TOLERANCE_SECONDS
from airflow_provider_ai.core.job_reasons import UNKNOWN_JOB
from airflow_provider_ai.core.jobs import Outcome
from airflow_provider_ai.core.messages import MAX_MESSAGE_BYTES, decode_result
from airflow_provider_ai.exceptions import EncryptionError, StoreError, UndecodableMessageError

MOST_BYTES: Final = MAX_MESSAGE_BYTES
VIA: Final = "webhook"

# Why a webhook is refused, beside what is wrong with its signature or its message.
OVERSIZED: Final = "oversized"
REPLAYED: Final = "replayed"  # the very same delivery was taken before
WRONG_JOB: Final = "wrong_job"  # addressed to another job than the one it is about

_MOST_REMEMBERED = 10_000
_MINUTE_SECONDS = 60
log = logging.getLogger(__name__)


class Taken(Enum):
    """What becomes of a webhook."""

    DURABLE = "durable"  # its row is in the inbox
    REFUSED = "refused"  # another delivery of it is refused as well
    LATER = "later"  # the store is down: deliver it again


class Checks(Protocol):
    """Checks signatures: :class:`airflow_provider_ai.adapters.webhooks.receiver.SignatureCheck`."""

    def refusal(self, headers: Mapping[str, str], body: bytes, *, now: float) -> str | None:
        """Why it is not to be believed; None when it is."""
        ...


class Inbox(Protocol):
    """The part of a JobStore that is written."""

    def receive(self, job_id: str, outcome: Outcome, *, via: str) -> bool:
        """Insert an outcome into the inbox unless one is there; False for an unknown job."""
        ...

    def keep_unknown(self, message: bytes, *, job_id: str | None, via: str, reason: str) -> None:
        """Keep what belongs to no job, for people to look at."""
        ...


class WebhookInbox:
    """Takes webhooks. Thread-safe; every method blocks.

    :param clock: epoch seconds
    """

    def __init__(self, inbox: Inbox, *, clock: Callable[[], float] = time.time) -> None:
        self._inbox = inbox
        self._clock = clock
        self._seen: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._audited: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def take(self, job_id: str, headers: Mapping[str, str], body: bytes, checks: Checks) -> Taken:
        """Take a webhook that was delivered for a job.

        :param headers: with names in lower case
        :param body: whole; one that is larger than ``MOST_BYTES`` need not be read: :meth:`refuse`
        """
        delivery = tuple(headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
        reason = checks.refusal(headers, body, now=self._clock())
        if reason is None and self._is_replayed(delivery):
            reason = REPLAYED
        if reason is not None:
            return self.refuse(reason)
        try:
            reply = decode_result(body)
        except UndecodableMessageError as error:
            return self.refuse(error.reason)
        if job_id != reply.job_id or headers[ID] != job_id:
            return self.refuse(WRONG_JOB)
        return self._arrive(job_id, reply.outcome, body, delivery)

    def refuse(self, reason: str) -> Taken:
        """Refuse a webhook, and audit that."""
        log.warning("a webhook is refused (%s)", reason)
        if self._is_first_of_its_minute(reason):
            minute = int(self._clock()) // _MINUTE_SECONDS * _MINUTE_SECONDS
            self._keep({"refused": reason, "minute": minute}, reason)
        return Taken.REFUSED

    def _arrive(self, job_id: str, outcome: Outcome, body: bytes, delivery: tuple[str, ...]) -> Taken:
        try:
            known = self._inbox.receive(job_id, outcome, via=VIA)
            if not known:
                self._inbox.keep_unknown(body, job_id=job_id, via=VIA, reason=UNKNOWN_JOB)
        except (StoreError, EncryptionError) as error:
            log.warning("a webhook cannot be taken now: %s", error)
            return Taken.LATER
        if not known:
            log.warning("a webhook belongs to no job of this store (%s); it is kept for people to look at", job_id)
            return Taken.REFUSED
        self._remember(delivery)
        return Taken.DURABLE

    def _keep(self, row: Mapping[str, Any], reason: str) -> None:
        try:
            self._inbox.keep_unknown(orjson.dumps(row), job_id=None, via=VIA, reason=reason)
        except (StoreError, EncryptionError) as error:
            log.warning("a refused webhook is not audited in the store: %s", error)

    def _is_first_of_its_minute(self, reason: str) -> bool:
        now = (reason, int(self._clock()) // _MINUTE_SECONDS)
        with self._lock:
            if now in self._audited:
                return False
            self._audited = {(word, minute) for word, minute in self._audited if minute == now[1]} | {now}
            return True

    def _is_replayed(self, delivery: tuple[str, ...]) -> bool:
        oldest = self._clock() - 2 * TOLERANCE_SECONDS
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < oldest:
                self._seen.popitem(last=False)
            return delivery in self._seen

    def _remember(self, delivery: tuple[str, ...]) -> None:
        with self._lock:
            self._seen[delivery] = self._clock()
            if len(self._seen) > _MOST_REMEMBERED:
                self._seen.popitem(last=False)
