"""Everything that a deployment keeps, brought under the current key: files of checkpoints and claim checks, rows.

Each file and each row is replaced by itself, whole or not at all, and is left alone when it is under the current key
already. So this may be killed anywhere and run again, by several at once and beside everything else. What a runner
works on is left to the next run (``busy``); messages in queues are not touched: an older key stays in the settings as
long as they live.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider_ai.adapters.crypto.opening import open_wrapper
from airflow_provider_ai.adapters.crypto.rewrapping import Rewrapper
from airflow_provider_ai.adapters.crypto.stored_files import StoredFile, StoredFiles
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.envelope import read_header
from airflow_provider_ai.core.envelope_mark import is_envelope
from airflow_provider_ai.core.frames import CorruptFrameError
from airflow_provider_ai.core.key_settings import KeySettings
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.exceptions import CiphertextError, StoppedError

STORE_TIMEOUT_SECONDS = 15.0
_MOST_COMPLAINTS = 20
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlaces:
    """Where a deployment keeps things.

    :param folders: URIs
    :param store: SQLAlchemy URL; None for none
    """

    folders: tuple[str, ...] = ()
    store: str | None = field(default=None, repr=False)
    storage: StorageOptions | None = None


@dataclass(slots=True, kw_only=True)
class RotationReport:
    """Files and rows.

    :param rewrapped: brought under the current key; when nothing is written: those that would be
    :param current: under it already
    :param clear: not encrypted
    :param busy: logs of partitions that a runner works on: run again when it is done
    :param refused: not ours, damaged, or of another tenant
    :param keys: files and rows by the key that they were found under; of a log, its first message
    """

    rewrapped: int = 0
    current: int = 0
    clear: int = 0
    busy: int = 0
    refused: int = 0
    keys: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """All that was looked at."""
        return self.rewrapped + self.current + self.clear + self.busy + self.refused

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"seen": self.seen, **asdict(self)}


class KeyRotation:
    """Wraps everything anew, or only looks.

    :param write: False to look only
    :param on_seen: told now and then how many files and rows there were so far
    """

    def __init__(
        self,
        places: StoredPlaces,
        keys: KeySettings,
        *,
        write: bool,
        on_seen: Callable[[int], None] | None = None,
        stop: StopToken | None = None,
    ) -> None:
        self._places = places
        self._rewrapper = Rewrapper(open_wrapper(keys), keys.tenant)
        self._write = write
        self._on_seen = on_seen
        self._stop = stop or StopToken()
        self._report = RotationReport()

    def run(self) -> RotationReport:
        """Go through all of it.

        :raises KeyAccessError: a key cannot be used; what was done stays done
        :raises StoppedError: when a stop was asked for; likewise
        """
        for uri in self._places.folders:
            self._files(StoredFiles(uri, self._places.storage))
        if self._places.store is not None:
            self._rows(self._places.store)
        return self._report

    # --- files

    def _files(self, files: StoredFiles) -> None:
        for file in files:
            self._count(file.folder, self._file, files, file)

    def _file(self, files: StoredFiles, file: StoredFile) -> str:
        start = files.start(file)
        if not is_envelope(start):
            return "clear"
        current = self._is_current(start)
        if not file.is_log:
            if not current and self._write:
                files.rewrap(file, self._rewrapper)
            return "current" if current else "rewrapped"
        if not files.is_due(file, self._rewrapper):  # any of its messages may be under an older key
            return "current"
        done = files.rewrap_locked(file, self._rewrapper) if self._write else True
        return {True: "rewrapped", False: "current", None: "busy"}[done]  # False: sealed and deleted meanwhile

    # --- rows

    def _rows(self, url: str) -> None:
        from airflow_provider_ai.adapters.store.envelopes import COLUMNS, pages, replace_rows

        with closing(open_store(url, timeout_seconds=STORE_TIMEOUT_SECONDS)) as store:
            if store.revision() is None:
                return
            for key, column in COLUMNS:
                for page in pages(store, key, column):
                    changes: list[tuple[str, bytes, bytes]] = []
                    for name, data in page:
                        self._count(key.table.name, self._row, name, data, changes)
                    replace_rows(store, key, column, changes)

    def _row(self, name: str, data: bytes, changes: list[tuple[str, bytes, bytes]]) -> str:
        if not is_envelope(data):
            return "clear"
        if self._is_current(data):
            return "current"
        if self._write:
            changes.append((name, data, self._rewrapper.message(data)))
        return "rewrapped"

    # ---

    def _is_current(self, start: bytes) -> bool:
        key_id = read_header(start).key_id
        self._report.keys[key_id] = self._report.keys.get(key_id, 0) + 1
        return self._rewrapper.wrapper.is_current(key_id)

    def _count(self, where: str, work: Callable[..., str], *arguments: Any) -> None:
        if self._stop.stopped:
            raise StoppedError(f"stopped ({self._stop.reason}); what was done stays done, run again to go on")
        try:
            ended = work(*arguments)
        except (CiphertextError, CorruptFrameError) as error:
            ended = "refused"
            if self._report.refused < _MOST_COMPLAINTS:
                log.warning("%s: something is left as it is: %s", where, error)
        setattr(self._report, ended, getattr(self._report, ended) + 1)
        if self._on_seen is not None:
            self._on_seen(self._report.seen)
