"""What every checkpoint storage promises: blobs, logs and the lock. One suite for all kinds, a real S3 included."""

from __future__ import annotations

import random

import pytest

from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage


def test_a_folder_that_was_never_written_to_is_empty(storage: CheckpointStorage) -> None:
    """And reading it makes nothing."""
    assert storage.names() == []
    assert storage.read("manifest.json") is None
    storage.delete("manifest.json")
    assert storage.folder("a").folder("b").names() == []


def test_a_blob_comes_back_as_it_was(storage: CheckpointStorage, seed: int) -> None:
    """Any bytes, none, and more than one part of a multipart upload; the last write counts."""
    large = random.Random(seed).randbytes(12_000_000)
    for name, data in (("empty", b""), ("zeros", bytes(1000)), ("large", large)):
        storage.write(name, b"first version, longer than some")
        storage.write(name, data)
        assert storage.read(name) == data
    assert storage.names() == ["empty", "large", "zeros"]


def test_folders_do_not_see_each_other(storage: CheckpointStorage) -> None:
    """Names are those of one folder, not of folders below it or beside it."""
    inner = storage.folder("key").folder("e000/p00001")
    inner.write("done-000.json", b"inner")
    storage.folder("key").write("manifest.json", b"outer")
    storage.folder("key2").write("manifest.json", b"other")
    assert storage.names() == []
    assert storage.folder("key").names() == ["manifest.json"]
    assert storage.folder("key").folder("e000").folder("p00001").names() == ["done-000.json"]
    assert storage.folder("key/e000/p00001").read("done-000.json") == b"inner"


def test_a_deleted_blob_is_gone(storage: CheckpointStorage) -> None:
    """Deleting it again is no error: two runners tidy up after the same third."""
    storage.write("a", b"1")
    storage.write("b", b"2")
    storage.delete("a")
    storage.delete("a")
    assert (storage.read("a"), storage.names()) == (None, ["b"])


def log_content(storage: CheckpointStorage, names: list[str]) -> bytes:
    return b"".join(storage.read(name) or b"" for name in names)


def test_a_log_holds_what_was_appended_in_order(storage: CheckpointStorage) -> None:
    """After a sync at the latest; in the blobs it names, which are the folder's only ones."""
    log = storage.open_log("log-w-00000")
    log.append(b"one ")
    log.append(b"two ")
    log.sync()
    assert log_content(storage, log.names) == b"one two "
    log.sync()
    log.append(b"three")
    log.close()
    assert log_content(storage, log.names) == b"one two three"
    assert storage.names() == sorted(log.names)
    assert all(name.startswith("log-w-00000") and name.endswith(".wal") for name in log.names)


def test_logs_of_different_stems_never_meet(storage: CheckpointStorage) -> None:
    """Two runners that work on one partition damage nothing of each other."""
    logs = [storage.open_log(f"log-{writer}-{number:05d}") for writer in "ab" for number in range(2)]
    for turn in range(3):
        for name, log in zip("0123", logs, strict=True):
            log.append(f"{name}{turn} ".encode())
        for log in logs:
            log.sync()
    for name, log in zip("0123", logs, strict=True):
        log.close()
        assert log_content(storage, log.names) == f"{name}0 {name}1 {name}2 ".encode()


def test_the_lock_has_one_holder(storage: CheckpointStorage) -> None:
    """Until it is released; a holder that lives keeps it, and it is none of the folder's blobs."""
    lock = storage.try_lock("first runner")
    assert lock is not None
    for _ in range(3):
        assert storage.try_lock("second runner") is None
        assert lock.beat()
    assert storage.names() == []
    lock.release()
    second = storage.try_lock("second runner")
    assert second is not None
    assert second.beat()
    second.release()


def test_locks_of_different_folders_are_independent(storage: CheckpointStorage) -> None:
    """Partitions are worked on side by side."""
    locks = [storage.folder(f"p{index}").try_lock("runner") for index in range(3)]
    assert all(lock is not None and lock.beat() for lock in locks)


@pytest.mark.parametrize("times", [20])
def test_a_lock_can_be_taken_again_and_again(storage: CheckpointStorage, times: int) -> None:
    """No trace of an earlier holder keeps the next one out."""
    for _ in range(times):
        lock = storage.try_lock("runner")
        assert lock is not None
        lock.release()
