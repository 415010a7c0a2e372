"""Checkpoint storage on a local or shared file system.

An append is one ``write(2)`` of a whole frame, so a killed process has lost nothing it acknowledged; ``fsync`` bounds a
power loss. The lock is ``flock(2)``: the kernel drops it when its holder dies, so there is no stale lock to wait out.
A holder that is alive but frozen (SIGSTOP, a hung mount) shows no life for ``LEASE_SECONDS`` of the waiting runner's
own monotonic clock and is taken over; when it wakes up it finds the lock file replaced and stops.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
import uuid
from pathlib import Path

from airflow_provider_ai.adapters.checkpoints.storage import AppendLog, Lock

LEASE_SECONDS = 30.0
_LOCK_NAME = "lock"
_TEMPORARY = ".tmp"


class LocalStorage:
    """Blobs in a folder. The folder is made when first written to."""

    def __init__(self, root: Path, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._root = root
        self._lease_seconds = lease_seconds
        self._seen: tuple[int, float] | None = None

    def names(self) -> list[str]:
        try:
            entries = [entry.name for entry in os.scandir(self._root) if entry.is_file()]
        except FileNotFoundError:
            return []
        return sorted(name for name in entries if not name.endswith(_TEMPORARY) and name != _LOCK_NAME)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def open_log(self, stem: str) -> AppendLog:
        self._root.mkdir(parents=True, exist_ok=True)
        return FileLog(self._root / f"{stem}.wal")

    def try_lock(self, holder: str) -> Lock | None:
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / _LOCK_NAME
        lock = FileLock.acquire(path, holder)
        if lock is not None:
            self._tidy()
        elif self._frozen(path):
            return FileLock.take_over(path, holder)
        return lock

    def folder(self, name: str) -> LocalStorage:
        return LocalStorage(self._root / name, lease_seconds=self._lease_seconds)

    def _tidy(self) -> None:
        """Remove what killed writers were writing. Only with the lock in hand and only after a holder that is gone: one
        that is taken over lives and may still be writing; nor what other runners are making a lock of right now."""
        with contextlib.suppress(OSError):  # litter is no reason to fail
            for entry in os.scandir(self._root):
                if entry.name.endswith(_TEMPORARY) and not entry.name.startswith(f"{_LOCK_NAME}."):
                    (self._root / entry.name).unlink(missing_ok=True)

    def _frozen(self, lock: Path) -> bool:
        """Whether the lock's holder has shown no life for the length of the lease."""
        beat, now = lock.stat().st_mtime_ns, time.monotonic()
        if self._seen is None or self._seen[0] != beat:
            self._seen = (beat, now)
        return now - self._seen[1] > self._lease_seconds


class FileLog:
    """One file, written by one process. What was not yet fsynced is kept, to be written anew if fsync fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: list[Path] = []
        self._unsynced: list[bytes] = []
        self._suspect = False
        self._torn = False
        self._writing = threading.Lock()
        self._open()

    @property
    def names(self) -> list[str]:
        return [path.name for path in self._made]

    def append(self, data: bytes) -> None:
        with self._writing:
            self._put(data)
            self._unsynced.append(data)

    def sync(self) -> None:
        """fsync; after a failed one the kernel may have dropped the pages, so their frames go to a new file."""
        with self._writing:
            frames = len(self._unsynced)
        if not frames:
            return
        if not self._suspect:
            try:
                os.fsync(self._file)
            except OSError:
                self._suspect = True
        with self._writing:
            if self._suspect:
                self._write_anew()
            else:
                del self._unsynced[:frames]

    def close(self) -> None:
        """Sync and release; when that fails it may be tried again."""
        self.sync()
        os.close(self._file)

    def _put(self, data: bytes) -> None:
        """Write whole or not at all: a frame behind a torn one would make the file look corrupt."""
        if self._torn:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._made[-1]))
        written = os.write(self._file, data)
        if written != len(data):
            self._torn = True
            os.ftruncate(self._file, self._size)
            self._torn = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._made[-1]))
        self._size += written

    def _write_anew(self) -> None:
        """Into a new file, until that succeeds: the old one cannot be trusted with what was not synced."""
        doubted = self._file
        self._open()
        os.close(doubted)
        self._put(b"".join(self._unsynced))
        os.fsync(self._file)
        self._unsynced = []
        self._suspect = False

    def _open(self) -> None:
        path = self._path.with_name(f"{self._path.stem}-{len(self._made)}{self._path.suffix}")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._made.append(path)
        try:
            _sync_folder(path.parent)
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._size = 0
        self._torn = False


class FileLock:
    """An exclusive ``flock`` on a lock file that its holder touches to show life."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file

    @classmethod
    def acquire(cls, path: Path, holder: str) -> FileLock | None:
        """The lock, or None while another process has it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock, held = cls(path, file), False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock._current():
                lock._sign(holder)
                held = True
        except BlockingIOError:
            return None
        finally:
            if not held:
                os.close(file)
        return lock if held else None

    @classmethod
    def take_over(cls, path: Path, holder: str) -> FileLock | None:
        """Replace the lock file by one of our own: the frozen holder's lock is then on a file that has no name."""
        fresh = _temporary(path)
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        lock, held = cls(path, file), False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock._sign(holder)
            fresh.rename(path)
            held = lock._current()
        finally:
            if not held:
                os.close(file)
                fresh.unlink(missing_ok=True)
        return lock if held else None

    def beat(self) -> bool:
        os.utime(self._file)
        return self._current()

    def release(self) -> None:
        os.close(self._file)

    def _current(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._file)
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def _sign(self, holder: str) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, holder.encode(), 0)


def _temporary(path: Path) -> Path:
    """A name that nobody else uses: containers on a shared file system often have the same process id."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{_TEMPORARY}")


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
