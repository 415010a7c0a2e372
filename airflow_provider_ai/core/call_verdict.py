"""What the end of a synchronous call means: the word for the answer, and the evidence for the circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_ai.core import call_reasons
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Action, judge

_TLS = "TLS: "
_NO_OUTAGE = {call_reasons.REJECTED, call_reasons.THROTTLED}
_AGAIN = {Action.LATER, Action.RETRY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a try ended without an answer.

    :param reason: one word, see :mod:`airflow_provider_ai.core.call_reasons`
    :param detail: more for people, without data
    :param evidence: what it says of the endpoint
    :param again: whether another try may help
    :param retry_after: the Retry-After header as it came
    """

    reason: str
    evidence: Evidence
    detail: str | None = None
    again: bool = False
    retry_after: str | None = None


def ending_of_reply(reply: Reply) -> Ending | None:
    """None for a 2xx, whose body is to be looked at. A 4xx shows a server that works: it is no sign of an outage."""
    verdict = judge(reply.status)
    if verdict.action is Action.DECODE:
        return None
    return Ending(
        reason=verdict.error_class,
        detail=f"HTTP {reply.status}",
        evidence=Evidence.ALIVE if verdict.error_class in _NO_OUTAGE else Evidence.FAILING,
        again=verdict.action in _AGAIN,
        retry_after=reply.retry_after,
    )


def ending_of_failure(error: CallFailedError) -> Ending:
    """A call that ended without an HTTP status."""
    detail = str(error)
    verdict = judge(None, error.failure)
    if detail.startswith(_TLS):
        reason, detail = call_reasons.TLS, detail.removeprefix(_TLS)
    else:
        reason = verdict.error_class
    again = verdict.action in _AGAIN and not error.permanent
    return Ending(reason=reason, detail=detail, evidence=Evidence.FAILING, again=again)


def ending_of_answer(reason: str) -> Ending:
    """A 2xx that holds no valid output."""
    return Ending(reason=reason, detail="the answer has no valid output", evidence=Evidence.FAILING)
