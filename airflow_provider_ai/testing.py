"""Fakes for testing pipelines built on this package without a server, a warehouse or a disk.

They keep the promises of the ports they stand for (a sink commits all or nothing, a log holds what was appended) and
break them only where a test asks for it. All of them are for one process; none needs a network or a clock of its own.

* :class:`FakeModelEndpoint` answers protocol ``json`` (``JsonRequest``) and counts what it was asked
* :class:`BlockReader` reads records that a test holds in a list
* :class:`InMemoryStorage` keeps checkpoints
* :class:`InMemorySink` is the warehouse table
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from airflow_provider_ai.core.manifest import Manifest, Partition
from airflow_provider_ai.core.ports import CallFailedError, Publication, PublishUnit, Reply, RowBlock
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BlockReader", "FakeModelEndpoint", "Fault", "InMemorySink", "InMemoryStorage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How a call ends instead of being answered: a ``status``, a ``failure``, or a 200 with a useless ``body``.

    :param retry_after: the Retry-After header
    :param latency_seconds: replaces the endpoint's latency
    :param permanent: no later call can succeed either
    :param error: raised as it is: what an endpoint must never do
    """

    status: int = 200
    failure: Failure | None = None
    retry_after: str | None = None
    body: bytes = b""
    latency_seconds: float | None = None
    permanent: bool = False
    error: BaseException | None = None


Answer = Callable[[Mapping[str, Any]], "Mapping[str, Any] | Fault | None"]


def _answered(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"answer": 1}


class FakeModelEndpoint:
    """A model endpoint in memory.

    What a call meets, in this order: the next of ``faults`` (None: nothing); the ``outage``; a 429 above ``capacity``;
    a :class:`Fault` that ``answer`` gives for one of its records, which spoils the whole call; or the outputs.

    :param answer: record as sent (with ``id``) → output columns; None leaves the record out of the answer
    :param latency_seconds: seconds a call takes, or a function that says so for each call
    :param capacity: calls in flight that are answered; more get 429
    :param outage: event loop time → the fault every call meets then, or None
    """

    def __init__(
        self,
        answer: Answer = _answered,
        *,
        latency_seconds: float | Callable[[], float] = 0.0,
        capacity: int | None = None,
        faults: Iterable[Fault | None] = (),
        outage: Callable[[float], Fault | None] = lambda now: None,
    ) -> None:
        self.faults = deque(faults)
        self.outage = outage
        self.calls_of: Counter[Any] = Counter()
        self.answers_of: Counter[Any] = Counter()
        self.sent_at: list[float] = []
        self.in_flight = 0
        self.peak_in_flight = 0
        self._answer = answer
        self._latency = latency_seconds if callable(latency_seconds) else lambda: latency_seconds
        self._capacity = capacity

    @property
    def calls(self) -> int:
        """Calls so far."""
        return len(self.sent_at)

    async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The scripted end of a call, after its latency; a timeout when that is longer than the deadline."""
        request = orjson.loads(body)
        records = request["inputs"]
        now = asyncio.get_running_loop().time()
        self.sent_at.append(now)
        self.calls_of.update(record["id"] for record in records)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            fault = self._fault(now)
            latency = self._latency() if fault is None or fault.latency_seconds is None else fault.latency_seconds
            await asyncio.sleep(min(latency, deadline_seconds))
            if latency >= deadline_seconds:
                raise CallFailedError(Failure.TIMEOUT, "TimeoutError")
            return self._reply(records) if fault is None else _end(fault)
        finally:
            self.in_flight -= 1

    def _fault(self, now: float) -> Fault | None:
        if self.faults:
            return self.faults.popleft()
        outage = self.outage(now)
        if outage is None and self._capacity is not None and self.in_flight > self._capacity:
            return Fault(status=429)
        return outage

    def _reply(self, records: Sequence[Mapping[str, Any]]) -> Reply:
        outputs: list[dict[str, Any]] = []
        for record in records:
            found = self._answer(record)
            if isinstance(found, Fault):
                return _end(found)
            if found is not None:
                outputs.append({"id": record["id"], **found})
        self.answers_of.update(output["id"] for output in outputs)
        return Reply(200, orjson.dumps({"outputs": outputs}))


def _end(fault: Fault) -> Reply:
    if fault.error is not None:
        raise fault.error
    if fault.failure is not None:
        raise CallFailedError(fault.failure, "scripted", permanent=fault.permanent)
    return Reply(fault.status, fault.body, fault.retry_after)


class BlockReader:
    """Reads the records of ``files`` (one sequence a file, in the manifest's order) in blocks of ``block_rows``."""

    def __init__(self, files: Sequence[Sequence[Mapping[str, Any]]], *, block_rows: int = 1000) -> None:
        self._files = files
        self._block_rows = block_rows

    def blocks(self, manifest: Manifest, partition: Partition, *, done: RowSet) -> Iterator[RowBlock]:
        """The partition's rows that are not in ``done``, in order."""
        records = [record for piece in partition.slices for record in self._files[piece.file][piece.start : piece.end]]
        rows = [row for row in range(len(records)) if row not in done]
        for start in range(0, len(rows), self._block_rows):
            block = rows[start : start + self._block_rows]
            yield RowBlock(block, [records[row] for row in block])


@dataclass(slots=True)
class _Volume:
    """What all folders of one :class:`InMemoryStorage` share."""

    blobs: dict[str, bytearray] = field(default_factory=dict)
    locks: dict[str, object] = field(default_factory=dict)
    writes_left: int | None = None

    def write(self, name: str, data: bytes) -> None:
        self._use_up()
        self.blobs[name] = bytearray(data)

    def append(self, name: str, data: bytes) -> None:
        self._use_up()
        self.blobs.setdefault(name, bytearray()).extend(data)

    def _use_up(self) -> None:
        if self.writes_left is not None:
            if self.writes_left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.writes_left -= 1


class InMemoryStorage:
    """Checkpoint storage in memory. A process that dies is a test that drops its checkpoint and opens another one."""

    def __init__(self) -> None:
        self._volume = _Volume()
        self._root = ""

    def refuse_writes(self, *, after: int = 0) -> None:
        """The volume is full (ENOSPC) from the write after the next ``after`` ones on."""
        self._volume.writes_left = after

    def accept_writes(self) -> None:
        """The volume has room again."""
        self._volume.writes_left = None

    def break_locks(self) -> None:
        """Take all locks away, as from holders that died or showed no life for too long."""
        self._volume.locks.clear()

    def names(self) -> list[str]:
        """All blobs of this folder, sorted."""
        found = (name.removeprefix(self._root) for name in self._volume.blobs if name.startswith(self._root))
        return sorted(name for name in found if "/" not in name)

    def read(self, name: str) -> bytes | None:
        """The blob, or None."""
        blob = self._volume.blobs.get(self._root + name)
        return None if blob is None else bytes(blob)

    def write(self, name: str, data: bytes) -> None:
        """Store a blob."""
        self._volume.write(self._root + name, data)

    def delete(self, name: str) -> None:
        """Remove a blob."""
        self._volume.blobs.pop(self._root + name, None)

    def open_log(self, stem: str) -> _MemoryLog:
        """A log that is one blob."""
        return _MemoryLog(self._volume, self._root, f"{stem}.wal")

    def try_lock(self, holder: str) -> _MemoryLock | None:
        """The folder's lock, or None while it is held."""
        if self._root in self._volume.locks:
            return None
        return _MemoryLock(self._volume.locks, self._root)

    def folder(self, name: str) -> InMemoryStorage:
        """The folder below; it shares blobs, locks and faults with this one."""
        below = InMemoryStorage()
        below._volume = self._volume
        below._root = f"{self._root}{name}/"
        return below


class _MemoryLog:
    def __init__(self, volume: _Volume, root: str, name: str) -> None:
        self._volume = volume
        self._name = root + name
        self.names = [name]
        volume.write(self._name, b"")

    def append(self, data: bytes) -> None:
        self._volume.append(self._name, data)

    def sync(self) -> None:
        return None

    def close(self) -> None:
        return None


class _MemoryLock:
    def __init__(self, locks: dict[str, object], name: str) -> None:
        self._locks = locks
        self._name = name
        locks[name] = self

    def beat(self) -> bool:
        return self._locks.get(self._name) is self

    def release(self) -> None:
        if self.beat():
            del self._locks[self._name]


class InMemorySink:
    """A warehouse table in memory. ``available = False`` makes it raise SinkUnavailableError until it is True again."""

    def __init__(self) -> None:
        self.available = True
        self.publishes = 0
        self._scopes: dict[str, dict[str, tuple[PublishUnit, list[dict[str, Any]]]]] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row of the table."""
        units = (unit for partitions in self._scopes.values() for unit in partitions.values())
        return [row for _, rows in units for row in rows]

    def publish(self, unit: PublishUnit, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Replace the partition's rows and marker; when a batch fails to come, nothing has changed."""
        self._require_available()
        rows: list[dict[str, Any]] = []
        for batch in batches:
            if batch.schema != schema:
                raise SinkError("a batch does not have the schema that was announced")
            rows += batch.to_pylist()
        self._require_available()
        if len(rows) != unit.rows:
            raise SinkError(f"{unit.rows} rows were announced for partition {unit.partition}, {len(rows)} came")
        self._scopes.setdefault(unit.scope, {})[unit.partition] = (unit, rows)
        self.publishes += 1
        return len(rows)

    def publications(self, scope: str) -> dict[str, Publication]:
        """What stands in the table for a scope."""
        self._require_available()
        return {
            name: Publication(
                partition=name, plan=unit.plan, content=unit.content, rows=unit.rows, rows_present=len(rows)
            )
            for name, (unit, rows) in self._scopes.get(scope, {}).items()
        }

    def prune(self, scope: str, *, plan: str) -> int:
        """Remove the partitions of other plans; rows removed."""
        self._require_available()
        partitions = self._scopes.get(scope, {})
        old = [name for name, (unit, _) in partitions.items() if unit.plan != plan]
        return sum(len(partitions.pop(name)[1]) for name in old)

    def close(self) -> None:
        """Nothing to release."""

    def _require_available(self) -> None:
        if not self.available:
            raise SinkUnavailableError("the warehouse is down")
