"""Webhooks: what is taken, what is refused, and what is left of it."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from airflow_provider_ai.adapters.webhooks.receiver import SignatureCheck
from airflow_provider_ai.core.jobs import Content, JobState, NewJob, Outcome, job_id
from airflow_provider_ai.core.messages import ResultMessage, encode_result
from airflow_provider_ai.exceptions import KeyRevokedError
from airflow_provider_ai.runtime.webhook_inbox import Taken, WebhookInbox
from airflow_provider_ai.testing import InMemoryJobStore

KEY, OTHER, THIRD = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
CHECKS = SignatureCheck([KEY, OTHER])
JOB = job_id("s", 0)
OUTPUT = b'{"secret":"PHI-1"}'
HASH = hashlib.sha256(OUTPUT).hexdigest()


class Clock:
    """Time that a test moves. Signatures are checked against real time as well."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def store() -> InMemoryJobStore:
    made = InMemoryJobStore()
    made.submit([NewJob(job_id=JOB, submission="s", position=0, payload=Content(sha256="0" * 64, inline=b"{}"))])
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(store: InMemoryJobStore, clock: Clock) -> WebhookInbox:
    return WebhookInbox(store, clock=clock)


def body(job: str = JOB) -> bytes:
    outcome = Outcome(state=JobState.SUCCEEDED, content=Content(sha256=HASH, inline=OUTPUT))
    return encode_result(ResultMessage(job_id=job, source="/w", time=time.time(), fence=1, outcome=outcome))


def signed(data: bytes, *, key: str = KEY, job: str = JOB, ago: float = 0.0) -> dict[str, str]:
    moment = int(time.time() - ago)
    signature = Webhook(key).sign(msg_id=job, timestamp=datetime.fromtimestamp(moment, UTC), data=data.decode())
    return {"webhook-id": job, "webhook-timestamp": str(moment), "webhook-signature": signature}


def arrived(store: InMemoryJobStore) -> list[Any]:
    return [arrival.outcome.content.inline for arrival in store.arrivals("s") if arrival.outcome.content]


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_a_signed_reply_arrives(inbox: WebhookInbox, store: InMemoryJobStore, key: str) -> None:
    """Under either of the two active keys."""
    data = body()
    assert inbox.take(JOB, signed(data, key=key), data, CHECKS) is Taken.DURABLE
    assert arrived(store) == [OUTPUT]
    assert store.unknown == {}


def test_a_repeated_delivery_changes_nothing(inbox: WebhookInbox, store: InMemoryJobStore) -> None:
    """The worker did not hear of the first one; a reply that came by the queue meanwhile is no matter either."""
    store.receive(JOB, Outcome(state=JobState.FAILED, reason="first"), via="queue")
    for ago in (2, 1):
        data = body()
        assert inbox.take(JOB, signed(data, ago=ago), data, CHECKS) is Taken.DURABLE
    assert [arrival.outcome.reason for arrival in store.arrivals("s")] == ["first"]


GOOD = body()
# Signed when the test runs, for signatures do not keep.
REFUSED: list[tuple[str, Callable[[], dict[str, str]], bytes, str]] = [
    ("unsigned", dict, GOOD, JOB),
    ("unsigned", lambda: {**signed(GOOD), "webhook-signature": ""}, GOOD, JOB),
    ("wrong_signature", lambda: signed(GOOD, key=THIRD), GOOD, JOB),
    ("wrong_signature", lambda: signed(GOOD), GOOD.replace(b"PHI-1", b"PHI-2"), JOB),
    ("wrong_signature", lambda: {**signed(GOOD), "webhook-signature": "v1"}, GOOD, JOB),
    ("wrong_signature", lambda: {**signed(GOOD), "webhook-signature": "v1,ä v2,AAAA"}, GOOD, JOB),
    ("wrong_signature", lambda: {**signed(GOOD), "webhook-id": job_id("s", 1)}, GOOD, JOB),
    ("wrong_signature", lambda: signed(GOOD), b"\xff", JOB),
    ("stale", lambda: signed(GOOD, ago=301), GOOD, JOB),
    ("stale", lambda: signed(GOOD, ago=-310), GOOD, JOB),
    ("stale", lambda: {**signed(GOOD), "webhook-timestamp": "nan"}, GOOD, JOB),
    ("stale", lambda: {**signed(GOOD), "webhook-timestamp": "now"}, GOOD, JOB),
    ("wrong_job", lambda: signed(GOOD), GOOD, job_id("s", 1)),
    ("wrong_job", lambda: signed(GOOD, job=job_id("s", 1)), GOOD, job_id("s", 1)),
    ("wrong_job", lambda: signed(GOOD, job=job_id("s", 1)), GOOD, JOB),
    ("not_json", lambda: signed(b"{"), b"{", JOB),
]


@pytest.mark.parametrize(
    ("reason", "headers", "data", "job"), REFUSED, ids=[f"{n}-{row[0]}" for n, row in enumerate(REFUSED)]
)
def test_what_is_not_as_it_should_be_is_refused_and_audited(
    inbox: WebhookInbox,
    store: InMemoryJobStore,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    headers: Callable[[], dict[str, str]],
    data: bytes,
    job: str,
) -> None:
    """Nothing arrives; the store and the log say why, and hold nothing of what was sent."""
    assert inbox.take(job, headers(), data, CHECKS) is Taken.REFUSED
    assert arrived(store) == []
    [kept] = store.unknown.values()
    assert (kept.via, kept.reason, kept.job_id) == ("webhook", reason, None)
    assert json.loads(kept.message)["refused"] == reason
    assert reason in caplog.text
    assert "PHI" not in caplog.text + kept.message.decode()


def test_a_replayed_delivery_is_refused(inbox: WebhookInbox, store: InMemoryJobStore) -> None:
    """Somebody sends what he has overheard."""
    data = body()
    headers = signed(data)
    assert inbox.take(JOB, headers, data, CHECKS) is Taken.DURABLE
    assert inbox.take(JOB, headers, data, CHECKS) is Taken.REFUSED
    assert [kept.reason for kept in store.unknown.values()] == ["replayed"]


def test_a_delivery_that_could_not_be_taken_is_taken_later(inbox: WebhookInbox, store: InMemoryJobStore) -> None:
    """The store was down; the very same delivery is no replay then."""
    data = body()
    headers = signed(data)
    store.available = False
    assert inbox.take(JOB, headers, data, CHECKS) is Taken.LATER
    assert inbox.take(JOB, {}, data, CHECKS) is Taken.REFUSED
    store.available = True
    assert inbox.take(JOB, headers, data, CHECKS) is Taken.DURABLE


def test_a_reply_that_cannot_be_encrypted_is_delivered_later(
    inbox: WebhookInbox, store: InMemoryJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one for people to look at, and the key of such is revoked; nothing is acknowledged."""
    unknown = job_id("other", 0)
    data = body(unknown)

    def revoked(*_: object, **__: object) -> None:
        raise KeyRevokedError("disabled")

    monkeypatch.setattr(store, "keep_unknown", revoked)
    assert inbox.take(unknown, signed(data, job=unknown), data, CHECKS) is Taken.LATER


def test_a_signed_reply_for_no_job_is_kept_whole(inbox: WebhookInbox, store: InMemoryJobStore) -> None:
    """A worker has it from somewhere: people look at it."""
    unknown = job_id("other", 0)
    data = body(unknown)
    assert inbox.take(unknown, signed(data, job=unknown), data, CHECKS) is Taken.REFUSED
    [kept] = store.unknown.values()
    assert (kept.message, kept.job_id, kept.reason) == (data, unknown, "unknown_job")


def test_anyone_may_send_anything_and_fills_no_store(
    inbox: WebhookInbox, store: InMemoryJobStore, clock: Clock
) -> None:
    """One row for each reason and minute."""
    for _ in range(100):
        inbox.take(JOB, {}, b"x", CHECKS)
    assert len(store.unknown) == 1
    clock.ahead = 60
    inbox.take(JOB, {}, b"x", CHECKS)
    assert len(store.unknown) == 2


def test_without_a_key_everything_is_refused(inbox: WebhookInbox, store: InMemoryJobStore) -> None:
    """A receiver that is not set up."""
    data = body()
    assert inbox.take(JOB, signed(data), data, SignatureCheck([])) is Taken.REFUSED
    assert arrived(store) == []
