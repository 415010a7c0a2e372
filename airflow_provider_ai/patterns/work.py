"""The units of a batch in memory: a record, a call that carries some records, a partition being worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_provider_ai.core.outcomes import Outcome
from airflow_provider_ai.core.ports import EncodedRequest, RowBlock
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import InputChangedError


class Journal(Protocol):
    """The checkpoint of a partition, as the engine sees it. ``record`` must not block; the rest may."""

    succeeded: RowSet
    given_up: RowSet
    given_up_before: RowSet
    round: int

    def record(self, outcome: Outcome) -> None:
        """Keep an outcome; OSError when it cannot be kept."""
        ...

    def sync(self) -> None:
        """Make what was recorded durable, show life."""
        ...

    def show_life(self) -> None:
        """Keep other runners from taking over; AIProviderError when one has."""
        ...

    def complete(self) -> object:
        """All rows have an outcome: seal the partition."""
        ...

    def close(self) -> None:
        """Make what was recorded durable and let the partition go."""
        ...


@dataclass(slots=True, eq=False)
class Record:
    """One input row. ``suspect``: an earlier round gave it up, so its failing again says nothing of the endpoint."""

    row: int
    key: str
    id: Any
    data: Mapping[str, Any]
    suspect: bool = False


@dataclass(slots=True, eq=False)
class Call:
    """Records that travel in one request.

    :param tries: counted failures of exactly this grouping; a split starts again
    :param attempts: counted failures of these records in any grouping
    :param throttled: how often it was put off without counting
    :param probe: it is the one call that is to find out whether the endpoint is back
    """

    run: PartitionRun
    records: Sequence[Record]
    tries: int = 0
    attempts: int = 0
    throttled: int = 0
    probe: bool = False
    encoded: EncodedRequest | None = None

    @property
    def first_try(self) -> bool:
        """None of its records has failed before."""
        return self.attempts == 0 and not any(record.suspect for record in self.records)

    def split(self) -> list[Call]:
        """Two halves, to find the record that spoils the call."""
        middle = len(self.records) // 2
        return [self.part(self.records[:middle]), self.part(self.records[middle:])]

    def part(self, records: Sequence[Record], *, tries: int = 0) -> Call:
        """A call for some of the records that remembers their attempts."""
        return Call(self.run, records, tries=tries, attempts=self.attempts)


@dataclass(slots=True, eq=False)
class PartitionRun:
    """A partition being worked on. ``pending``: rows without an outcome."""

    index: int
    rows: int
    journal: Journal
    blocks: Iterator[RowBlock]
    id_column: str
    key_of: Callable[[object], str]
    label: str = ""
    pending: int = field(init=False)
    _unread: int = field(init=False)

    def __post_init__(self) -> None:
        self.pending = self._unread = self.rows - len(self.journal.succeeded) - len(self.journal.given_up)

    def next_records(self) -> list[Record] | None:
        """Some more rows to call, None at the end. Blocks on input; for the reader thread."""
        block = next(self.blocks, None)
        if block is None:
            if self._unread:
                raise InputChangedError(
                    f"partition {self.index} ended {self._unread} rows early: its input files are not the ones that "
                    "were planned. Run with verb recompute to plan again"
                )
            return None
        self._unread -= len(block.rows)
        return [self._record(row, data) for row, data in zip(block.rows, block.records, strict=True)]

    def _record(self, row: int, data: Mapping[str, Any]) -> Record:
        record_id = data[self.id_column]
        return Record(row, self.key_of(record_id), record_id, data, row in self.journal.given_up_before)
