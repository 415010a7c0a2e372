"""Time in the stub model server: callbacks that run when they are due, and how long responses really took."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import time
from array import array
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

_MAX_LEAD = 0.0009
_monotonic = time.monotonic


class ServiceTimes:
    """Service times of good responses in 10 microsecond buckets up to 2 s: bounded memory, exact mean."""

    _BUCKETS = 200_000

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all times."""
        self._buckets = array("q", bytes(8 * (self._BUCKETS + 1)))
        self.count = 0
        self._sum = 0.0
        self._least = math.inf
        self._most = 0.0

    def add(self, seconds: float) -> None:
        """Count one service time."""
        self.count += 1
        self._sum += seconds
        if seconds < self._least:
            self._least = seconds
        if seconds > self._most:
            self._most = seconds
        at = int(seconds * 100_000)
        self._buckets[at if at < self._BUCKETS else self._BUCKETS] += 1

    def summary(self) -> dict[str, float | int | None]:
        """Count, and milliseconds: mean, least, p1, p50, p99, most. None before the first response."""
        if not self.count:
            return {"count": 0, "mean": None, "least": None, "p1": None, "p50": None, "p99": None, "most": None}
        p1, p50, p99 = (self._quantile(q) for q in (0.01, 0.5, 0.99))
        mean, least, most = (round(s * 1000, 3) for s in (self._sum / self.count, self._least, self._most))
        return {"count": self.count, "mean": mean, "least": least, "p1": p1, "p50": p50, "p99": p99, "most": most}

    def _quantile(self, share: float) -> float:
        wanted, seen = share * self.count, 0
        for at, n in enumerate(self._buckets):
            seen += n
            if seen >= wanted:
                return at / 100
        return self._BUCKETS / 100


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Pacer:
    """Runs callbacks at monotonic times, to some tens of microseconds, in order of their due times.

    `lead` is how much earlier than due the timer is set, in seconds. `observe` moves it so that the mean error of
    what actually happened tends to zero.
    """

    _ABSOLUTE = 1
    _TOGETHER = 0.00005  # a wake-up costs more than being this much early; `observe` evens it out

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed: the stub server needs Linux")
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._spec = _Itimerspec()
        self._address = ctypes.addressof(self._spec)
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = 0
        self._armed = math.inf
        self.lead = 0.0
        loop.add_reader(self._fd, self._fire)

    def at(self, due: float, callback: Callable[[Any], None], argument: Any) -> None:
        """Run `callback(argument)` at monotonic time `due`."""
        self._order += 1
        heappush(self._heap, (due, self._order, callback, argument))
        if due < self._armed:
            self._arm(due)

    def observe(self, error: float) -> None:
        """Learn from a response that left `error` seconds after (before, if negative) it was due."""
        lead = self.lead + 0.02 * error
        self.lead = 0.0 if lead < 0 else lead if lead < _MAX_LEAD else _MAX_LEAD

    def _fire(self) -> None:
        heap = self._heap
        self._armed = math.inf
        while heap and heap[0][0] <= _monotonic() + self.lead + self._TOGETHER:
            _, _, callback, argument = heappop(heap)
            callback(argument)
        self._arm(heap[0][0] if heap else math.inf)

    def _arm(self, due: float) -> None:
        """Set the timer, which also clears an expiration nobody read; an infinite time disarms it."""
        self._armed = due
        value = self._spec.value
        if due == math.inf:
            value.seconds = value.nanoseconds = 0
        else:
            nanoseconds = int((due - self.lead) * 1e9)
            value.seconds, value.nanoseconds = divmod(max(nanoseconds, 1), 1_000_000_000)
        self._settime(self._fd, self._ABSOLUTE, self._address, None)
