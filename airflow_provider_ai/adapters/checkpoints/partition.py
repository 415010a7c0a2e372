"""The checkpoint of one partition: an outcome log that grows while calls finish, segments it is sealed into, and at the
end a seal (``done-{round}.json``) that says which segments make the partition.

Invariants:

* A row is finished only when its outcome is in a log or a segment; the bitmaps are derived from those.
* A log is deleted only after the segment that replaces it is durable, and that segment says which logs it replaces.
* A step of sealing that fails can be taken again: what is not in a segment yet stays listed. The seal says what its
  segments hold, not what this process remembers, and is written only when that is every row that succeeded.
* Only one runner works on a partition at a time (the lock), but two would not damage each other: every runner writes
  under names of its own, and a row that stands twice is counted and published once.

``record`` is called by the event loop and must not block; ``sync``, ``complete`` and ``close`` may, and run elsewhere.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from airflow_provider_ai.adapters.checkpoints import segments
from airflow_provider_ai.adapters.checkpoints.documents import from_document, to_document
from airflow_provider_ai.adapters.checkpoints.storage import AppendLog, CheckpointStorage, Lock
from airflow_provider_ai.core.frames import CorruptFrameError, encode_frame, scan_frames
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.outcomes import Outcome, Quarantined, Succeeded, decode_outcome, encode_outcome
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.core.report import QuarantineReason
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import CheckpointError, CorruptCheckpointError, PartitionBusyError

ROTATE_BYTES = 16 * 1024 * 1024
ROTATE_RECORDS = 16_384  # sealed beside the calls, so that little is left to seal at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPartition:
    """A finished partition: ``succeeded + quarantined = rows``.

    :param good: names of the segments with outputs
    :param columns: ``((output column, Arrow type as text or "json"), …)`` per segment, distinct
    :param content: changes when the outputs do
    """

    rows: int
    succeeded: int
    quarantined: int
    good: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    reasons: tuple[QuarantineReason, ...]
    content: str

    def to_json(self) -> bytes:
        """Canonical bytes."""
        return to_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> SealedPartition:
        """The inverse of :meth:`to_json`; ValueError when the bytes are damaged."""
        body = from_document(data)
        body["good"] = tuple(body["good"])
        body["columns"] = tuple((name, kind) for name, kind in body["columns"])
        body["reasons"] = tuple(QuarantineReason(**reason) for reason in body["reasons"])
        return cls(**body)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogContent:
    """The outcomes in a log of ``size`` bytes."""

    outcomes: list[Outcome]
    size: int


class PartitionFiles:
    """The blobs of one partition through the codec. Reads only."""

    def __init__(self, storage: CheckpointStorage, codec: Codec, *, where: str) -> None:
        self.storage = storage
        self.codec = codec
        self.where = where

    def context(self, name: str) -> dict[str, str]:
        """What binds stored bytes to their place."""
        return {"partition": self.where, "name": name}

    def sealed(self, round_: int) -> SealedPartition | None:
        """The seal of a round, or None while the partition is unfinished in it."""
        data = self.storage.read(_done_name(round_))
        if data is None:
            return None
        try:
            return SealedPartition.from_json(data)
        except (ValueError, KeyError, TypeError):
            raise CorruptCheckpointError(
                f"checkpoint seal {self.where}/{_done_name(round_)} is damaged. Delete it: a resume makes it anew "
                "from the segments without calling the model"
            ) from None

    def finished(self, round_: int) -> SealedPartition | None:
        """The seal of a round if the segments it names are there; None when there is still something to do."""
        sealed = self.sealed(round_)
        return sealed if sealed is not None and set(sealed.good) <= set(self.storage.names()) else None

    def segment(self, name: str) -> bytes:
        """The Arrow IPC bytes of a segment whose checksum holds."""
        stored = self.storage.read(name)
        if stored is None:
            raise CorruptCheckpointError(
                f"checkpoint segment {self.where}/{name} is missing. Run the inference of its partition again (in "
                "Airflow: clear its infer task): the records of that segment are then called again"
            )
        segments.check_name(name, stored, where=self.where)
        return self.codec.decode(stored, context=self.context(segments.name_stem(name)))

    def outcomes(self, log: str) -> LogContent | None:
        """What a log holds, None when it is gone; a torn tail is ignored, damage elsewhere a CorruptCheckpointError."""
        data = self.storage.read(log)
        if data is None:
            return None
        try:
            scan = scan_frames(data)
        except CorruptFrameError as error:
            raise CorruptCheckpointError(
                f"checkpoint log {self.where}/{log} is corrupt at byte {error.offset}, with sound records behind it. "
                "Restore it from a backup, or delete it: its records will then be called (and paid for) again"
            ) from None
        context = self.context("log")
        found = [decode_outcome(self.codec.decode(payload, context=context)) for payload in scan.payloads]
        return LogContent(outcomes=found, size=len(data))

    def good_tables(self, sealed: SealedPartition) -> Iterator[pa.Table]:
        """The tables of a sealed partition, every row once, one segment in memory at a time."""
        seen = RowSet(sealed.rows)
        for name in sealed.good:
            table = segments.from_bytes(self.segment(name))
            rows = table["row"].to_numpy()
            fresh = ~seen.mask(rows)
            fresh[1:] &= rows[1:] != rows[:-1]  # ascending: a log written anew after a failed fsync stands twice
            seen.add(rows)
            yield table if fresh.all() else table.filter(pa.array(fresh))


class PartitionCheckpoint:
    """A partition being worked on. Made by :func:`try_open`; not to be used after :meth:`close`."""

    def __init__(
        self,
        files: PartitionFiles,
        lock: Lock,
        *,
        rows: int,
        round_: int,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_records: int = ROTATE_RECORDS,
    ) -> None:
        self.succeeded = RowSet(rows)
        self.given_up = RowSet(rows)
        self.given_up_before = RowSet(rows)
        self.round = round_
        self._files = files
        self._lock = lock
        self._rotate_bytes = rotate_bytes
        self._rotate_records = rotate_records
        self._reasons: Counter[tuple[str, int | None]] = Counter()
        self._good: dict[str, list[list[str]]] = {}
        self._in_segments = RowSet(rows)
        self._leftover: list[str] = []
        self._detached: list[AppendLog] = []
        self._unsealed: list[str] = []
        self._writer = uuid.uuid4().hex[:8]
        self._number = 0
        self._log: AppendLog | None = None
        self._log_bytes = 0
        self._log_records = 0
        self._swap = threading.Lock()

    @property
    def done(self) -> RowSet:
        """Rows that need no call in this round."""
        done = RowSet(self.succeeded.size)
        done.update(self.succeeded)
        done.update(self.given_up)
        return done

    @property
    def reasons(self) -> tuple[QuarantineReason, ...]:
        """Why rows were given up in this round, most frequent first."""
        common = self._reasons.most_common()
        return tuple(QuarantineReason(error_class=name, status=status, count=n) for (name, status), n in common)

    def load(self, *, tidy: bool = True) -> None:
        """Rebuild the bitmaps from what is stored. ``tidy``: delete logs that segments replace."""
        names = self._files.storage.names()
        replaced: set[str] = set()
        for name in names:
            if name.endswith(".arrow"):
                replaced.update(self._load_segment(name))
        for name in names:
            if name.endswith(".wal") and name not in replaced:
                self._load_log(name)
        for name in replaced.intersection(names) if tidy else ():
            self._files.storage.delete(name)

    def record(self, outcome: Outcome) -> None:
        """Append an outcome. When this returns, a killed process has not lost it (object stores: after a sync)."""
        payload = self._files.codec.encode(encode_outcome(outcome), context=self._files.context("log"))
        frame = encode_frame(payload)
        with self._swap:
            if self._log is None:
                self._number += 1
                self._log = self._files.storage.open_log(f"log-{self._writer}-{self._number - 1:05d}")
            self._log.append(frame)
            self._log_bytes += len(frame)
            self._log_records += len(outcome.rows) if isinstance(outcome, Succeeded) else 1
        self._apply(outcome)

    def sync(self) -> None:
        """Make the log durable, seal it when it has grown large, show life; PartitionBusyError when taken over."""
        self.show_life()
        log = self._log
        if log is not None:
            log.sync()
            if self._log_bytes >= self._rotate_bytes or self._log_records >= self._rotate_records:
                self._detach()
        self._close_detached()
        self._seal(self._unsealed)

    def show_life(self) -> None:
        """Renew the lease; PartitionBusyError when taken over."""
        if not self._lock.beat():
            raise self._taken_over()

    def complete(self) -> SealedPartition:
        """Seal everything and write the partition's seal; PartitionBusyError when taken over."""
        self.show_life()
        self._detach()
        self._close_detached()
        self._seal(self._leftover)
        self._seal(self._unsealed)
        self._require_whole()
        sealed = SealedPartition(
            rows=self.succeeded.size,
            succeeded=len(self.succeeded),
            quarantined=len(self.given_up),
            good=tuple(sorted(self._good)),
            columns=tuple(sorted({(n, kind) for columns in self._good.values() for n, kind in columns})),
            reasons=self.reasons,
            content=digest("content", sorted(self._good)),
        )
        self._files.storage.write(_done_name(self.round), sealed.to_json())
        return sealed

    def close(self) -> None:
        """Make the log durable and let the partition go."""
        try:
            self._detach()
            self._close_detached()
        finally:
            self._lock.release()

    def _taken_over(self) -> PartitionBusyError:
        return PartitionBusyError(
            f"another runner took {self._files.where} over because this one showed no life; this one stops. "
            "What it finished is kept; a retry resumes from what both have finished"
        )

    def _require_whole(self) -> None:
        """Take over what the segments hold: a frozen runner may have added to its log after it was read here."""
        for start, end in self._in_segments.ranges():
            self.succeeded.add_range(start, end)
            self.given_up.discard_range(start, end)
        missing = len(self.succeeded) - len(self._in_segments)
        if missing:
            raise CheckpointError(
                f"{missing} finished records of {self._files.where} are in no segment, so the partition is not sealed. "
                "A retry reads its checkpoints again and calls what they do not hold"
            )

    def _detach(self) -> None:
        """Set the current log aside. The next record opens another one."""
        with self._swap:
            log, self._log = self._log, None
            self._log_bytes = self._log_records = 0
        if log is not None:
            self._detached.append(log)

    def _close_detached(self) -> None:
        """Make the logs set aside durable; then they are ready to be sealed."""
        while self._detached:
            log = self._detached[0]
            log.close()
            self._unsealed += log.names
            del self._detached[0]

    def _seal(self, logs: list[str]) -> None:
        """Turn logs into segments, a bounded number of bytes at a time, then delete them; takes them off the list."""
        while logs:
            outcomes: list[Outcome] = []
            count = size = 0
            while count < len(logs) and size < self._rotate_bytes:
                content = self._files.outcomes(logs[count])
                if content is None:  # its new holder has sealed and deleted it
                    raise self._taken_over()
                outcomes += content.outcomes
                size += content.size
                count += 1
            self._seal_together(logs[:count], outcomes)
            replaced, logs[:count] = logs[:count], []
            for log in replaced:
                self._files.storage.delete(log)

    def _seal_together(self, logs: list[str], outcomes: list[Outcome]) -> None:
        good = [outcome for outcome in outcomes if isinstance(outcome, Succeeded)]
        bad = [outcome for outcome in outcomes if isinstance(outcome, Quarantined)]
        # Quarantine first: the good segment is what declares the logs replaced when there is one.
        if bad:
            self._write_segment("bad", segments.bad_table(bad), replaces=[] if good else logs)
        if good:
            name, data = self._write_segment("good", segments.good_table(good), replaces=logs)
            self._hold_good(name, segments.metadata(data))

    def _hold_good(self, name: str, meta: dict[str, Any]) -> None:
        self._good[name] = meta["columns"]
        for start, end in meta["rows"]:
            self._in_segments.add_range(start, end)

    def _write_segment(self, kind: str, table: pa.Table, *, replaces: list[str]) -> tuple[str, bytes]:
        data = segments.to_bytes(table, replaces=replaces)
        stem = f"{self._writer}-{self._number:05d}"
        self._number += 1
        stored = self._files.codec.encode(data, context=self._files.context(f"{kind}-{stem}"))
        name = segments.segment_name(kind, stem, stored)
        self._files.storage.write(name, stored)
        return name, data

    def _load_segment(self, name: str) -> list[str]:
        data = self._files.segment(name)
        meta = segments.metadata(data)
        if name.startswith("good-"):
            self._hold_good(name, meta)
            for start, end in meta["rows"]:
                self.succeeded.add_range(start, end)
                self.given_up.discard_range(start, end)
        else:
            for outcome in segments.quarantined(segments.from_bytes(data)):
                self._apply(outcome)
        return list(meta["replaces"])

    def _load_log(self, name: str) -> None:
        content = self._files.outcomes(name)
        if content is None:
            return
        self._leftover.append(name)
        for outcome in content.outcomes:
            self._apply(outcome)

    def _apply(self, outcome: Outcome) -> None:
        if isinstance(outcome, Succeeded):
            self.succeeded.add(outcome.rows)
            if self._reasons:
                self.given_up.discard(outcome.rows)
        elif outcome.round != self.round:
            self.given_up_before.add((outcome.row,))
        elif outcome.row not in self.given_up and outcome.row not in self.succeeded:
            self.given_up.add((outcome.row,))
            self._reasons[outcome.error_class, outcome.status] += 1


def try_open(
    files: PartitionFiles, *, rows: int, round_: int, holder: str, rotate_bytes: int = ROTATE_BYTES
) -> PartitionCheckpoint | None:
    """The partition's checkpoint, loaded and locked; None while another live runner holds it."""
    lock = files.storage.try_lock(holder)
    if lock is None:
        return None
    checkpoint = PartitionCheckpoint(files, lock, rows=rows, round_=round_, rotate_bytes=rotate_bytes)
    try:
        checkpoint.load()
    except BaseException:
        lock.release()
        raise
    return checkpoint


def peek(files: PartitionFiles, *, rows: int, round_: int) -> PartitionCheckpoint:
    """The bitmaps of a partition without locking or changing anything: for ``status``."""
    checkpoint = PartitionCheckpoint(files, _NoLock(), rows=rows, round_=round_)
    checkpoint.load(tidy=False)
    return checkpoint


class _NoLock:
    def beat(self) -> bool:
        return True

    def release(self) -> None:
        return None


def _done_name(round_: int) -> str:
    return f"done-{round_:03d}.json"
