"""Broken variants of the product, each with a mistake that a batch tool could make. The invariants must catch them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from airflow_provider_ai.adapters.checkpoints.local_storage import FileLock, FileLog, LocalStorage
from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint
from airflow_provider_ai.adapters.checkpoints.partition_files import SealedPartition
from airflow_provider_ai.adapters.sinks import table_sink


def buffered_log() -> None:
    """Outcomes stay in this process until the log is synced, instead of reaching the file as they finish."""
    real_append, real_sync = FileLog.append, FileLog.sync
    waiting: dict[FileLog, list[bytes]] = {}

    def append(self: FileLog, data: bytes) -> None:
        waiting.setdefault(self, []).append(data)

    def sync(self: FileLog) -> None:
        for data in waiting.pop(self, []):
            real_append(self, data)
        real_sync(self)

    FileLog.append, FileLog.sync = append, sync  # type: ignore[method-assign]


def forgetful_resume() -> None:
    """A resume does not look at what is finished."""
    PartitionCheckpoint.load = lambda self, *, tidy=True: None  # type: ignore[method-assign]


def unsynced_rename() -> None:
    """Manifests, segments and seals get their names before their bytes are safe."""

    def write(self: LocalStorage, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{name}.{uuid.uuid4().hex}.tmp")
        temporary.write_bytes(data)
        temporary.rename(path)

    LocalStorage.write = write  # type: ignore[method-assign]


def unsynced_log() -> None:
    """The log is never synced, at no interval."""
    FileLog.sync = lambda self: None  # type: ignore[method-assign]


def plain_insert() -> None:
    """Publishing adds a partition's rows to those that stand there instead of replacing them."""
    table_sink._Publishing._own = lambda self: sa.false()  # type: ignore[method-assign]


def no_lock() -> None:
    """Everybody may work on a partition at any time."""

    class Nothing:
        def beat(self) -> bool:
            return True

        def release(self) -> None:
            return None

    LocalStorage.try_lock = lambda self, holder: Nothing()  # type: ignore[method-assign]


def no_fencing() -> None:
    """A runner that was frozen and taken over does not look whether it still holds its lock."""
    FileLock.beat = lambda self: True  # type: ignore[method-assign]


def seal_first() -> None:
    """A partition is called finished before its last outcomes are in a segment."""
    real_complete = PartitionCheckpoint.complete

    def complete(self: PartitionCheckpoint) -> Any:
        counts = {"succeeded": len(self.succeeded), "quarantined": len(self.given_up)}
        seal = SealedPartition(
            rows=self.succeeded.size, good=(), columns=(), reasons=self.reasons, content="early", **counts
        )
        self._files.storage.write(f"done-{self.round:03d}.json", seal.to_json())
        return real_complete(self)

    PartitionCheckpoint.complete = complete  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        buffered_log,
        forgetful_resume,
        unsynced_rename,
        unsynced_log,
        plain_insert,
        no_lock,
        no_fencing,
        seal_first,
    )
}
