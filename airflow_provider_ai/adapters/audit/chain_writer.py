"""The chain of this process: events in, rows out, each bound to the one before it.

One chain for each process: numbers without gaps need one writer. Threads that come at the same moment share a commit.
A child of a fork begins a chain of its own, which names the place in its parent's where they parted; so does a writer
that is closed and opened again.

A commit whose end nobody knows (the connection broke, the thread was killed) is settled before anything else is
written: its rows are inserted again under the same numbers, where they are not there. So the chain never forks and
never has a gap, and an event whose caller was told that it may not be kept may be kept.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain

from airflow_provider_ai.adapters.audit.event_table import AuditTable
from airflow_provider_ai.adapters.audit.head_shipping import HeadShipper
from airflow_provider_ai.adapters.store.group_commit import GroupCommit
from airflow_provider_ai.core.audit import AuditEvent, Position
from airflow_provider_ai.core.audit_chain import Row, next_row, start_of
from airflow_provider_ai.exceptions import AuditError, AuditUnavailableError, StoreError, StoreUnavailableError

_MOST = 256
_writers: weakref.WeakSet[ChainWriter] = weakref.WeakSet()


class ChainWriter:
    """An :class:`~airflow_provider_ai.core.audit_ports.AuditLog` on a store. Thread-safe.

    :param opening: the first event of a chain, from the end of the one before it, where that is known
    :param name: a new name for a chain
    :param shipper: makes a shipper of heads, for each chain another; None without heads
    :param previous: the end of the chain before this one
    """

    on = True
    _previous: Position | None
    _end: Position | None
    _opened: bool
    _closed: bool
    _unsettled: list[Row]
    _shipper: HeadShipper | None

    def __init__(
        self,
        table: AuditTable,
        *,
        opening: Callable[[Position | None], AuditEvent],
        name: Callable[[], str],
        shipper: Callable[[], HeadShipper] | None = None,
        previous: Position | None = None,
    ) -> None:
        self._table = table
        self._opening = opening
        self._name = name
        self._make_shipper = shipper
        self._begin_process(previous)
        _writers.add(self)

    @property
    def end(self) -> Position | None:
        """The end of the chain as far as it is durable; None before it begins."""
        return self._end

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Keep events, all or none, in order; durable when this returns.

        :raises AuditUnavailableError: when the store or the place of heads does not answer
        :raises AuditError: when the store refuses them
        """
        if not events:
            return
        try:
            self.prepare()
            if self._shipper is not None:
                self._shipper.require_fresh()
            self._group(events)
        except AuditError:
            raise
        except StoreUnavailableError as error:
            failure: AuditError = AuditUnavailableError(f"audit: {error}")
        except StoreError as error:
            failure = AuditError(f"audit: {error}")
        else:
            return
        raise failure

    def prepare(self) -> None:
        """Begin the chain, unless it has begun: its opening event is durable, and its first head is shipped.

        :raises StoreError: when that cannot be done
        """
        if self._opened:
            return
        with self._beginning:
            if self._end is None:
                self._table.prepare()
                row = next_row(start_of(self._name()), self._opening(self._previous))
                self._table.insert([row])
                self._end = _position(row)
            if not self._opened and self._shipper is not None:
                self._shipper.begin(self._end)
            self._opened = True

    def close(self) -> None:
        """Take nothing more, and sign a head that nothing follows. What cannot be shipped any more is logged.

        Where a commit is left whose end nobody knows, something may follow, so the head does not say so.
        """
        with self._writing:
            self._closed = True
            with suppress(StoreError):
                self._settle()
        if self._shipper is not None:
            self._shipper.close(final=not self._unsettled)
        self._previous = self._end or self._previous
        self._table.close()

    # ---

    def _begin_process(self, previous: Position | None) -> None:
        """Locks of its own, too: a thread that a child does not have may have held the parent's."""
        self._previous = previous
        self._end = None
        self._opened = False
        self._unsettled = []
        self._closed = False
        self._beginning = threading.Lock()
        self._writing = threading.Lock()  # against closing: else one would wait for the other's turn
        self._group: GroupCommit[Sequence[AuditEvent], None] = GroupCommit(self._write, most=_MOST)
        self._shipper = None if self._make_shipper is None else self._make_shipper()

    def _after_fork(self) -> None:
        self._begin_process(self._end or self._previous)

    def _write(self, groups: Sequence[Sequence[AuditEvent]]) -> Sequence[None]:
        with self._writing:
            if self._closed:
                raise AuditError("audit: this process has closed it; what was intended is on record")
            self._settle()
            self._write_rows(groups)
        return [None] * len(groups)

    def _write_rows(self, groups: Sequence[Sequence[AuditEvent]]) -> None:
        rows: list[Row] = []
        end = self._end or start_of("")
        for event in chain.from_iterable(groups):
            rows.append(next_row(end, event))
            end = _position(rows[-1])
        self._unsettled = rows
        try:
            self._table.insert(rows)
        except StoreUnavailableError:
            raise
        except StoreError:  # refused as a whole, so none of them is there
            self._unsettled = []
            raise
        self._go_on(end)

    def _settle(self) -> None:
        if self._unsettled:
            self._table.insert_absent(self._unsettled)
            self._go_on(_position(self._unsettled[-1]))

    def _go_on(self, end: Position) -> None:
        self._unsettled = []
        self._end = end
        if self._shipper is not None:
            self._shipper.note(end)


def _position(row: Row) -> Position:
    return Position(row.writer, row.sequence, row.hash)


def _in_child() -> None:
    for writer in list(_writers):
        writer._after_fork()


os.register_at_fork(after_in_child=_in_child)
