"""Checkpoint storage on an object store through ``pyarrow.fs``: no append, no rename; a PUT is atomic, listed at once.

A log is a series of objects, one an interval. The lock is a claim object per runner, renewed while it works. Mutual
exclusion needs only strong read-after-write consistency (S3 has it since December 2020): a runner writes its claim,
then lists the claims; when it sees another live one it withdraws and comes back later. Of two that overlap, at least
the one that wrote last sees the other, so never do both go on. A claim is dead when it has not changed for
``LEASE_SECONDS`` on the observer's own monotonic clock: clocks of different machines are never compared.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid

from pyarrow import fs

from airflow_provider_ai.adapters.checkpoints.storage import AppendLog, Lock

LEASE_SECONDS = 15.0
_BEAT_SECONDS = 3.0
_CLAIMS = "claims"


class ObjectStorage:
    """Objects under one prefix."""

    def __init__(self, filesystem: fs.FileSystem, root: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._lease_seconds = lease_seconds
        self._observed: dict[str, tuple[bytes, float]] = {}

    def names(self) -> list[str]:
        selector = fs.FileSelector(self._root, allow_not_found=True)
        found = self._fs.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == fs.FileType.File)

    def read(self, name: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        with self._fs.open_output_stream(self._path(name)) as stream:
            stream.write(data)

    def delete(self, name: str) -> None:
        try:
            self._fs.delete_file(self._path(name))
        except FileNotFoundError:
            return

    def open_log(self, stem: str) -> AppendLog:
        return ObjectLog(self, stem)

    def try_lock(self, holder: str) -> Lock | None:
        claims = self.folder(_CLAIMS)
        if self._rivals(claims, own=None):
            return None
        lock = ClaimLock(claims, f"{uuid.uuid4().hex}.claim", holder)
        if self._rivals(claims, own=lock.name):
            lock.release()
            return None
        return lock

    def folder(self, name: str) -> ObjectStorage:
        return ObjectStorage(self._fs, self._path(name), lease_seconds=self._lease_seconds)

    def _rivals(self, claims: ObjectStorage, *, own: str | None) -> bool:
        """Whether a live claim of another runner is there. Claims seen dead are removed."""
        now = time.monotonic()
        alive = False
        for name in claims.names():
            content = None if name == own else claims.read(name)
            if content is None:
                continue
            seen, since = self._observed.get(name, (b"", now))
            if seen != content:
                self._observed[name] = (content, now)
                alive = True
            elif now - since < self._lease_seconds:
                alive = True
            else:
                claims.delete(name)
        return alive

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class ObjectLog:
    """Frames gathered in memory and uploaded as one object by each :meth:`sync`."""

    def __init__(self, storage: ObjectStorage, stem: str) -> None:
        self._storage = storage
        self._stem = stem
        self._numbers = itertools.count()
        self._pending: list[bytes] = []
        self._gathering = threading.Lock()
        self._made: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(self._made)

    def append(self, data: bytes) -> None:
        with self._gathering:
            self._pending.append(data)

    def sync(self) -> None:
        with self._gathering:
            frames, self._pending = self._pending, []
        if not frames:
            return
        name = f"{self._stem}-{next(self._numbers):06d}.wal"
        try:
            self._storage.write(name, b"".join(frames))
        except BaseException:
            with self._gathering:
                self._pending = frames + self._pending
            raise
        self._made.append(name)

    def close(self) -> None:
        self.sync()


class ClaimLock:
    """A claim object that changes while its holder lives."""

    def __init__(self, claims: ObjectStorage, name: str, holder: str) -> None:
        self.name = name
        self._claims = claims
        self._holder = holder
        self._beats = itertools.count()
        self._beaten_at = 0.0
        self._write()

    def beat(self) -> bool:
        if time.monotonic() - self._beaten_at < _BEAT_SECONDS:
            return True
        if self._claims.read(self.name) is None:
            return False
        self._write()
        return True

    def release(self) -> None:
        self._claims.delete(self.name)

    def _write(self) -> None:
        self._claims.write(self.name, f"{self._holder} {next(self._beats)}".encode())
        self._beaten_at = time.monotonic()
