"""An OpenTelemetry span around each synchronous call, for processes that use OpenTelemetry.

It is never imported here: a process that traces has it loaded, and one that has not pays nothing. A span is ended in a
thread that can be left behind, because exporting it may take as long as its collector likes. No attribute holds data.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from airflow_provider_ai.core.answer import Answer
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads

NAME = "ai.sync_call"
END_SECONDS = 0.02
"""How long a caller waits for a span to be ended."""
log = logging.getLogger(__name__)


class CallSpan:
    """The span of one call. Whatever is wrong with tracing, the call goes on.

    :param endpoint: the endpoint's name, as in the store and in metrics
    """

    def __init__(self, *, endpoint: str, deadline_seconds: float, threads: DaemonThreads) -> None:
        self._threads = threads
        self._span = _started({"ai.endpoint": endpoint, "ai.deadline_seconds": deadline_seconds})

    def end(self, answer: Answer | None) -> None:
        """End it with what the answer says about itself; None for a call that was interrupted."""
        span = self._span
        if span is not None:
            self._aside(lambda: _end(span, answer))

    def _aside(self, work: Any) -> None:
        try:
            self._threads.start(work).wait(END_SECONDS)
        except Exception as error:  # noqa: BLE001 - no thread is free: a span is missing
            log.debug("a span is not ended (%s)", type(error).__name__)


def _started(attributes: dict[str, Any]) -> Any:
    """A span that is being recorded, or None."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        span = trace.get_tracer("airflow_provider_ai").start_span(NAME, attributes=attributes)
        return span if span.is_recording() else None
    except Exception as error:  # noqa: BLE001 - a tracer of whatever kind
        log.debug("the call is not traced (%s)", type(error).__name__)
        return None


def _end(span: Any, answer: Answer | None) -> None:
    if answer is not None:
        said = {
            "ai.degraded": answer.degraded,
            "ai.reason": answer.reason,
            "ai.source": answer.source,
            "ai.attempts": answer.attempts,
            "ai.breaker_state": answer.breaker_state,
            "ai.model": answer.model,
        }
        span.set_attributes({name: value for name, value in said.items() if value is not None})
    span.end()
