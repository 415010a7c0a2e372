"""Broken variants of the product, each with a mistake that a batch tool could make. The invariants must catch them."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_ai.adapters.checkpoints.local_storage import FileLog
from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint


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


MUTANTS: dict[str, Callable[[], None]] = {"buffered_log": buffered_log, "forgetful_resume": forgetful_resume}
