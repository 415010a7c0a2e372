"""Checkpoint storage on an object store through ``pyarrow.fs``: no append, no rename; a PUT is atomic, listed at once.

A log is a series of objects, one an interval. The lock is a claim of one runner, an object with a new name per beat.
It needs no conditional writes, only strong read-after-write consistency (S3 has it since December 2020):

* A holder's beat puts its next claim, then looks for the one before. When that is gone it has been taken over.
* A runner that finds only dead claims puts its own, deletes the dead ones, then lists: when another claim is there, it
  withdraws and comes back later.

A name that was deleted is never looked for again by anyone but its own runner, so a holder that was frozen anywhere in
a beat cannot bring its claim back: either its beat was whole before the deletion, and the other one sees its new claim
and withdraws, or it notices. A claim is dead when it has not changed for ``LEASE_SECONDS`` on the observer's own
monotonic clock: clocks of different machines are never compared.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid

from pyarrow import fs

from airflow_provider_ai.adapters.checkpoints.storage import AppendLog, Lock

LEASE_SECONDS = 15.0
_BEATS_PER_LEASE = 5
_CLAIMS = "claims"


class ObjectStorage:
    """Objects under one prefix."""

    def __init__(self, filesystem: fs.FileSystem, root: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._lease_seconds = lease_seconds
        self._observed: dict[str, tuple[str, float]] = {}

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
        found = claims.names()
        if self._any_alive(found):
            return None
        lock = ClaimLock(claims, holder, beat_seconds=self._lease_seconds / _BEATS_PER_LEASE)
        alone = False
        try:
            lock.put()
            for name in found:
                claims.delete(name)
            alone = claims.names() == lock.names
        finally:
            if not alone:
                lock.release()
        return lock if alone else None

    def folder(self, name: str) -> ObjectStorage:
        return ObjectStorage(self._fs, self._path(name), lease_seconds=self._lease_seconds)

    def _any_alive(self, claims: list[str]) -> bool:
        """Whether the claim of a runner is new to this observer, or has changed within the lease."""
        now = time.monotonic()
        newest = {_runner(name): name for name in claims}  # sorted, so the last one of a runner counts
        self._observed = {
            runner: seen if (seen := self._observed.get(runner)) and seen[0] == name else (name, now)
            for runner, name in newest.items()
        }
        return any(now - since < self._lease_seconds for _, since in self._observed.values())

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
    """The claim of one runner: one object, two in the middle of a beat. ``names``: those that may be there."""

    def __init__(self, claims: ObjectStorage, holder: str, *, beat_seconds: float) -> None:
        self.names: list[str] = []
        self._claims = claims
        self._holder = holder
        self._beat_seconds = beat_seconds
        self._runner = uuid.uuid4().hex
        self._beats = 0
        self._beaten_at = time.monotonic()

    def put(self, beat: int = 0) -> None:
        """Put the claim of a beat."""
        if self._name(beat) not in self.names:
            self.names.append(self._name(beat))
        self._claims.write(self._name(beat), self._holder.encode())

    def beat(self) -> bool:
        now = time.monotonic()
        if now - self._beaten_at < self._beat_seconds:
            return True
        self.put(self._beats + 1)
        held = self._claims.read(self._name(self._beats)) is not None
        if held:
            self._beats += 1
            self._beaten_at = now
        self._delete_all_but([self._name(self._beats)] if held else [])
        return held

    def release(self) -> None:
        self._delete_all_but([])

    def _delete_all_but(self, kept: list[str]) -> None:
        for name in [name for name in self.names if name not in kept]:
            self._claims.delete(name)
            self.names.remove(name)

    def _name(self, beat: int) -> str:
        return f"{self._runner}-{beat:012d}.claim"


def _runner(claim: str) -> str:
    return claim.partition("-")[0]
