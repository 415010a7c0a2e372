"""The slots of a worker: how many jobs are handled at a time, and how many messages to ask its queue for.

A message is asked for when a slot is free for it, or will be about when it arrives, as far as the times that handlers
and looks at the queue have taken lately tell. Without that a slot stands idle for the time of a look between any two
jobs; and where handlers take much longer than a look, none is counted on, so nothing is hoarded. Should it turn out
otherwise, the message waits for a slot as long as its taker says, and no longer; then no slot is counted on until the
next one is free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_AHEAD_SHARE = 0.5  # of the slots, that may be counted on before they are free
_LOOKS_AHEAD = 1.5  # asked for now, arrives a look later, and is to last for half of the next one
_LATEST_LOOK = 0.2  # its weight among looks


class Slots:
    """So many slots, and how many will be free soon. For one event loop."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = number
        self._asked = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._look_seconds = 0.0
        self._job_seconds = 0.0
        self._busy_seconds = 0.0  # of all slots, since the last one became free
        self._noted_at = 0.0
        self._counts = False

    @property
    def room(self) -> int:
        """Messages to ask for now, besides those that are asked for; 0 or less when there are enough."""
        return self._free + self._soon_free() - len(self._waiting) - self._asked

    @contextmanager
    def asking(self, number: int) -> Iterator[None]:
        """For the time in which so many messages are asked for and none of them has arrived."""
        began = _now()
        self._asked += number
        try:
            yield
        finally:
            self._asked -= number
            self._look_seconds += _LATEST_LOOK * (_now() - began - self._look_seconds)

    def count_on_none(self) -> None:
        """Ask for no more than there are free slots, until the next one becomes free: there is not enough to do."""
        self._counts = False

    def take(self, *, within_seconds: float) -> asyncio.Future[bool]:
        """Take a slot, first come, first served; its result is False when none became free in time."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        if self._free:
            self._note()
            self._free -= 1
            turn.set_result(True)
        else:
            self._waiting.append(turn)
            loop.call_later(within_seconds, self._give_up, turn)
        return turn

    def give(self) -> None:
        """Give a slot back: to whoever waits longest, if anybody does."""
        self._note()
        # By Little's law a job's time is what all slots were busy for, divided by how many became free meanwhile.
        self._job_seconds += (self._busy_seconds - self._job_seconds) / self._number
        self._busy_seconds = 0.0
        self._counts = True
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(True)
                return
        self._free += 1

    def _soon_free(self) -> int:
        if not self._counts or self._job_seconds <= 0:
            return 0
        share = _LOOKS_AHEAD * self._look_seconds / self._job_seconds
        return int(min(share * (self._number - self._free), _AHEAD_SHARE * self._number))

    def _note(self) -> None:
        now = _now()
        self._busy_seconds += (now - self._noted_at) * (self._number - self._free)
        self._noted_at = now

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self._waiting.remove(turn)
            turn.set_result(False)
            self._counts = False


def _now() -> float:
    return asyncio.get_running_loop().time()
