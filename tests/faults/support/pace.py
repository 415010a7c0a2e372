"""How fast a server answers over time, sampled at the server."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from benchmarks.stub import StubServer

_SAMPLE_SECONDS = 0.05


class Pace:
    """Samples ``answered`` while it is entered; a server that does not reply is not sampled."""

    def __init__(self, stub: StubServer) -> None:
        self._stub = stub
        self._over = threading.Event()
        self._samples: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(60)

    def rate(self, start: float, end: float) -> float:
        """Records a second in ``[start, end]``, monotonic seconds; 0.0 where there are no two samples."""
        inside = [sample for sample in list(self._samples) if start <= sample[0] <= end]
        if len(inside) < 2:
            return 0.0
        (began, before), (ended, after) = inside[0], inside[-1]
        return (after - before) / (ended - began)

    def back_at(self, rate: float, since: float, *, window_seconds: float = 0.5) -> float | None:
        """Seconds after ``since`` from which a window was answered at this rate; None when there was none."""
        times = [moment for moment, _ in list(self._samples) if moment >= since]
        reached = (moment for moment in times if self.rate(moment, moment + window_seconds) >= rate)
        found = next(reached, None)
        return None if found is None else found - since

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            try:
                answered = self._stub.progress()["answered"]
            except (OSError, RuntimeError):
                continue
            self._samples.append((time.monotonic(), answered))
