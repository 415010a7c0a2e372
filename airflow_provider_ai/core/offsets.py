"""Which offset of a Kafka partition may be committed.

An offset says "everything before this is done", while jobs end in any order. So it moves only over what is done without
a gap; what is done behind a gap waits. Offsets themselves may have gaps (compaction, transactions): what counts is the
order in which messages came.
"""

from __future__ import annotations

from collections import deque


class Offsets:
    """The messages of one partition since it was assigned, up to the last one that came."""

    def __init__(self) -> None:
        self._open: deque[int] = deque()  # taken, in order, from the first that is not done
        self._done: set[int] = set()
        self._last = -1

    def take(self, offset: int) -> bool:
        """A message has come; False when a later one came before, which means that the partition began anew."""
        if offset <= self._last:
            return False
        self._last = offset
        self._open.append(offset)
        return True

    def done(self, offset: int) -> int | None:
        """A message is done, once or again; the offset to commit if it has moved."""
        if not self._open or offset < self._open[0] or offset > self._last:
            return None
        self._done.add(offset)
        moved = None
        while self._open and self._open[0] in self._done:
            moved = self._open.popleft()
            self._done.remove(moved)
        return None if moved is None else moved + 1
