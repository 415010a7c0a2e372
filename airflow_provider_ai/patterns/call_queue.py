"""Which call goes out next: those whose time has come before fresh ones. Bounded: an outage cannot fill the memory."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable

from airflow_provider_ai.patterns.work import Call


class CallQueue:
    """Fresh calls in order, and delayed ones by due time (monotonic seconds).

    While more than ``max_delayed`` calls wait for their time, no fresh one is handed out.
    """

    def __init__(self, *, max_delayed: int) -> None:
        self._fresh: deque[Call] = deque()
        self._delayed: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._max_delayed = max_delayed

    def __len__(self) -> int:
        return len(self._fresh) + len(self._delayed)

    @property
    def fresh(self) -> int:
        """Calls that were never sent."""
        return len(self._fresh)

    def add(self, calls: Iterable[Call]) -> None:
        """Add fresh calls."""
        self._fresh.extend(calls)

    def delay(self, call: Call, due: float) -> None:
        """Hand it out again at ``due``."""
        heapq.heappush(self._delayed, (due, next(self._numbers), call))

    def next_due(self) -> float | None:
        """When the next delayed call's time comes."""
        return self._delayed[0][0] if self._delayed else None

    def pop(self, now: float, *, prefer_fresh: bool = False) -> Call | None:
        """The next call, or None when there is none to send now.

        ``prefer_fresh``: a call that has not failed says more about an endpoint in doubt than one that has.
        """
        if prefer_fresh and self._fresh:
            return self._fresh.popleft()
        if self._delayed and self._delayed[0][0] <= now:
            return heapq.heappop(self._delayed)[2]
        if self._fresh and len(self._delayed) < self._max_delayed:
            return self._fresh.popleft()
        return None

    def put_back(self, call: Call, now: float) -> None:
        """Undo a :meth:`pop`: the call is the next one again."""
        if call.attempts or call.throttled:
            self.delay(call, now)
        else:
            self._fresh.appendleft(call)
