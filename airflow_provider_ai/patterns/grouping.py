"""Natural batching: what is asked for while a call runs goes out together in the next one.

A lone item goes out at once and alone; under load groups grow by themselves to what one call's time brings together, so
a disk's flush or a request to a queue is paid once for a group. Where a call costs as much for one item as for ten, a
lane that is busy may linger for the ten: only between two calls, and for milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Grouped(Generic[T, R]):
    """``await grouped(item)`` is the result of ``item`` in a call of ``work`` that it shares with others.

    :param work: items → their results, in order; what it raises, each of the group's callers gets
    :param most: items in one call
    :param lanes: calls under way at a time; with one, groups go out one after the other in the order of their items
    :param full: items that a call carries for the price of one: larger groups are multiples of it
    :param linger_seconds: how long a lane waits, after a call, for those that come to be so many
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        most: int,
        lanes: int = 1,
        full: int = 1,
        linger_seconds: float = 0.0,
    ) -> None:
        self._work = work
        self._most = most
        self._lanes = lanes
        self._full = full
        self._linger_seconds = linger_seconds
        self._is_full = asyncio.Event()
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: T) -> R:
        """The item's result. A caller that is cancelled before its group goes out is left out of it."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._full:
            self._is_full.set()
        if self._running < self._lanes:
            # It begins in the next turn of the loop, so those who ask in this one are in the same group.
            self._running += 1
            lane = asyncio.create_task(self._lane())
            self._tasks.add(lane)
            lane.add_done_callback(self._tasks.discard)
        return await future

    def cancel(self) -> None:
        """End calls under way as far as they can be, and whoever waits for them."""
        for lane in self._tasks:
            lane.cancel()

    async def _lane(self) -> None:
        try:
            while group := self._next_group():
                await self._call(group)
                if 0 < len(self._waiting) < self._full:
                    await self._linger()
        finally:
            # In the same turn in which it found nothing more: whoever asks in the next one must start another lane.
            self._running -= 1

    async def _linger(self) -> None:
        self._is_full.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                await self._is_full.wait()

    def _next_group(self) -> list[tuple[T, asyncio.Future[R]]]:
        group: list[tuple[T, asyncio.Future[R]]] = []
        most = min(self._most, max(self._full, len(self._waiting) // self._full * self._full))
        while self._waiting and len(group) < most:
            item, future = self._waiting.popleft()
            if not future.done():
                group.append((item, future))
        return group

    async def _call(self, group: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in group])
            if len(results) != len(group):
                raise RuntimeError(f"{len(results)} results came for {len(group)} items")
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        except BaseException:  # the loop is being closed
            for _, future in group:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)
