"""SIGTERM and Ctrl-C ask a command to stop; what they find under way ends in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from airflow_provider_ai.core.report import StopToken


@contextmanager
def stopped_by_signals(stop: StopToken) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask the run to stop; a second Ctrl-C interrupts it at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        stop.stop(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
