"""The shipped fakes keep the promises of the ports they stand for; their names are part of the public interface."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator

import orjson
import pyarrow as pa
import pytest

from airflow_provider_ai import testing
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.core.call_ports import CallGate, Evidence, GoodAnswers
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.core.ports import CallFailedError, ModelEndpoint, PartitionReader, PublishUnit, Reply, Sink
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError, StoreUnavailableError
from airflow_provider_ai.runtime.sync_call import CallStore
from airflow_provider_ai.testing import (
    BlockReader,
    FakeModelEndpoint,
    Fault,
    InMemoryGate,
    InMemoryGoodAnswers,
    InMemorySink,
    InMemoryStorage,
    InMemoryStore,
)

SCHEMA = pa.schema([("id", pa.int64())])


def test_exported_names() -> None:
    """Users' tests import these: none may vanish unnoticed."""
    assert testing.__all__ == [
        "BlockReader",
        "FakeModelEndpoint",
        "Fault",
        "InMemoryAudit",
        "InMemoryClaimChecks",
        "InMemoryDeadLetters",
        "InMemoryGate",
        "InMemoryGoodAnswers",
        "InMemoryJobStore",
        "InMemoryQueue",
        "InMemorySink",
        "InMemoryStorage",
        "InMemoryStore",
        "InMemoryTransport",
        "QueueFaults",
        "UnknownReply",
    ]
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)


def test_the_fakes_fit_the_ports() -> None:
    """A type checker reads this test: the annotations are the assertion; at run time the fakes are made."""
    endpoint: ModelEndpoint = FakeModelEndpoint()
    sink: Sink = InMemorySink()
    storage: CheckpointStorage = InMemoryStorage()
    reader: PartitionReader = BlockReader([])
    store: CallStore = InMemoryStore()
    gate: CallGate = InMemoryGate()
    answers: GoodAnswers = InMemoryGoodAnswers()
    assert None not in (endpoint, sink, storage, reader, store, gate, answers)


def test_a_store_that_is_down_and_comes_back() -> None:
    """Nothing in it works until it is available again; what it held is still there."""
    store = InMemoryStore()
    gate, answers = store.gate(CallSettings(max_concurrent_calls=1)), store.answers()
    held = gate.admit("e")
    answers.save("k", 1, model="m")
    store.available = False
    for work in (
        lambda: gate.admit("e"),
        lambda: gate.settle(held, Evidence.ALIVE),
        lambda: answers.load("k"),
        lambda: answers.save("k", 2, model="m"),
    ):
        with pytest.raises(StoreUnavailableError):
            work()
    store.available = True
    assert gate.admit("e").refused == "bulkhead_full"
    kept = answers.load("k")
    assert kept is not None
    assert kept.output == 1


def post(endpoint: FakeModelEndpoint, *ids: object, deadline_seconds: float = 1.0) -> Reply:
    """One call for records with these ids."""
    body = orjson.dumps({"model": "m", "inputs": [{"id": record_id} for record_id in ids]})
    return asyncio.run(endpoint.post("/predict", body, deadline_seconds=deadline_seconds))


def test_the_endpoint_answers_protocol_json() -> None:
    """Records it has no answer for are left out; calls and answers are counted per record."""
    endpoint = FakeModelEndpoint(lambda record: None if record["id"] == 2 else {"score": record["id"] * 10})
    reply = post(endpoint, 1, 2)
    assert (reply.status, orjson.loads(reply.body)) == (200, {"outputs": [{"id": 1, "score": 10}]})
    assert (endpoint.calls, endpoint.calls_of, endpoint.answers_of) == (1, {1: 1, 2: 1}, {1: 1})


def test_the_endpoint_fails_as_scripted() -> None:
    """Statuses, broken connections, useless bodies, in the order of the queue; then it answers again."""
    endpoint = FakeModelEndpoint(
        faults=[Fault(status=429, retry_after="7"), Fault(failure=Failure.CONNECT), Fault(body=b"<html>"), None]
    )
    assert post(endpoint, 1) == Reply(429, b"", "7")
    with pytest.raises(CallFailedError) as caught:
        post(endpoint, 1)
    assert (caught.value.failure, caught.value.permanent) == (Failure.CONNECT, False)
    assert post(endpoint, 1) == Reply(200, b"<html>")
    assert orjson.loads(post(endpoint, 1).body) == {"outputs": [{"id": 1, "answer": 1}]}


def test_a_poison_record_spoils_its_whole_call() -> None:
    """As a server that chokes on it does."""
    endpoint = FakeModelEndpoint(lambda record: Fault(status=500) if record["id"] == 2 else {"ok": True})
    assert post(endpoint, 1, 2, 3).status == 500
    assert post(endpoint, 1, 3).status == 200
    assert endpoint.answers_of == {1: 1, 3: 1}


def test_the_endpoint_keeps_the_deadline_and_its_capacity() -> None:
    """Longer than the deadline is a timeout; more calls at once than it takes is a 429."""
    with pytest.raises(CallFailedError) as caught:
        post(FakeModelEndpoint(latency_seconds=0.01), 1, deadline_seconds=0.005)
    assert caught.value.failure is Failure.TIMEOUT

    endpoint = FakeModelEndpoint(capacity=2, latency_seconds=0.001)

    async def crowd() -> list[Reply]:
        body = b'{"inputs": [{"id": 1}]}'
        return await asyncio.gather(*(endpoint.post("/", body, deadline_seconds=1.0) for _ in range(3)))

    assert sorted(reply.status for reply in asyncio.run(crowd())) == [200, 200, 429]
    assert (endpoint.peak_in_flight, endpoint.in_flight) == (3, 0)


def test_the_storage_runs_out_of_room() -> None:
    """ENOSPC from a chosen write on, for blobs and logs; nothing of a refused write is kept."""
    storage = InMemoryStorage()
    log = storage.folder("p").open_log("log")
    log.append(b"one")
    storage.refuse_writes(after=1)
    log.append(b"two")
    for write in (lambda: log.append(b"three"), lambda: storage.write("blob", b"x")):
        with pytest.raises(OSError, match="No space") as caught:
            write()
        assert caught.value.errno == errno.ENOSPC
    storage.accept_writes()
    log.append(b"four")
    assert storage.folder("p").read("log.wal") == b"onetwofour"
    assert storage.names() == []


def test_a_lock_of_the_storage_has_one_holder() -> None:
    """Per folder; broken locks are noticed by who held them."""
    storage = InMemoryStorage()
    lock = storage.folder("p").try_lock("a")
    assert lock is not None
    assert storage.folder("p").try_lock("b") is None
    assert storage.folder("q").try_lock("b") is not None
    storage.break_locks()
    assert not lock.beat()
    other = storage.folder("p").try_lock("b")
    lock.release()
    assert other is not None
    assert other.beat(), "releasing a lock that was lost must not take the new holder's"


def unit(partition: str, *, rows: int, plan: str = "plan") -> PublishUnit:
    return PublishUnit(scope="s", partition=partition, plan=plan, content="c", rows=rows, run_id="r")


def batches(*ids: int) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"id": list(ids)}, schema=SCHEMA)


def test_the_sink_replaces_a_partition_whole() -> None:
    """Twice is once; another plan's partitions go when they are pruned."""
    sink = InMemorySink()
    assert sink.publish(unit("p", rows=2), SCHEMA, batches(1, 2)) == 2
    assert sink.publish(unit("p", rows=1), SCHEMA, batches(3)) == 1
    sink.publish(unit("old", rows=1, plan="before"), SCHEMA, batches(9))
    assert {name: (found.rows, found.rows_present) for name, found in sink.publications("s").items()} == {
        "p": (1, 1),
        "old": (1, 1),
    }
    assert sink.prune("s", plan="plan") == 1
    assert sink.rows == [{"id": 3}]
    assert sink.publications("elsewhere") == {}


def test_the_sink_commits_all_or_nothing() -> None:
    """When a batch fails to come, when too few come, or when it goes down meanwhile: what stood there stands."""
    sink = InMemorySink()
    sink.publish(unit("p", rows=1), SCHEMA, batches(1))

    def breaking() -> Iterator[pa.RecordBatch]:
        yield from batches(2)
        raise RuntimeError("half way")

    def going_down() -> Iterator[pa.RecordBatch]:
        yield from batches(2)
        sink.available = False

    with pytest.raises(RuntimeError):
        sink.publish(unit("p", rows=2), SCHEMA, breaking())
    with pytest.raises(SinkError, match="2 rows were announced"):
        sink.publish(unit("p", rows=2), SCHEMA, batches(2))
    with pytest.raises(SinkUnavailableError):
        sink.publish(unit("p", rows=1), SCHEMA, going_down())
    with pytest.raises(SinkUnavailableError):
        sink.publications("s")
    sink.available = True
    assert sink.rows == [{"id": 1}]


def test_the_reader_leaves_out_what_is_done() -> None:
    """Row numbers count through the slices of the partition; blocks are bounded."""
    files = tuple(SourceFile(path=f"f{i}", size=1, version="1", rows=4) for i in range(2))
    part = Partition(index=0, slices=(FileSlice(file=0, start=2, end=4), FileSlice(file=1, start=0, end=3)))
    manifest = Manifest(
        input_uri="in", format="jsonl", id_column="id", schema=(), files=files, partitions=(part,), listing="l"
    )
    reader = BlockReader([[{"id": f"{name}{row}"} for row in range(4)] for name in "ab"], block_rows=2)
    blocks = list(reader.blocks(manifest, part, done=RowSet(5, [1])))
    assert [list(block.rows) for block in blocks] == [[0, 2], [3, 4]]
    assert [record["id"] for block in blocks for record in block.records] == ["a2", "b0", "b1", "b2"]
