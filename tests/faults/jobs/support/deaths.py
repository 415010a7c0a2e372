"""Places between two steps at which a process dies by SIGKILL, each once: whoever comes there next lives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from airflow_provider_ai.patterns.dispatcher import Dispatcher
from airflow_provider_ai.patterns.job_attendant import Attendant
from airflow_provider_ai.patterns.worker_ports import WorkerPorts

Call = Callable[..., Any]
BEFORE: dict[str, tuple[type, str]] = {
    "received": (Attendant, "attend"),
    "handled": (WorkerPorts, "complete"),
    "taken": (Dispatcher, "_arrive"),
}
AFTER: dict[str, tuple[type, str]] = {
    "claimed": (WorkerPorts, "claim"),
    "completed": (WorkerPorts, "complete"),
    "published": (WorkerPorts, "publish"),
    "deleted": (WorkerPorts, "delete"),
    "arrived": (Dispatcher, "_arrive"),
}
OF_WORKER = ("received", "claimed", "handled", "completed", "published", "deleted")
OF_DISPATCHER = ("taken", "arrived")


def install(points: Sequence[str], folder: str, linger_seconds: float = 0.0) -> None:
    """Die at these points. ``folder`` holds a file for each death there has been.

    :param linger_seconds: how long a process stands still there before it dies: its other threads go on
    """
    for point in points:
        die = partial(_die, Path(folder) / f"died-{point}", linger_seconds)
        where, name = BEFORE[point] if point in BEFORE else AFTER[point]
        wrap = _wrapped if where is Dispatcher else _wrapped_coroutine
        setattr(where, name, wrap(getattr(where, name), before=die if point in BEFORE else None, after=die))


def _die(mark: Path, linger_seconds: float) -> None:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    time.sleep(linger_seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _wrapped_coroutine(real: Call, *, before: Callable[[], None] | None, after: Callable[[], None]) -> Call:
    async def call(*given: Any, **named: Any) -> Any:
        if before is not None:
            before()
        result = await real(*given, **named)
        after()
        return result

    return call


def _wrapped(real: Call, *, before: Callable[[], None] | None, after: Callable[[], None]) -> Call:
    def call(self: Any, outcomes: Any, **named: Any) -> Any:
        if before is not None and outcomes:
            before()
        result = real(self, outcomes, **named)
        if outcomes:
            after()
        return result

    return call
