"""The file system: locks that die with their holder, and logs on a disk that fails or is full."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.checkpoints.local_storage import FileLock, LocalStorage
from airflow_provider_ai.core.frames import encode_frame, scan_frames
from tests.adapters.checkpoints.locks import take_over
from tests.support.processes import REPOSITORY, wait_until

HOLDER = """
import sys, time
from pathlib import Path
from airflow_provider_ai.adapters.checkpoints.local_storage import LocalStorage

lock = LocalStorage(Path(sys.argv[1])).try_lock("another process")
print("locked" if lock else "busy", flush=True)
while lock and lock.beat():
    time.sleep(0.02)
print("lost", flush=True)
"""
LEASE_SECONDS = 0.4


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder's lock and shows life every 20 ms; it ends when it loses the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    """No lease to wait for: the kernel drops the lock with the process."""
    storage = LocalStorage(tmp_path, lease_seconds=3600)
    with holder(tmp_path) as process:
        assert storage.try_lock("me") is None
        process.kill()
        process.wait()
        lock = storage.try_lock("me")
    assert lock is not None
    assert lock.beat()


def test_a_holder_that_shows_life_is_never_taken_over(tmp_path: Path) -> None:
    """However long another runner waits: here for several leases."""
    storage = LocalStorage(tmp_path, lease_seconds=LEASE_SECONDS)
    seen: set[int] = set()
    with holder(tmp_path) as process:

        def several_leases_have_passed() -> bool:
            assert storage.try_lock("me") is None
            seen.add((tmp_path / "lock").stat().st_mtime_ns)
            return len(seen) > 3 * LEASE_SECONDS / 0.02 / 4

        wait_until(several_leases_have_passed, deadline_seconds=20, what="beats of the holder", poll_seconds=0.01)
        assert process.poll() is None


def test_a_frozen_holder_is_taken_over_and_notices(tmp_path: Path) -> None:
    """SIGSTOP keeps the kernel's lock; after the lease another runner goes on, and the sleeper stops when it wakes."""
    storage = LocalStorage(tmp_path, lease_seconds=LEASE_SECONDS)
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        take_over(storage)
        assert LocalStorage(tmp_path).try_lock("a third one") is None
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == "lost\n"
        assert process.wait(20) == 0


@pytest.mark.parametrize("skew_seconds", [-86_400, 86_400])
def test_a_clock_that_is_a_day_off_is_no_sign_of_death(tmp_path: Path, skew_seconds: int) -> None:
    """Another machine's time stamps are compared with each other, never with a clock of this one."""
    storage = LocalStorage(tmp_path, lease_seconds=3600)
    lock = storage.try_lock("a machine with another clock")
    assert lock is not None
    now = (tmp_path / "lock").stat().st_mtime
    for beat in range(3):
        os.utime(tmp_path / "lock", (now + skew_seconds + beat, now + skew_seconds + beat))
        assert storage.try_lock("me") is None


LITTER = ("good-a-00001.arrow.0123456789ab.tmp", "done-000.json.0123456789ab.tmp")


def test_what_a_killed_writer_was_writing_is_removed_with_the_lock(tmp_path: Path) -> None:
    """In this folder alone, and of temporary files alone."""
    storage = LocalStorage(tmp_path)
    storage.write("good-a-00001.arrow", b"whole")
    others = storage.folder("e000/p00001")
    others.write("done-000.json", b"whole")
    for name in LITTER:
        (tmp_path / name).write_bytes(b"half")
        (tmp_path / "e000" / "p00001" / name).write_bytes(b"half")
    assert storage.try_lock("me") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e000", "good-a-00001.arrow", "lock"]
    assert len(list((tmp_path / "e000" / "p00001").glob("*.tmp"))) == len(LITTER)


def test_what_a_live_writer_is_writing_stays(tmp_path: Path) -> None:
    """Neither a runner that finds the partition busy nor one that takes a frozen one over touches its files."""
    storage = LocalStorage(tmp_path, lease_seconds=LEASE_SECONDS)
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        for name in LITTER:
            (tmp_path / name).write_bytes(b"half")
        wait_until(
            lambda: storage.try_lock("me") is not None,
            deadline_seconds=20,
            what="the lease of the frozen holder",
            poll_seconds=0.02,
        )
        assert all((tmp_path / name).exists() for name in LITTER)


def test_a_lock_that_another_runner_is_making_stays(tmp_path: Path) -> None:
    """Its temporary file gets the lock's name in a moment."""
    making = tmp_path / "lock.0123456789ab.tmp"
    making.write_bytes(b"")
    assert LocalStorage(tmp_path).try_lock("me") is not None
    assert making.exists()


def test_litter_that_cannot_be_removed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is what counts."""
    (tmp_path / LITTER[0]).write_bytes(b"half")

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "unlink", failing)
    lock = LocalStorage(tmp_path).try_lock("me")
    assert lock is not None
    assert lock.beat()


def test_of_two_that_take_over_one_remains(tmp_path: Path) -> None:
    """Both found the holder frozen: the later one's lock stands, the earlier one learns it with its next beat."""
    first, second = (FileLock.take_over(tmp_path / "lock", f"runner {index}") for index in range(2))
    assert first is not None
    assert second is not None
    assert (first.beat(), second.beat()) == (False, True)
    assert LocalStorage(tmp_path).try_lock("a third one") is None


@pytest.mark.parametrize("how", [FileLock.acquire, FileLock.take_over])
def test_a_lock_that_cannot_be_signed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path, str], FileLock | None]
) -> None:
    """A full volume fails the attempt; it must not leave a lock behind that nobody can release, nor litter."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            how(tmp_path / "lock", "me")
    assert LocalStorage(tmp_path).try_lock("me") is not None
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


# --- logs -------------------------------------------------------------------------------------------------------


class FailingDisk:
    """Counts fsyncs of files and fails the chosen ones with EIO."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> None:
        self.calls = 0
        self._fails = fails
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            return
        self.calls += 1
        if self._fails(self.calls):
            raise OSError(errno.EIO, "Input/output error")
        self._fsync(file)


def frames(storage: LocalStorage, names: list[str]) -> list[bytes]:
    """The records of each file, which must all be well-formed."""
    scans = [scan_frames(storage.read(name) or b"") for name in names]
    assert all(scan.torn_bytes == 0 for scan in scans)
    return [payload for scan in scans for payload in scan.payloads]


def test_an_append_reaches_the_file_at_once(tmp_path: Path) -> None:
    """A killed process has lost nothing it acknowledged; only a power loss waits for the sync."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    log.append(encode_frame(b"paid"))
    assert frames(storage, log.names) == [b"paid"]


def test_after_a_failed_fsync_the_frames_go_to_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped the pages: what was not synced before must not depend on the old file."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    FailingDisk(monkeypatch, lambda call: call == 2)
    log.append(encode_frame(b"safe"))
    log.sync()
    log.append(encode_frame(b"doubtful"))
    log.sync()
    log.append(encode_frame(b"after"))
    log.close()
    first, second = log.names
    assert b"safe" in frames(storage, [first])
    assert frames(storage, [second]) == [b"doubtful", b"after"]


def test_a_second_failure_is_an_error_and_a_later_sync_makes_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A success of fsync on a file it failed on before proves nothing: only a whole new file does."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    disk = FailingDisk(monkeypatch, lambda call: call in (1, 2))
    log.append(encode_frame(b"one"))
    with pytest.raises(OSError, match="Input/output"):
        log.sync()
    log.append(encode_frame(b"two"))
    log.sync()
    assert disk.calls == 3
    assert frames(storage, log.names[-1:]) == [b"one", b"two"]
    log.append(encode_frame(b"three"))
    log.close()
    assert frames(storage, log.names[-1:]) == [b"one", b"two", b"three"]


def test_a_close_that_failed_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it could not make durable is not forgotten."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    FailingDisk(monkeypatch, lambda call: call in (1, 2))
    log.append(encode_frame(b"one"))
    with pytest.raises(OSError, match="Input/output"):
        log.close()
    log.close()
    assert frames(storage, log.names[-1:]) == [b"one"]


def test_a_new_file_that_cannot_be_made_leaves_the_old_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a write to a closed descriptor: its number may be a socket by then."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    FailingDisk(monkeypatch, lambda call: call == 1)
    log.append(encode_frame(b"one"))
    with monkeypatch.context() as patch:

        def no_room(*_: object, **__: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "open", no_room)
        with pytest.raises(OSError, match="No space"):
            log.sync()
        log.append(encode_frame(b"two"))
    assert frames(storage, log.names) == [b"one", b"two"]
    log.close()
    assert frames(storage, log.names[-1:]) == [b"one", b"two"]


class FullDisk:
    """Writes at most ``room`` more bytes, then part of a frame, then nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, file: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(file, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", range(0, 40, 3))
def test_a_full_volume_leaves_a_well_formed_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """A frame is written whole or not at all, and when there is room again the log goes on."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    written = []
    with monkeypatch.context() as patch:
        FullDisk(patch, room)
        for payload in (b"a", b"bb", b"ccc"):
            with contextlib.suppress(OSError):
                log.append(encode_frame(payload))
                written.append(payload)
    assert frames(storage, log.names) == written
    log.append(encode_frame(b"more"))
    log.close()
    assert frames(storage, log.names) == [*written, b"more"]


def test_nothing_is_written_behind_a_torn_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the torn part cannot be cut off either, the log takes no more: a frame behind it would read as damage."""
    storage = LocalStorage(tmp_path)
    log = storage.open_log("log")
    log.append(encode_frame(b"kept"))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        FullDisk(patch, 20)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="Input/output"):
            log.append(encode_frame(b"a longer frame"))
    with pytest.raises(OSError, match="Input/output"):
        log.append(encode_frame(b"lost?"))
    scan = scan_frames(storage.read(log.names[0]) or b"")
    assert (scan.payloads, scan.torn_bytes) == ([b"kept"], 20)


# --- blobs ------------------------------------------------------------------------------------------------------


def test_a_blob_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old blob and no litter."""
    storage = LocalStorage(tmp_path)
    storage.write("done.json", b"old")
    with monkeypatch.context() as patch:
        FailingDisk(patch, lambda call: True)
        with pytest.raises(OSError, match="Input/output"):
            storage.write("done.json", b"new")
    assert storage.read("done.json") == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["done.json"]


def test_a_half_written_blob_of_a_killed_process_is_not_listed(tmp_path: Path) -> None:
    """Temporary names are nobody's blobs."""
    (tmp_path / "done.json.0a1b2c3d4e5f.tmp").write_bytes(b"half")
    assert LocalStorage(tmp_path).names() == []
