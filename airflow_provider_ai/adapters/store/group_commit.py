"""One commit for all threads that want to write at the same moment: the disk is waited for once, not once for each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_provider_ai.exceptions import StoreError, StoreUnavailableError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Answer]):
    """An item that waits. ``turn``: it is written, or is to be written by its own thread, for all who wait then."""

    item: Item
    turn: threading.Event = field(default_factory=threading.Event)
    over: bool = False
    answer: Answer | None = None
    error: StoreError | None = None

    def end(self, answer: Answer | None, error: StoreError | None = None) -> None:
        self.answer, self.error, self.over = answer, error, True
        self.turn.set()


class GroupCommit(Generic[Item, Answer]):
    """While one thread writes, the others gather; the first of them then writes for all. Alone, nobody waits.

    :param write: writes items, all or none, and gives an answer for each. It is called again for each of them alone
        when all of them together are refused
    :param most: items that are written together
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Answer]], *, most: int) -> None:
        self._write = write
        self._most = most
        self._waiting: list[_Entry[Item, Answer]] = []
        self._busy = False
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> Answer:
        """Write an item, durable when this returns; its answer.

        :raises StoreError: as ``write`` did
        """
        mine: _Entry[Item, Answer] = _Entry(item)
        with self._lock:
            self._waiting.append(mine)
            if not self._busy:
                self._busy = True
                mine.turn.set()
        try:
            mine.turn.wait()
        except BaseException:
            self._withdraw(mine)
            raise
        if not mine.over:
            self._write_some()
        if mine.error is not None:
            raise type(mine.error)(*mine.error.args)
        return mine.answer  # type: ignore[return-value]

    def _write_some(self) -> None:
        """Write for those who wait, the thread's own first; then let the next one do so."""
        with self._lock:
            some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            self._settle(some)
        finally:
            for entry in some:
                if not entry.over:
                    entry.end(None, StoreUnavailableError("the thread that wrote for others was ended"))
            with self._lock:
                self._pass_on()

    def _withdraw(self, entry: _Entry[Item, Answer]) -> None:
        """Its thread is ended while it waits: it must not become the one that everybody waits for."""
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
                if entry.turn.is_set():
                    self._pass_on()

    def _pass_on(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting[0].turn.set()

    def _settle(self, some: Sequence[_Entry[Item, Answer]]) -> None:
        try:
            answers = self._write([entry.item for entry in some])
        except StoreError as error:
            if len(some) > 1 and not isinstance(error, StoreUnavailableError):
                for entry in some:  # one of them is what the database refuses
                    self._settle([entry])
                return
            for entry in some:
                entry.end(None, error)
        else:
            for entry, answer in zip(some, answers, strict=True):
                entry.end(answer)
