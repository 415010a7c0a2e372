"""Outcomes and checkpoints for the tests of one partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint
from airflow_provider_ai.adapters.checkpoints.partition_files import PartitionFiles, SealedPartition
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.outcomes import Quarantined, Succeeded
from airflow_provider_ai.core.ports import Codec, Usage
from airflow_provider_ai.testing import InMemoryStorage

ROWS = 12
WHERE = "checkpoints/key/e000/p00000"


def files_of(storage: CheckpointStorage, codec: Codec | None = None) -> PartitionFiles:
    return PartitionFiles(storage, codec or IdentityCodec(), where=WHERE)


def opened(
    storage: CheckpointStorage,
    *,
    rows: int = ROWS,
    round_: int = 0,
    rotate_records: int = 10_000,
    codec: Codec | None = None,
) -> PartitionCheckpoint:
    """The partition's checkpoint, locked and loaded."""
    lock = storage.try_lock("test")
    assert lock is not None
    files = files_of(storage, codec)
    checkpoint = PartitionCheckpoint(files, lock, rows=rows, round_=round_, rotate_records=rotate_records)
    checkpoint.load()
    return checkpoint


def good(*rows: int, at: int = 1, **output: Any) -> Succeeded:
    """A call of these rows that was answered; outputs tell the row, so that a mix-up shows."""
    return Succeeded(
        rows=list(rows),
        keys=[f"k{row}" for row in rows],
        ids=[f"id{row}" for row in rows],
        outputs=[{"score": row / 10, **output} for row in rows],
        inferred_at=at,
        attempts=1,
        usage=Usage(prompt_tokens=10, completion_tokens=3),
    )


def bad(row: int, *, round_: int = 0, error_class: str = "rejected", status: int | None = 400) -> Quarantined:
    return Quarantined(
        row=row, key=f"k{row}", error_class=error_class, status=status, attempts=2, round=round_, quarantined_at=5
    )


def scores(
    storage: CheckpointStorage, sealed: SealedPartition, *, codec: Codec | None = None
) -> list[tuple[int, float]]:
    """``(row, score)`` of everything that would be published."""
    found: list[tuple[int, float]] = []
    for table in files_of(storage, codec).good_tables(sealed):
        found += zip(table["row"].to_pylist(), table["out:score"].to_pylist(), strict=True)
    return sorted(found)


def expected(rows: Sequence[int]) -> list[tuple[int, float]]:
    return [(row, row / 10) for row in rows]


class WatchedStorage(InMemoryStorage):
    """Calls ``before`` and ``after`` each write and deletion of a blob; ``before`` may raise."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[str, str], None] = lambda operation, name: None
        self.after: Callable[[str, str], None] = lambda operation, name: None

    def write(self, name: str, data: bytes) -> None:
        self.before("write", name)
        super().write(name, data)
        self.after("write", name)

    def delete(self, name: str) -> None:
        self.before("delete", name)
        super().delete(name)
        self.after("delete", name)

    def snapshot(self) -> dict[str, bytes]:
        """All blobs as they are."""
        return {name: self.read(name) or b"" for name in self.names()}


def restored(blobs: dict[str, bytes]) -> InMemoryStorage:
    """A storage with these blobs and no lock: what a killed runner leaves behind."""
    storage = InMemoryStorage()
    for name, data in blobs.items():
        storage.write(name, data)
    return storage
