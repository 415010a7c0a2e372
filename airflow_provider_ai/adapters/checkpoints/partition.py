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
from typing import Any

import pyarrow as pa

from airflow_provider_ai.adapters.checkpoints import segments
from airflow_provider_ai.adapters.checkpoints.partition_files import (
    PartitionFiles,
    SealedPartition,
    done_name,
)
from airflow_provider_ai.adapters.checkpoints.storage import AppendLog, Lock
from airflow_provider_ai.core.frames import encode_frame
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.outcomes import Outcome, Quarantined, Succeeded, encode_outcome
from airflow_provider_ai.core.purposes import CHECKPOINT
from airflow_provider_ai.core.report import QuarantineReason
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import CheckpointError, PartitionBusyError

ROTATE_BYTES = 16 * 1024 * 1024
ROTATE_RECORDS = 16_384  # sealed beside the calls, so that little is left to seal at the end


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
        self._of_log = files.context("log")
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
        payload = self._files.codec.encode(encode_outcome(outcome), context=self._of_log)
        frame = encode_frame(payload)
        with self._swap:
            if self._log is None:
                self._number += 1
                self._log = self._files.storage.open_log(f"log-{self._writer}-{self._number - 1:05d}")
            self._log.append(frame)
            self._log_bytes += len(frame)
            self._log_records += len(outcome.rows) if isinstance(outcome, Succeeded) else 1
            if self._is_large():  # its records are in memory all at once when it is sealed
                self._set_aside()
        self._apply(outcome)

    def sync(self) -> None:
        """Make the log durable, seal it when it has grown large, show life; PartitionBusyError when taken over."""
        self.show_life()
        log = self._log
        if log is not None:
            log.sync()
        self._close_detached()
        self._seal(self._unsealed)
        self._files.codec.prepare(CHECKPOINT)  # a key that was revoked ends the run while its answers can still be kept

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
        self._files.storage.write(done_name(self.round), sealed.to_json())
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
            self._set_aside()

    def _is_large(self) -> bool:
        return self._log_bytes >= self._rotate_bytes or self._log_records >= self._rotate_records

    def _set_aside(self) -> None:
        if self._log is not None:
            self._detached.append(self._log)
        self._log = None
        self._log_bytes = self._log_records = 0

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
            count = size = records = 0
            while count < len(logs) and size < self._rotate_bytes and records < self._rotate_records:
                content = self._files.outcomes(logs[count])
                if content is None:  # its new holder has sealed and deleted it
                    raise self._taken_over()
                outcomes += content.outcomes
                size += content.size
                records += content.records
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
