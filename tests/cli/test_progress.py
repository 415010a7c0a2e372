"""Progress on stderr: one line says where a run is, and lines come at a human pace."""

from __future__ import annotations

import io
import logging

import pytest

from airflow_provider_ai.cli.progress import LogLines, describe, logging_to, shown_on
from airflow_provider_ai.core.report import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _progress(done: int, *, phase: str = "infer", total: int = 1000) -> Progress:
    return Progress(phase=phase, done=done, quarantined=0, total=total)  # type: ignore[arg-type]


def test_a_line_says_only_what_is_known() -> None:
    assert describe(_progress(0)) == "infer: 0 of 1,000 (0%)"
    assert describe(_progress(0, phase="plan", total=0)) == "plan: 0 of 0"
    full = Progress(
        phase="infer",
        done=12_000,
        quarantined=3,
        total=20_000,
        records_per_second=1240.4,
        eta_seconds=3725.2,
        concurrency=64,
        in_flight=60,
        prompt_tokens=1000,
        completion_tokens=500,
        cost_usd=1.234,
    )
    assert describe(full) == (
        "infer: 12,000 of 20,000 (60%), 3 quarantined, 1,240 records/s, 60 of 64 calls in flight, 1,500 tokens, "
        "$1.23, 1:02:05 left"
    )


def test_lines_come_with_each_phase_with_its_end_and_in_between_when_time_has_passed() -> None:
    now = 0.0
    stream = io.StringIO()
    lines = LogLines(every_seconds=10.0, clock=lambda: now)
    with logging_to(stream, "info"):
        for at, progress in [
            (0.0, _progress(0)),  # a new phase
            (9.9, _progress(500)),  # too soon
            (10.0, _progress(510)),  # time has passed
            (19.9, _progress(900)),  # too soon
            (19.95, _progress(1000)),  # the phase is complete
            (40.0, _progress(1000)),  # nothing new
            (40.0, _progress(0, phase="publish")),  # a new phase
            (40.1, _progress(1000, phase="publish")),  # and complete at once
        ]:
            now = at
            lines(progress)
    shown = [line.split(" INFO ")[1] for line in stream.getvalue().splitlines()]
    assert shown == [
        "infer: 0 of 1,000 (0%)",
        "infer: 510 of 1,000 (51%)",
        "infer: 1,000 of 1,000 (100%)",
        "publish: 0 of 1,000 (0%)",
        "publish: 1,000 of 1,000 (100%)",
    ]


def test_a_terminal_gets_a_bar_with_log_lines_above_it() -> None:
    stream = _Terminal()
    with logging_to(stream, "info"), shown_on(stream, quiet=False) as show:
        show(_progress(0, phase="plan", total=0))
        show(_progress(250))
        logging.getLogger("airflow_provider_ai.patterns").info("endpoint seems down [bold]")
        show(_progress(1000))
    text = stream.getvalue()
    assert "1,000 of 1,000 (100%)" in text
    assert "INFO endpoint seems down [bold]\n" in text
    assert "━" in text


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()])
def test_quiet_shows_nothing(stream: io.StringIO) -> None:
    with logging_to(stream, "info"), shown_on(stream, quiet=True) as show:
        show(_progress(1000))
    assert stream.getvalue() == ""


def test_logging_is_left_as_it_was_found() -> None:
    logger = logging.getLogger("airflow_provider_ai")
    before = (list(logger.handlers), logger.level, logger.propagate)
    with logging_to(_Terminal(), "debug"), shown_on(_Terminal(), quiet=False):
        assert logger.level == logging.DEBUG
    assert (list(logger.handlers), logger.level, logger.propagate) == before
