"""The storage that checkpoints need: a folder of blobs, append-only logs, and a lock that dies with its holder.

Two implementations: :mod:`.local_storage` (local or shared file system: every append reaches the file) and
:mod:`.object_storage` (S3 and other ``pyarrow.fs`` stores: appends are uploaded once an interval).
"""

from __future__ import annotations

from typing import Protocol


class AppendLog(Protocol):
    """An append-only log that one process writes. Once an append has raised OSError, the log takes no more."""

    @property
    def names(self) -> list[str]:
        """The blobs it has made so far, oldest first."""
        ...

    def append(self, data: bytes) -> None:
        """Add a frame: to the file at once, or to what the next :meth:`sync` uploads. Never a part of it."""
        ...

    def sync(self) -> None:
        """Make everything appended so far survive a power loss."""
        ...

    def close(self) -> None:
        """Sync and release."""
        ...


class Lock(Protocol):
    """Held while a partition is worked on. It saves money, not correctness: two holders never damage each other."""

    def beat(self) -> bool:
        """Show life; False when another runner has taken over and this one should stop."""
        ...

    def release(self) -> None:
        """Give it up."""
        ...


class CheckpointStorage(Protocol):
    """Blobs under one folder. Names contain no scheme; ``/`` separates folders. Errors are OSError."""

    def names(self) -> list[str]:
        """All blobs of the folder (not of folders below), sorted."""
        ...

    def read(self, name: str) -> bytes | None:
        """The blob, or None when there is none; OSError when it could not be read."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Store a blob whole or not at all, durably."""
        ...

    def delete(self, name: str) -> None:
        """Remove a blob; no error when it is gone already."""
        ...

    def open_log(self, stem: str) -> AppendLog:
        """A new log whose blobs are named ``{stem}…``; nobody else uses that stem."""
        ...

    def try_lock(self, holder: str) -> Lock | None:
        """The folder's lock, or None while another live runner holds it."""
        ...

    def folder(self, name: str) -> CheckpointStorage:
        """The storage of a folder below this one."""
        ...
