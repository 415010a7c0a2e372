"""Mistakes of a synchronous call that can be seen before anything is sent. Each message says what to do instead."""

from __future__ import annotations

from airflow_provider_ai.core.call_settings import CallSettings, seconds_of
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import LastGood, Link, check_chain, reserves
from airflow_provider_ai.exceptions import SpecError

MARGIN_SECONDS = 3.0
"""What a task does besides its call: imports, connections, a store that hangs. An execution timeout must leave it."""


def check_fallback(fallback: object, settings: CallSettings, *, has_store: bool) -> tuple[Link, ...]:
    """The chain; SpecError unless it always has an answer and leaves the endpoint some of the deadline.

    :param has_store: whether there is one to keep answers in
    """
    chain = check_chain(fallback)
    if not has_store and any(isinstance(link, LastGood) for link in chain):
        raise SpecError("LastGood needs a store to keep answers in: set one, or drop the link")
    reserves(
        chain,
        deadline_seconds=settings.deadline_seconds,
        store_timeout_seconds=settings.store_seconds,
    )
    return chain


def check_execution_timeout(timeout: object, deadline_seconds: float) -> None:
    """SpecError when Airflow would end the task before the fallback could be served.

    :param timeout: ``execution_timeout`` of the task, a ``timedelta`` or None
    """
    seconds = None if timeout is None else seconds_of(timeout)  # type: ignore[arg-type]
    least = deadline_seconds + MARGIN_SECONDS
    if seconds is not None and seconds <= least:
        raise SpecError(
            f"execution_timeout must be longer than {least:g} s (the deadline of {deadline_seconds:g} s and "
            f"{MARGIN_SECONDS:g} s for imports and connections), got {seconds:g} s: Airflow's timeout is no ordinary "
            "exception, so the task would die without its fallback. The deadline is enough: drop execution_timeout"
        )


def check_usual_time(endpoint: EndpointSettings, deadline_seconds: float) -> None:
    """SpecError when the endpoint is known to need longer than the deadline (``p99_seconds``)."""
    usual = endpoint.p99_seconds
    if usual is not None and usual > deadline_seconds:
        raise SpecError(
            f"deadline must be at least the p99_seconds of the endpoint, {usual:g} s, got {deadline_seconds:g} s: too "
            "many answers would be fallbacks. Lengthen the deadline, ask a faster model, or use AISubmitAndWaitOperator"
        )
