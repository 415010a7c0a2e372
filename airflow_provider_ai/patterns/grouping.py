"""Natural batching: what is asked for while a call runs goes out together in the next one.

Nothing lingers. A lone item goes out at once and alone; under load groups grow by themselves to what one call's time
brings together, so a disk's flush or a request to a queue is paid once for a group.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Grouped(Generic[T, R]):
    """``await grouped(item)`` is the result of ``item`` in a call of ``work`` that it shares with others.

    :param work: items → their results, in order; what it raises, each of the group's callers gets
    :param most: items in one call
    :param lanes: calls under way at a time; with one, groups go out one after the other in the order of their items
    """

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int, lanes: int = 1) -> None:
        self._work = work
        self._most = most
        self._lanes = lanes
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: T) -> R:
        """The item's result. A caller that is cancelled before its group goes out is left out of it."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
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
        finally:
            # In the same turn in which it found nothing more: whoever asks in the next one must start another lane.
            self._running -= 1

    def _next_group(self) -> list[tuple[T, asyncio.Future[R]]]:
        group: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(group) < self._most:
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
