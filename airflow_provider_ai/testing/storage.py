"""Checkpoint storage in memory."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Volume:
    """What all folders of one :class:`InMemoryStorage` share."""

    blobs: dict[str, bytearray] = field(default_factory=dict)
    locks: dict[str, object] = field(default_factory=dict)
    writes_left: int | None = None

    def write(self, name: str, data: bytes) -> None:
        self._use_up()
        self.blobs[name] = bytearray(data)

    def append(self, name: str, data: bytes) -> None:
        self._use_up()
        self.blobs.setdefault(name, bytearray()).extend(data)

    def _use_up(self) -> None:
        if self.writes_left is not None:
            if self.writes_left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.writes_left -= 1


class InMemoryStorage:
    """Checkpoint storage in memory. A process that dies is a test that drops its checkpoint and opens another one."""

    def __init__(self) -> None:
        self._volume = _Volume()
        self._root = ""

    def refuse_writes(self, *, after: int = 0) -> None:
        """The volume is full (ENOSPC) from the write after the next ``after`` ones on."""
        self._volume.writes_left = after

    def accept_writes(self) -> None:
        """The volume has room again."""
        self._volume.writes_left = None

    def break_locks(self) -> None:
        """Take all locks away, as from holders that died or showed no life for too long."""
        self._volume.locks.clear()

    def names(self) -> list[str]:
        """All blobs of this folder, sorted."""
        found = (name.removeprefix(self._root) for name in self._volume.blobs if name.startswith(self._root))
        return sorted(name for name in found if "/" not in name)

    def read(self, name: str) -> bytes | None:
        """The blob, or None."""
        blob = self._volume.blobs.get(self._root + name)
        return None if blob is None else bytes(blob)

    def write(self, name: str, data: bytes) -> None:
        """Store a blob."""
        self._volume.write(self._root + name, data)

    def delete(self, name: str) -> None:
        """Remove a blob."""
        self._volume.blobs.pop(self._root + name, None)

    def open_log(self, stem: str) -> _MemoryLog:
        """A log that is one blob."""
        return _MemoryLog(self._volume, self._root, f"{stem}.wal")

    def try_lock(self, holder: str) -> _MemoryLock | None:
        """The folder's lock, or None while it is held."""
        if self._root in self._volume.locks:
            return None
        return _MemoryLock(self._volume.locks, self._root)

    def folder(self, name: str) -> InMemoryStorage:
        """The folder below; it shares blobs, locks and faults with this one."""
        below = InMemoryStorage()
        below._volume = self._volume
        below._root = f"{self._root}{name}/"
        return below


class _MemoryLog:
    def __init__(self, volume: _Volume, root: str, name: str) -> None:
        self._volume = volume
        self._name = root + name
        self.names = [name]
        volume.write(self._name, b"")

    def append(self, data: bytes) -> None:
        self._volume.append(self._name, data)

    def sync(self) -> None:
        return None

    def close(self) -> None:
        return None


class _MemoryLock:
    def __init__(self, locks: dict[str, object], name: str) -> None:
        self._locks = locks
        self._name = name
        locks[name] = self

    def beat(self) -> bool:
        return self._locks.get(self._name) is self

    def release(self) -> None:
        if self.beat():
            del self._locks[self._name]
