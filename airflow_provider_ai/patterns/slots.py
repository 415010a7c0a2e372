"""The slots of a worker: how many jobs are handled at a time, and how many messages to ask its queue for.

A message is asked for when a slot is free for it, or will be about when it arrives, as far as the times that handlers
and looks at the queue have taken lately tell. Without that a slot stands idle for the time of a look between any two
jobs; and where handlers take much longer than a look, none is counted on, so nothing is hoarded. Should it turn out
otherwise, the message waits for its turn no longer than a second, and no slot is counted on until the next one is free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AHEAD_SHARE = 0.5  # of the slots, that may be counted on before they are free
_LOOKS_AHEAD = 1.5  # asked for now, arrives a look later, and is to last for half of the next one
_LATEST_LOOK = 0.2  # its weight among looks
_LONGEST_WAIT_SECONDS = 1.0


class Turn:
    """A message's place in the line for a slot, and then its slot."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._comes: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._has_slot = self._left = False

    async def comes(self) -> bool:
        """Wait for it; False when no slot became free in time."""
        return await self._comes

    def leave(self) -> None:
        """Free the slot, or give up the place in the line; done twice it is done once."""
        if self._left:
            return
        self._left = True
        if self._has_slot:
            self._slots.give()
        else:
            self._slots.withdraw(self)

    def decide(self, comes: bool) -> None:
        """Tell whoever waits."""
        self._has_slot = comes
        if not self._comes.done():
            self._comes.set_result(comes)


class Slots:
    """So many slots, and how many will be free soon. For one event loop.

    :param on_room: called when there may be more room than before
    """

    def __init__(self, number: int, *, on_room: Callable[[], None] = lambda: None) -> None:
        self._number = number
        self._on_room = on_room
        self._free = number
        self._asked = 0
        self._line: deque[Turn] = deque()
        self._look_seconds = 0.0
        self._job_seconds = 0.0
        self._busy_seconds = 0.0  # of all slots, since the last one became free
        self._noted_at = 0.0
        self._counts = False

    @property
    def room(self) -> int:
        """Messages to ask for now, besides those that are asked for; 0 or less when there are enough."""
        return self._free + self._soon_free() - len(self._line) - self._asked

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

    def line_up(self) -> Turn:
        """Take a slot for a message, or a place in the line: first come, first served."""
        turn = Turn(self)
        if self._free:
            self._note()
            self._free -= 1
            turn.decide(True)
        else:
            self._line.append(turn)
            asyncio.get_running_loop().call_later(_LONGEST_WAIT_SECONDS, self._give_up, turn)
        return turn

    def give(self) -> None:
        """A slot is free: for whoever waits longest, if anybody does."""
        self._note()
        # By Little's law a job's time is what all slots were busy for, divided by how many became free meanwhile.
        self._job_seconds += (self._busy_seconds - self._job_seconds) / self._number
        self._busy_seconds = 0.0
        self._counts = True
        if self._line:
            self._line.popleft().decide(True)
        else:
            self._free += 1
        self._on_room()

    def withdraw(self, turn: Turn) -> None:
        """Take someone out of the line."""
        if turn in self._line:
            self._line.remove(turn)
            self._on_room()

    def _soon_free(self) -> int:
        if not self._counts or self._job_seconds <= 0:
            return 0
        share = _LOOKS_AHEAD * self._look_seconds / self._job_seconds
        return int(min(share * (self._number - self._free), _AHEAD_SHARE * self._number))

    def _note(self) -> None:
        now = _now()
        self._busy_seconds += (now - self._noted_at) * (self._number - self._free)
        self._noted_at = now

    def _give_up(self, turn: Turn) -> None:
        if turn in self._line:
            self._counts = False
            self.withdraw(turn)
            turn.decide(False)


def _now() -> float:
    return asyncio.get_running_loop().time()
