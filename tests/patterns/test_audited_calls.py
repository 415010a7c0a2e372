"""Synchronous calls, audited: nothing is sent before it is on record, and the deadline holds whatever happens there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome
from airflow_provider_ai.core.call_reasons import AUDIT_UNAVAILABLE
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.fallback import LastGood
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.ports import Reply
from airflow_provider_ai.exceptions import AuditUnavailableError
from airflow_provider_ai.patterns.audited_calls import AuditedGoodAnswers, CallAudit
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.testing import InMemoryAudit, InMemoryGate, InMemoryGoodAnswers
from tests.patterns.calls import ROUTINE, TIMEOUT, ScriptedEndpoint, good, hang, sync_call, target
from tests.support.processes import wait_until

SECRET = b"s" * 32
INFER, READ = AuditAction.INFER, AuditAction.READ
INTENDED, SUCCEEDED, FAILED = AuditOutcome.INTENDED, AuditOutcome.SUCCEEDED, AuditOutcome.FAILED


def auditor(log: Any) -> Auditor:
    return Auditor(log, actor=Actor(kind="cli", role="submitter"), hmac_key=SECRET, epoch=time.time, purpose="TREAT")


@pytest.fixture
def log() -> InMemoryAudit:
    return InMemoryAudit()


class Breaks(InMemoryAudit):
    """Does something else from some event on."""

    def __init__(self, *, after: int, what: Callable[[], None]) -> None:
        super().__init__()
        self._after = after
        self._what = what

    def append(self, events: Sequence[AuditEvent]) -> None:
        if len(self.events) >= self._after:
            self._what()
        super().append(events)


def down() -> None:
    raise AuditUnavailableError("audit: down")


def test_an_intention_is_on_record_before_the_call(log: InMemoryAudit) -> None:
    """And its end before the answer is handed out."""
    seen: list[int] = []

    def look() -> Reply:
        seen.append(len(log.events))
        return good()

    endpoint = ScriptedEndpoint([look])
    answer = sync_call(endpoint, audit=CallAudit(auditor(log))).call({"age": 63})
    assert not answer.degraded
    assert seen == [1]
    assert log.told() == [(INFER, INTENDED, 1), (INFER, SUCCEEDED, 1)]
    first, second = log.events
    assert (first.model, first.purpose, first.reference) == ("m", "TREAT", "m")
    assert len(first.prompt_hash or "") == 16
    assert first.digest == second.digest
    assert (len(first.keys), len(second.keys)) == (16, 0)


def test_a_record_is_named_by_its_id(log: InMemoryAudit) -> None:
    """As the command line names it; one without an id by all that it holds, whatever the order of its fields."""
    call = sync_call(ScriptedEndpoint([lambda: good(record_id="p-17")]), audit=CallAudit(auditor(log)))
    call.call({"id": "p-17", "age": 63})
    assert log.events[0].keys.hex() == record_key("p-17", secret=SECRET)
    call.call({"a": 1, "b": 2})
    call.call({"b": 2, "a": 1})
    call.call({"b": 2, "a": 2})
    keys = [event.keys for event in log.events if event.outcome is INTENDED]
    assert keys[1] == keys[2] != keys[3]


def test_no_record_is_in_any_event(log: InMemoryAudit) -> None:
    """Neither input nor output."""
    endpoint = ScriptedEndpoint([lambda: good("CANARY-out", record_id="CANARY-id")])
    sync_call(endpoint, audit=CallAudit(auditor(log))).call({"id": "CANARY-id", "note": "CANARY-in"})
    assert len(log.events) == 2
    assert "CANARY" not in repr(log.events) + repr(log.rows)


def test_nothing_is_sent_while_the_audit_is_down(log: InMemoryAudit) -> None:
    """The endpoint counts no call; the answer says why; once it is up, calls go out."""
    log.available = False
    endpoint, gate = ScriptedEndpoint([good()]), InMemoryGate()
    call = sync_call(endpoint, gate=gate, audit=CallAudit(auditor(log)))
    answers = [call.call({"age": 63}) for _ in range(20)]
    assert endpoint.bodies == []
    assert {(answer.reason, answer.output["priority"], answer.attempts) for answer in answers} == {
        (AUDIT_UNAVAILABLE, "routine", 0)
    }
    log.available = True
    answer = call.call({"age": 63})
    assert (answer.degraded, answer.breaker_state) == (False, BreakerState.CLOSED.value)


def test_an_answer_whose_end_cannot_be_kept_is_withheld() -> None:
    """The call was made, and that it was intended is on record; that says nothing against the endpoint."""
    log = Breaks(after=1, what=down)
    endpoint = ScriptedEndpoint([good()])
    answer = sync_call(endpoint, audit=CallAudit(auditor(log))).call({"age": 63})
    assert (answer.reason, answer.output, answer.attempts) == (AUDIT_UNAVAILABLE, ROUTINE, 1)
    assert log.told() == [(INFER, INTENDED, 1)]


@pytest.mark.parametrize("after", [0, 1])
def test_the_deadline_holds_while_the_audit_hangs(after: int) -> None:
    """Before the call or after it; the endpoint's breaker is not held responsible."""
    log = Breaks(after=after, what=threading.Event().wait)
    endpoint, gate = ScriptedEndpoint([good()]), InMemoryGate()
    call = sync_call(endpoint, gate=gate, audit=CallAudit(auditor(log)), settings=CallSettings(deadline_seconds=0.6))
    for _ in range(12):
        began = time.monotonic()
        answer = call.call({"age": 63})
        assert time.monotonic() - began < 0.6 + 0.25
        assert (answer.reason, answer.breaker_state) == (AUDIT_UNAVAILABLE, "closed")
    assert len(endpoint.bodies) == after


def test_a_call_that_hangs_ends_on_record(log: InMemoryAudit) -> None:
    """Nobody waits for that event; it comes all the same."""
    answer = sync_call(ScriptedEndpoint([hang]), audit=CallAudit(auditor(log))).call({"age": 63})
    assert answer.reason == "timeout"
    wait_until(lambda: len(log.events) == 2, deadline_seconds=10, what="the end is on record")
    assert (log.events[1].outcome, log.events[1].reason) == (FAILED, "timeout")


def test_every_endpoint_of_the_chain_is_audited(log: InMemoryAudit) -> None:
    """Each under its own name and model."""
    call = sync_call(
        ScriptedEndpoint([TIMEOUT]),
        target(ScriptedEndpoint([good()]), model="second"),
        promises=(0.3, 0.1),
        audit=CallAudit(auditor(log)),
    )
    assert call.call({"age": 63}).model == "second"
    wait_until(lambda: len(log.events) == 4, deadline_seconds=10, what="all ends are on record")
    told = {(event.model, event.outcome) for event in log.events}
    assert told == {("m", INTENDED), ("m", FAILED), ("second", INTENDED), ("second", SUCCEEDED)}


def test_what_is_refused_before_it_is_sent_is_no_intention(log: InMemoryAudit) -> None:
    """An open breaker, a request that cannot be made."""
    call = sync_call(ScriptedEndpoint([good()]), audit=CallAudit(auditor(log)))
    assert call.call([]).degraded
    assert log.events == []


def test_reading_a_last_good_answer_is_audited(log: InMemoryAudit) -> None:
    """And it is not handed out when that cannot be kept."""
    kept = InMemoryGoodAnswers()
    answers = AuditedGoodAnswers(kept, auditor(log))
    call = sync_call(
        ScriptedEndpoint([good(), TIMEOUT]),
        LastGood(max_age=60.0),
        answers=answers,
        audit=CallAudit(auditor(InMemoryAudit())),
    )
    assert not call.call({"age": 63}).degraded
    assert call.call({"age": 63}).source == "last-good"
    assert log.told() == [(READ, SUCCEEDED, 0)]
    assert (log.events[0].reason, log.events[0].model) == ("last_good", "m")
    log.available = False
    assert call.call({"age": 63}).source == "static"
