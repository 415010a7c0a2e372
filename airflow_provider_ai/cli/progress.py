"""Progress for people, on stderr only: a bar on a terminal, otherwise a log line now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

from airflow_provider_ai.core.report import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

OnProgress = Callable[[Progress], None]
LOG_EVERY_SECONDS = 10.0
LOGGER = "airflow_provider_ai"
log = logging.getLogger(f"{LOGGER}.cli")


def describe(progress: Progress) -> str:
    """One line that says where a run is."""
    share = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    parts = [f"{progress.phase}: {progress.done:,} of {progress.total:,}{share}"]
    if progress.quarantined:
        parts.append(f"{progress.quarantined:,} quarantined")
    return ", ".join([*parts, *_pace(progress)])


def _pace(progress: Progress) -> Iterator[str]:
    if progress.records_per_second:
        yield f"{progress.records_per_second:,.0f} records/s"
    if progress.concurrency:
        yield f"{progress.in_flight} of {progress.concurrency} calls in flight"
    if tokens := progress.prompt_tokens + progress.completion_tokens:
        yield f"{tokens:,} tokens"
    if progress.cost_usd:
        yield f"${progress.cost_usd:,.2f}"
    if progress.eta_seconds is not None and progress.done < progress.total:
        yield f"{_duration(progress.eta_seconds)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def logging_to(stream: TextIO, level: str) -> Iterator[None]:
    """This package's log on ``stream`` from ``level`` up, as long as the context lasts."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(LOGGER)
    before, propagated = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagated


def shown_on(stream: TextIO, *, quiet: bool) -> AbstractContextManager[OnProgress]:
    """Shows what it is called with: as a bar when ``stream`` is a terminal, else as log lines at a human pace."""
    if quiet:
        return nullcontext(lambda progress: None)
    return _bar(stream) if stream.isatty() else nullcontext(LogLines())


class LogLines:
    """Logs each phase as it begins and as it completes, and in between at most every 10 seconds."""

    def __init__(
        self, *, every_seconds: float = LOG_EVERY_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = every_seconds
        self._clock = clock
        self._phase = ""
        self._completed = False
        self._due = 0.0

    def __call__(self, progress: Progress) -> None:
        """Log it, or not yet."""
        now = self._clock()
        completed = progress.done >= progress.total > 0
        news = progress.phase != self._phase or (completed and not self._completed)
        if news or (now >= self._due and not completed):
            log.info("%s", describe(progress))
            self._due = now + self._every
        self._phase, self._completed = progress.phase, completed


@contextmanager
def _bar(stream: TextIO) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(file=stream)
    columns = (TextColumn("{task.fields[phase]:<9}"), BarColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bars, _log_above(bars):
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            phase = progress.phase
            if phase not in tasks:
                tasks[phase] = bars.add_task("", total=None, phase=phase)
            _, _, text = describe(progress).partition(": ")
            bars.update(tasks[phase], total=progress.total, completed=progress.done, description=text)

        yield show


@contextmanager
def _log_above(bars: Bars) -> Iterator[None]:
    """Log lines appear above the bar instead of through it."""
    logger = logging.getLogger(LOGGER)
    plain = [handler for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    above = _ConsoleHandler(bars)
    above.setFormatter(plain[0].formatter if plain else None)
    for handler in plain:
        logger.removeHandler(handler)
    logger.addHandler(above)
    try:
        yield
    finally:
        logger.removeHandler(above)
        for handler in plain:
            logger.addHandler(handler)


class _ConsoleHandler(logging.Handler):
    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._console = bars.console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record as it is: no markup, no wrapping."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
