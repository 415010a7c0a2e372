"""What every end of a call means."""

from __future__ import annotations

import pytest

from airflow_provider_ai.core.verdict import Action, Failure, Verdict, judge


@pytest.mark.parametrize(
    ("status", "action", "error_class", "congestion", "outage"),
    [
        (200, Action.DECODE, "", False, False),
        (201, Action.DECODE, "", False, False),  # some servers create a prediction
        (204, Action.DECODE, "", False, False),  # no body: the decoder says so
        (299, Action.DECODE, "", False, False),
        (301, Action.REJECT, "rejected", False, False),  # redirects are not followed: the payload would go elsewhere
        (307, Action.REJECT, "rejected", False, False),
        (400, Action.REJECT, "rejected", False, False),  # the record's own fault
        (401, Action.REJECT, "rejected", False, False),  # the next try has the same key
        (404, Action.REJECT, "rejected", False, False),  # model gone
        (408, Action.REJECT, "rejected", False, False),  # a 4xx like the others: the issue knows one exception
        (413, Action.REJECT, "rejected", False, False),  # too large; halving the group helps
        (422, Action.REJECT, "rejected", False, False),
        (428, Action.REJECT, "rejected", False, False),
        (429, Action.LATER, "throttled", True, False),  # costs no attempt, shrinks the limit, proves the server alive
        (430, Action.REJECT, "rejected", False, False),
        (499, Action.REJECT, "rejected", False, False),
        (500, Action.RETRY, "server_error", False, True),  # may be the record, may be the server: the breaker decides
        (501, Action.RETRY, "server_error", False, True),
        (502, Action.RETRY, "server_error", False, True),  # a proxy without its server
        (503, Action.RETRY, "server_error", True, True),  # overloaded: fewer calls at once
        (504, Action.RETRY, "server_error", False, True),
        (529, Action.RETRY, "server_error", False, True),
        (599, Action.RETRY, "server_error", False, True),
    ],
)
def test_status(status: int, action: Action, error_class: str, congestion: bool, outage: bool) -> None:
    """One row per class of answers and per exception in it."""
    assert judge(status) == Verdict(action, error_class, congestion=congestion, outage=outage)


@pytest.mark.parametrize(
    ("failure", "action", "error_class", "congestion", "outage"),
    [
        (Failure.CONNECT, Action.LATER, "connect", False, True),  # the records never left: no attempt of theirs
        (Failure.DISCONNECTED, Action.RETRY, "connection", False, True),  # they left; a record may have killed it
        (Failure.TIMEOUT, Action.RETRY, "timeout", True, True),  # too slow under this load, or too long a record
        (Failure.TOO_LARGE, Action.REJECT, "too_large", False, False),  # the answer will be as large next time
    ],
)
def test_failure(failure: Failure, action: Action, error_class: str, congestion: bool, outage: bool) -> None:
    """One row per way to end without an answer."""
    assert judge(None, failure) == Verdict(action, error_class, congestion=congestion, outage=outage)


def test_every_failure_has_a_verdict() -> None:
    """A failure added later must be judged too."""
    assert {judge(None, failure).error_class for failure in Failure} == {
        "connect",
        "connection",
        "timeout",
        "too_large",
    }


def test_a_call_ends_somehow() -> None:
    """Neither status nor failure is a defect of the caller."""
    with pytest.raises(ValueError, match="status or a failure"):
        judge(None)
