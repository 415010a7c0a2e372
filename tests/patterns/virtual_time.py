"""An event loop whose clock jumps to the next timer instead of waiting for it: minutes of backoff pass in milliseconds.

Work for executors runs at once, in the loop's own thread, so a run is the same every time it has the same seed. A loop
in which nothing will ever happen again, or whose clock passes ``limit_seconds``, raises :class:`StuckError`: what would
hang for real fails here.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

START = 1_000.0
_TURNS_WITHOUT_TIME = 100_000


class StuckError(BaseException):
    """The loop waits for something that cannot come. No Exception: no handler of the code under test may have it."""


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Never waits: the time it was asked to wait passes on the loop's clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise StuckError("nothing is scheduled and nothing is awaited from outside")
        self._loop.advance(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self, *, limit_seconds: float) -> None:
        self._now = START
        self._until = START + limit_seconds
        self._turns = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._turns = 0 if seconds > 0 else self._turns + 1
        if self._turns > _TURNS_WITHOUT_TIME:
            raise StuckError("the loop spins without time passing")
        self._now += seconds
        if self._now > self._until:
            raise StuckError(f"not done at second {self._now - START:.0f} of virtual time")

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - as an executor would
            future.set_exception(error)
        return future


@dataclass
class Outcome:
    """How a run went. ``seconds``: virtual ones, also of a run that raised."""

    seconds: float = 0.0


def run(main: Coroutine[Any, Any, Any], outcome: Outcome, *, limit_seconds: float = 3600.0) -> None:
    """Run to its end. What went wrong in a callback or a forgotten task is raised, not logged."""
    loop = VirtualLoop(limit_seconds=limit_seconds)
    mishaps: list[BaseException] = []

    def note(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        mishaps.append(context.get("exception") or RuntimeError(str(context["message"])))

    loop.set_exception_handler(note)  # type: ignore[arg-type]
    try:
        loop.run_until_complete(main)
    finally:
        outcome.seconds = loop.time() - START
        loop.close()
    gc.collect()  # a task whose exception nobody looked at says so when it goes
    if mishaps:
        raise mishaps[0]
