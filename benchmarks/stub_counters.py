"""Calls per record id as the server saw them. No HTTP and no clock: the caller says what happened.

A client's own count of what it sent is what the benchmarks must not believe, so each record is counted at three stages:
`called` when its request has been read completely, `paid` when the model ran on it (rejected requests cost nothing),
`answered` when its 2xx response has been handed to the kernel in full.

Invariants:
- `bitmap` costs one byte per id and stage (saturating at 255), so 5 million ids stay cheap; ids that are not integers
  in [0, max_id) fall back to a dict.
- With a state file the totals and the bitmap live in a shared mapping of it: the page cache keeps them when the server
  is killed with SIGKILL, so that "called twice" can be proven across the server's own death.
"""

from __future__ import annotations

import mmap
from pathlib import Path

STAGES = ("called", "paid", "answered")
CALLED, PAID, ANSWERED = range(3)
MODES = ("off", "dict", "bitmap")

_SLOTS = 1024  # int64 slots: [2 x stage] requests, [2 x stage + 1] records, [8] peak in flight, [16 + code] statuses
_PEAK, _STATUS = 8, 16
_FULL = 255

RecordId = int | str


class Tally:
    """Totals and per-id counts for the three stages.

    Args:
        mode: `off` (totals only), `dict` (any id), `bitmap` (integer ids, constant memory).
        max_id: first integer id that no longer fits the bitmap.
        state: file that keeps totals and bitmap across a SIGKILL; needs `bitmap` when ids are counted.
    """

    def __init__(self, *, mode: str = "dict", max_id: int = 8_000_000, state: Path | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"count-ids must be one of {', '.join(MODES)}, got {mode!r}")
        if state is not None and mode == "dict":
            raise ValueError("a state file needs count-ids bitmap or off, got dict")
        self.mode = mode
        self._limit = max_id if mode == "bitmap" else 0
        self._map = _mapping(_SLOTS * 8 + self._limit * len(STAGES), state)
        view = memoryview(self._map)
        self._totals = view[: _SLOTS * 8].cast("q")
        start = _SLOTS * 8
        self._seen = [view[start + s * self._limit : start + (s + 1) * self._limit] for s in range(len(STAGES))]
        self._others: list[dict[RecordId, int]] = [{} for _ in STAGES]

    def count(self, stage: int, ids: list[RecordId]) -> None:
        """Count one request and its records at `stage`."""
        totals = self._totals
        totals[2 * stage] += 1
        totals[2 * stage + 1] += len(ids)
        if self.mode == "off":
            return
        seen, others, limit = self._seen[stage], self._others[stage], self._limit
        for key in ids:
            if type(key) is int and 0 <= key < limit:
                calls = seen[key]
                if calls < _FULL:
                    seen[key] = calls + 1
            else:
                others[key] = others.get(key, 0) + 1

    def count_status(self, status: int) -> None:
        """Count one response that was written, by its HTTP status."""
        self._totals[_STATUS + status] += 1

    def note_in_flight(self, in_flight: int) -> None:
        """Remember the largest number of requests in flight."""
        if in_flight > self._totals[_PEAK]:
            self._totals[_PEAK] = in_flight

    @property
    def peak_in_flight(self) -> int:
        """Largest number of requests in flight since the last reset."""
        return self._totals[_PEAK]

    def requests(self, stage: int) -> int:
        """Requests counted at `stage`."""
        return self._totals[2 * stage]

    def records(self, stage: int) -> int:
        """Records counted at `stage`, repeats included."""
        return self._totals[2 * stage + 1]

    def statuses(self) -> dict[str, int]:
        """Responses written, by HTTP status."""
        return {str(code): n for code in range(100, 600) if (n := self._totals[_STATUS + code])}

    def counts(self, stage: int, *, at_least: int = 1) -> dict[str, int]:
        """Calls per id (as text) at `stage`, for ids with `at_least` so many."""
        seen = bytes(self._seen[stage])
        found = {str(key): calls for key, calls in enumerate(seen) if calls >= at_least} if any(seen) else {}
        return found | {str(key): calls for key, calls in self._others[stage].items() if calls >= at_least}

    def summary(self, stage: int) -> dict[str, int | None]:
        """Requests, records, distinct ids, repeated = records - distinct, and the most calls of one id.

        The last three are None when ids are not counted.
        """
        requests, records = self.requests(stage), self.records(stage)
        if self.mode == "off":
            return {"requests": requests, "records": records, "distinct": None, "repeated": None, "max_calls": None}
        seen, others = bytes(self._seen[stage]), self._others[stage]
        distinct = len(seen) - seen.count(0) + len(others)
        most = max(max(seen, default=0), max(others.values(), default=0))
        return {
            "requests": requests,
            "records": records,
            "distinct": distinct,
            "repeated": records - distinct,
            "max_calls": most,
        }

    def reset(self) -> None:
        """Forget everything, in the state file too."""
        for view in (self._totals, *self._seen):
            view.cast("B")[:] = bytes(view.nbytes)
        for others in self._others:
            others.clear()


def _mapping(size: int, state: Path | None) -> mmap.mmap:
    if state is None:
        return mmap.mmap(-1, size)
    with state.open("a+b") as file:
        if file.seek(0, 2) not in (0, size):
            raise ValueError(f"state file {state.name} was written with another --max-id or --count-ids: delete it")
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)
