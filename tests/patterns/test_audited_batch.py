"""Batches, audited: blocks wait for their events, outcomes are kept first, and a partition is sealed last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_ai.core.audit import Actor, AuditAction, AuditOutcome
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.outcomes import Outcome, Quarantined, Succeeded
from airflow_provider_ai.core.ports import PublishUnit, RowBlock
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import AuditUnavailableError, SinkUnavailableError
from airflow_provider_ai.patterns import patience
from airflow_provider_ai.patterns.audited_batch import AuditedJournal, BatchFacts, PartitionAudit
from airflow_provider_ai.patterns.audited_sink import AuditedSink
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.testing import InMemoryAudit, InMemorySink

SECRET = b"s" * 32
READ, INFER, QUARANTINE, PUBLISH = (
    AuditAction.READ,
    AuditAction.INFER,
    AuditAction.QUARANTINE,
    AuditAction.PUBLISH,
)
INTENDED, SUCCEEDED, FAILED = AuditOutcome.INTENDED, AuditOutcome.SUCCEEDED, AuditOutcome.FAILED
SCHEMA = pa.schema([("id", pa.int64()), ("score", pa.float64())])
UNIT = PublishUnit(scope="s", partition="s/1/00000", plan="1", content="c", rows=3, run_id="r")


class Journal:
    """What the engine's journal does, noted."""

    def __init__(self) -> None:
        self.succeeded, self.given_up, self.given_up_before = RowSet(9), RowSet(9), RowSet(9)
        self.round = 1
        self.done: list[str] = []

    def record(self, outcome: Outcome) -> None:
        self.done.append("record")

    def sync(self) -> None:
        self.done.append("sync")

    def show_life(self) -> None:
        self.done.append("life")

    def complete(self) -> str:
        self.done.append("complete")
        return "sealed"

    def close(self) -> None:
        self.done.append("close")


@pytest.fixture
def log() -> InMemoryAudit:
    return InMemoryAudit()


@pytest.fixture
def auditor(log: InMemoryAudit) -> Auditor:
    return Auditor(log, actor=Actor(kind="cli", role="submitter"), hmac_key=SECRET, epoch=time.time)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is down is not waited for in these tests."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def audit(auditor: Auditor) -> PartitionAudit:
    facts = BatchFacts(model="m", prompt_hash="p" * 16, reference="s/1/00000")
    return PartitionAudit(auditor, facts, id_column="id", stop=StopToken())


@pytest.fixture
def inner() -> Journal:
    return Journal()


@pytest.fixture
def journal(audit: PartitionAudit, inner: Journal) -> AuditedJournal:
    """A journal of a partition whose six rows have been read."""
    made = audit.journal(inner)
    for _ in audit.blocks(blocks()):
        pass
    return made


def blocks() -> Iterator[RowBlock]:
    for start in (0, 3):
        rows = range(start, start + 3)
        yield RowBlock(list(rows), [{"id": f"CANARY-{row}", "note": "CANARY"} for row in rows])


def succeeded(*rows: int) -> Succeeded:
    names = [f"CANARY-{row}" for row in rows]
    return Succeeded(rows=rows, keys=names, ids=names, outputs=[{"s": 1}] * len(rows), inferred_at=0)


def given_up(row: int, word: str = "rejected") -> Quarantined:
    return Quarantined(
        row=row, key=f"CANARY-{row}", error_class=word, status=400, attempts=1, round=1, quarantined_at=0
    )


def keys(*rows: int) -> list[str]:
    return [record_key(f"CANARY-{row}", secret=SECRET) for row in rows]


def keys_of(log: InMemoryAudit, number: int) -> list[str]:
    packed = log.events[number].keys
    return [packed[start : start + 16].hex() for start in range(0, len(packed), 16)]


def test_a_block_waits_for_its_events(audit: PartitionAudit, log: InMemoryAudit) -> None:
    """That it was read, with a key for each record, and that it is about to be sent."""
    reading = audit.blocks(blocks())
    assert log.events == []
    assert len(next(reading).rows) == 3
    assert log.told() == [(READ, SUCCEEDED, 3), (INFER, INTENDED, 3)]
    assert keys_of(log, 0) == keys(0, 1, 2)
    assert (log.events[1].keys, log.events[1].digest) == (b"", log.events[0].digest)
    assert (log.events[1].model, log.events[1].reference) == ("m", "s/1/00000")


def test_a_block_that_cannot_be_audited_never_comes(audit: PartitionAudit, log: InMemoryAudit) -> None:
    """The error says that a retry may help."""
    log.available = False
    with pytest.raises(AuditUnavailableError):
        next(audit.blocks(blocks()))


def test_outcomes_are_audited_with_the_sync(journal: AuditedJournal, inner: Journal, log: InMemoryAudit) -> None:
    """Rolled up: one event for those that succeeded, one for each reason why others did not."""
    before = len(log.events)
    for outcome in (succeeded(0, 2), given_up(1), succeeded(3), given_up(4, "timeout")):
        journal.record(outcome)
    assert len(log.events) == before
    journal.sync()
    assert log.told()[before:] == [(INFER, SUCCEEDED, 3), (QUARANTINE, FAILED, 1), (QUARANTINE, FAILED, 1)]
    assert keys_of(log, before) == keys(0, 2, 3)
    assert [event.reason for event in log.events[before:]] == [None, "rejected", "timeout"]
    journal.sync()
    assert len(log.events) == before + 3
    assert inner.done == ["record"] * 4 + ["sync"] * 2


def test_outcomes_wait_for_an_audit_that_is_down(journal: AuditedJournal, inner: Journal, log: InMemoryAudit) -> None:
    """They are in the journal, which is what a resume needs; the events come when the audit is back."""
    before = len(log.events)
    log.available = False
    journal.record(succeeded(0))
    journal.sync()
    journal.record(succeeded(1))
    journal.sync()
    assert inner.done == ["record", "sync", "record", "sync"]
    log.available = True
    journal.sync()
    assert [keys_of(log, number) for number in range(before, len(log.events))] == [keys(0), keys(1)]


def test_a_partition_is_sealed_last(journal: AuditedJournal, inner: Journal, log: InMemoryAudit) -> None:
    """Not while one of its outcomes is not on record; what was paid for is in the journal all the same."""
    journal.record(succeeded(0))
    log.available = False
    with pytest.raises(AuditUnavailableError):
        journal.complete()
    assert "complete" not in inner.done
    log.available = True
    assert journal.complete() == "sealed"
    assert log.told()[-1] == (INFER, SUCCEEDED, 1)


def test_closing_audits_what_is_left(journal: AuditedJournal, inner: Journal, log: InMemoryAudit) -> None:
    """After the journal itself is safe."""
    journal.record(succeeded(5))
    journal.close()
    assert inner.done[-1] == "close"
    assert log.told()[-1] == (INFER, SUCCEEDED, 1)


def test_the_engine_sees_the_same_journal(journal: AuditedJournal, inner: Journal) -> None:
    """Its rows and its round."""
    assert journal.succeeded is inner.succeeded
    assert journal.given_up is inner.given_up
    assert journal.given_up_before is inner.given_up_before
    assert journal.round == 1
    journal.show_life()
    assert inner.done == ["life"]


def test_no_record_is_in_any_event(journal: AuditedJournal, log: InMemoryAudit) -> None:
    """Neither ids nor fields."""
    journal.record(succeeded(0))
    journal.sync()
    assert "CANARY" not in repr(log.rows)


# --- publishing


def batches(*ids: int) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch([pa.array(ids, pa.int64()), pa.array([0.5] * len(ids))], schema=SCHEMA)


def test_publications_are_audited(auditor: Auditor, log: InMemoryAudit) -> None:
    """Before they begin, and record by record once they stand."""
    sink = InMemorySink()
    made = AuditedSink(sink, auditor, model="m", prompt_hash="p")
    assert made.publish(UNIT, SCHEMA, batches(1, 2, 3)) == 3
    assert log.told() == [(PUBLISH, INTENDED, 0), (PUBLISH, SUCCEEDED, 3)]
    assert keys_of(log, 1) == [record_key(number, secret=SECRET) for number in (1, 2, 3)]
    assert log.events[1].reference == UNIT.partition
    assert set(made.publications("s")) == {UNIT.partition}


def test_large_publications_are_several_events(
    auditor: Auditor, log: InMemoryAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a size that an export can show."""
    monkeypatch.setattr("airflow_provider_ai.patterns.audited_sink.KEYS_PER_EVENT", 2)
    AuditedSink(InMemorySink(), auditor, model=None, prompt_hash=None).publish(UNIT, SCHEMA, batches(1, 2, 3))
    assert [event.records for event in log.events] == [0, 2, 1]


def test_nothing_is_published_while_the_audit_is_down(auditor: Auditor, log: InMemoryAudit) -> None:
    """Not a row."""
    log.available = False
    sink = InMemorySink()
    with pytest.raises(AuditUnavailableError):
        AuditedSink(sink, auditor, model=None, prompt_hash=None).publish(UNIT, SCHEMA, batches(1, 2, 3))
    assert sink.publications("s") == {}


def test_a_publication_that_fails_is_on_record(auditor: Auditor, log: InMemoryAudit) -> None:
    """With the kind of error, and the error itself goes on."""

    class Down(InMemorySink):
        def publish(self, *_: Any, **__: Any) -> int:
            raise SinkUnavailableError("down")

    with pytest.raises(SinkUnavailableError):
        AuditedSink(Down(), auditor, model=None, prompt_hash=None).publish(UNIT, SCHEMA, batches(1))
    assert log.told() == [(PUBLISH, INTENDED, 0), (PUBLISH, FAILED, 0)]
    assert log.events[1].reason == "SinkUnavailableError"
