"""Is every id there, and there once? Exact over any number of rows, in memory that does not grow with them.

First pass: every id becomes a 64-bit hash. Up to ``SPILL_ROWS`` hashes stay in memory; more are written to a temporary
file as sorted runs and compared one hash range at a time. Equal hashes are only candidates: a second pass, made only
when there are any, reads the ids again and compares the candidates themselves.

The temporary file has no name and goes with the process; what is in it is keyed with a key that is never written.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow.compute as pc
from pyarrow import types as pt

from airflow_provider_ai.adapters.datasets.formats import DataFile, IdBatch, Rows
from airflow_provider_ai.adapters.datasets.hashing import Hashes, hash_ids, random_key
from airflow_provider_ai.core.arrow_arrays import int64_array
from airflow_provider_ai.exceptions import InputError

SPILL_ROWS = 1 << 19
CANDIDATES = 20_000
EXAMPLES = 3


def split_missing(batch: IdBatch) -> tuple[IdBatch, Rows]:
    """The ids that are there, and the rows that have none: null, or NaN, which equals nothing, not even itself."""
    values = batch.values
    if not values.null_count and not pt.is_floating(values.type):
        return batch, batch.rows[:0]
    missing = pc.is_null(values, nan_is_null=pt.is_floating(values.type)).to_numpy(zero_copy_only=False)
    there = np.flatnonzero(~missing)
    return IdBatch(batch.rows[there], values.take(int64_array(there))), batch.rows[missing]


class HashSet:
    """Collects hashes and finds those that came more than once. Safe to feed from several threads.

    ``key``: the random key to hash with. ``repeats``: how many hashes were there before. ``candidates``: the repeated
    hashes, ascending, at most ``CANDIDATES`` of them; ``complete`` tells whether that is all.
    """

    def __init__(self, spill_rows: int = SPILL_ROWS) -> None:
        self.key = random_key()
        self.repeats = 0
        self.candidates: Hashes = np.empty(0, dtype=np.uint64)
        self.complete = True
        self._buffer: Hashes = np.empty(spill_rows, dtype=np.uint64)
        self._used = 0
        self._runs: list[_Run] = []
        self._file: IO[bytes] | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def spilled(self) -> bool:
        """Whether a temporary file was needed."""
        return self._file is not None

    def add(self, hashes: Hashes) -> None:
        """Take some hashes."""
        with self._lock:
            while len(hashes):
                room = hashes[: len(self._buffer) - self._used]
                self._buffer[self._used : self._used + len(room)] = room
                self._used += len(room)
                hashes = hashes[len(room) :]
                if self._used == len(self._buffer) and len(hashes):
                    self._spill()

    def finish(self) -> None:
        """Compare everything; afterwards ``repeats`` and ``candidates`` are final."""
        if not self._runs:
            self._note(np.sort(self._buffer[: self._used]))
            return
        self._spill()
        count = math.ceil(sum(run.length for run in self._runs) / len(self._buffer))
        for number in range(1, count + 1):
            below = None if number == count else np.uint64((number << 64) // count)
            merged = np.concatenate([run.take_below(below, count) for run in self._runs])
            merged.sort(kind="stable")  # timsort: parts that are sorted already are only merged
            self._note(merged)

    def _spill(self) -> None:
        full = self._buffer[: self._used]
        full.sort()
        distinct = self._note(full)
        self._used = 0
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="airflow-ai-ids-")  # noqa: SIM115 - closed in __exit__
            start = self._file.seek(0, 2)
            self._file.write(distinct.data)
            self._file.flush()
        except OSError as error:
            raise OSError(
                error.errno,
                f"the uniqueness check of the ids cannot write to {tempfile.gettempdir()} ({error.strerror}): "
                "free space there or set TMPDIR, then retry",
            ) from None
        self._runs.append(_Run(self._file, start, len(distinct)))

    def _note(self, hashes: Hashes) -> Hashes:
        """Note which of the sorted hashes are repeated; one of each."""
        again = hashes[1:] == hashes[:-1]
        repeats = int(np.count_nonzero(again))
        if not repeats:
            return hashes
        self.repeats += repeats
        found = np.union1d(self.candidates, hashes[1:][again])
        self.complete = self.complete and len(found) <= CANDIDATES
        self.candidates = found[:CANDIDATES]
        return hashes[np.concatenate(([True], ~again))]


@dataclass(slots=True)
class _Run:
    """Ascending hashes in the temporary file, read from front to back."""

    file: IO[bytes]
    start: int
    length: int
    position: int = 0

    def take_below(self, below: np.uint64 | None, slices: int) -> Hashes:
        """The next hashes, up to ``below``; reads about the part of a run that one of ``slices`` ranges holds."""
        parts = []
        step = self.length // slices * 9 // 8 + 64
        while self.position < self.length:
            self.file.seek(self.start + 8 * self.position)
            some = np.frombuffer(self.file.read(8 * min(step, self.length - self.position)), dtype=np.uint64)
            kept = some if below is None else some[: np.searchsorted(some, below)]
            parts.append(kept)
            self.position += len(kept)
            if len(kept) < len(some):
                break
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


@dataclass(slots=True)
class IdIntake:
    """Takes the ids of one file: counts the rows that have none, hashes the others.

    ``missing_rows``: the first rows without an id.
    """

    file: DataFile
    hashes: HashSet
    missing: int = 0
    missing_rows: list[int] = field(default_factory=list)

    def __call__(self, batch: IdBatch) -> None:
        present, absent = split_missing(batch)
        self.missing += len(absent)
        self.missing_rows = sorted([*self.missing_rows, *absent[:EXAMPLES].tolist()])[:EXAMPLES]
        if not len(present.rows):
            return
        try:
            self.hashes.add(hash_ids(present.values, self.hashes.key))
        except InputError as error:
            raise InputError(f"{self.file.path}: {error}") from None


@dataclass(slots=True)
class Confirmation:
    """Compares the candidates themselves: ``repeats`` rows have the id of an earlier row; a few places as examples."""

    candidates: Hashes
    key: int
    repeats: int = 0
    examples: list[str] = field(default_factory=list)
    _places: dict[Any, tuple[str, int]] = field(default_factory=dict)

    def take(self, path: str, batch: IdBatch) -> None:
        """Look at some ids; files and their rows must come in order."""
        batch, _ = split_missing(batch)
        if not len(batch.rows):
            return
        hashes = hash_ids(batch.values, self.key)
        at = np.minimum(np.searchsorted(self.candidates, hashes), len(self.candidates) - 1)
        hits = np.flatnonzero(self.candidates[at] == hashes)
        for hit in hits.tolist():
            row = int(batch.rows[hit])
            first = self._places.setdefault(batch.values[hit].as_py(), (path, row))
            if first != (path, row):
                self._found(first, (path, row))

    def _found(self, first: tuple[str, int], again: tuple[str, int]) -> None:
        self.repeats += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{again[0]} row {again[1]} repeats {first[0]} row {first[1]}")
