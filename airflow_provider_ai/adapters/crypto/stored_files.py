"""Files below a folder that may hold encrypted data: checkpoints, plans, claim checks, outputs.

A file is replaced whole, by one that is the same but for its key. Logs of checkpoints are replaced only under the
partition's lock: a runner may be appending to them. Nobody's lock is taken over on a file system, where a runner that
was only frozen would go on writing to the file that is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_ai.adapters.checkpoints.plans import open_storage
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.adapters.crypto.rewrapping import Rewrapper
from airflow_provider_ai.adapters.filesystems import open_filesystem
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.frames import HEADER_BYTES

_START_BYTES = 4096
_LOG = ".wal"
_NOT_DATA = ("lock",)
_DOCUMENTS = ("done-", "pass.json")  # of checkpoints: counts, names of columns and segments, and no data
_PATIENCE_SECONDS = 20.0
"""Longer than a claim of a dead runner counts on S3 (15 s), shorter than the lease on a file system (30 s)."""
_LOOK_SECONDS = 0.5
_HOLDER = "keys rotate"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. ``folder``: URI."""

    folder: str
    name: str

    @property
    def is_log(self) -> bool:
        """Whether it is a log of a checkpoint."""
        return self.name.endswith(_LOG)


class StoredFiles:
    """The files below a URI."""

    def __init__(self, uri: str, options: StorageOptions | None = None) -> None:
        self._filesystem, self._root = open_filesystem(uri, options)
        self._uri = uri.rstrip("/")
        self._options = options
        self._folders: dict[str, CheckpointStorage] = {}

    def __iter__(self) -> Iterator[StoredFile]:
        from pyarrow import fs

        found = self._filesystem.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        for info in sorted((info for info in found if info.type == fs.FileType.File), key=lambda info: str(info.path)):
            relative = str(info.path).removeprefix(self._root).lstrip("/")
            folder, _, name = relative.rpartition("/")
            if _may_hold_data(folder, name):
                yield StoredFile(f"{self._uri}/{folder}" if folder else self._uri, name)

    def start(self, file: StoredFile) -> bytes:
        """The first bytes of its first message: enough for any header. None of a file that is gone."""
        path = f"{self._root}{file.folder.removeprefix(self._uri)}/{file.name}"
        try:
            with self._filesystem.open_input_file(path) as opened:
                return bytes(opened.read(_START_BYTES))[HEADER_BYTES if file.is_log else 0 :]
        except FileNotFoundError:
            return b""

    def is_due(self, log: StoredFile, rewrapper: Rewrapper) -> bool:
        """Whether a log holds messages under an older key."""
        data = self._storage(log).read(log.name)
        return data is not None and rewrapper.is_due(data)

    def rewrap(self, file: StoredFile, rewrapper: Rewrapper) -> bool:
        """Whether it was replaced.

        :raises EncryptionError: it is under a key that cannot be used, or is not ours
        """
        before = self._storage(file).read(file.name)
        if before is None:
            return False
        after = rewrapper.log(before) if file.is_log else rewrapper.message(before)
        if after == before:
            return False
        if self._storage(file).read(file.name) == before:  # and not removed, or sealed, meanwhile
            self._storage(file).write(file.name, after)
        return True

    def rewrap_locked(self, file: StoredFile, rewrapper: Rewrapper) -> bool | None:
        """Likewise, for a log, under the lock of its partition; None when a runner holds it."""
        lock, give_up_at = None, time.monotonic() + _PATIENCE_SECONDS
        while lock is None:
            lock = self._storage(file).try_lock(_HOLDER)
            if lock is None and time.monotonic() >= give_up_at:
                return None
            if lock is None:
                time.sleep(_LOOK_SECONDS)
        try:
            return self.rewrap(file, rewrapper)
        finally:
            lock.release()

    def _storage(self, file: StoredFile) -> CheckpointStorage:
        """Always the same for a folder: it remembers since when another's claim has shown no life."""
        if file.folder not in self._folders:
            self._folders[file.folder] = open_storage(file.folder, self._options)
        return self._folders[file.folder]


def _may_hold_data(folder: str, name: str) -> bool:
    parts = folder.split("/")
    beside = name in _NOT_DATA or name.endswith(".tmp") or name.startswith(_DOCUMENTS)
    return not beside and parts[-1] not in ("plans", "claims")
