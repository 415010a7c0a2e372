"""When to try again: the jitter's bounds, and every Retry-After a server may send."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_ai.core.backoff import MAX_RETRY_AFTER_SECONDS, full_jitter, retry_after_seconds

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kathmandu"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The machine's time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@given(
    st.integers(1, 10_000),
    st.floats(0.001, 60),
    st.floats(0.001, 600),
    st.floats(0, 1, exclude_max=True),
)
def test_jitter_stays_below_the_doubling_ceiling(attempt: int, base: float, cap: float, number: float) -> None:
    """Between 0 and min(cap, base · 2^(attempt-1)), however many attempts there were."""
    wait = full_jitter(attempt, base=base, cap=cap, random=number)
    assert 0 <= wait <= min(cap, base * 2.0 ** min(attempt - 1, 60))


def test_jitter_is_spread_over_the_whole_ceiling(seed: int) -> None:
    """Full jitter: callers that failed together come back spread out, half of them in each half of the ceiling."""
    numbers = random.Random(seed)
    waits = [full_jitter(4, base=0.5, cap=30, random=numbers.random()) for _ in range(4000)]
    assert max(waits) < 4.0
    assert 1800 < sum(wait < 2.0 for wait in waits) < 2200


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),  # absent
        ("0", 0.0),
        ("7", 7.0),  # delay-seconds
        ("  7 ", 7.0),  # with the white space a proxy left
        ("3601", MAX_RETRY_AFTER_SECONDS),  # longer than any run should sleep
        ("9" * 400, MAX_RETRY_AFTER_SECONDS),  # a number no float holds
        ("-5", None),  # not in the grammar
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),  # a digit, but not one of RFC 9110
        ("1e9", None),
        ("Sun, 01 Mar 2026 12:00:09 GMT", 9.0),  # IMF-fixdate
        ("Sunday, 01-Mar-26 12:00:09 GMT", 9.0),  # RFC 850, obsolete but to be accepted
        ("Sun Mar  1 12:00:09 2026", 9.0),  # asctime, obsolete but to be accepted; UTC by definition
        ("Sun, 01 Mar 2026 12:00:09", 9.0),  # HTTP dates are in UTC whether they say so or not
        ("Sun, 01 Mar 2026 12:00:09 -0000", 9.0),  # UTC of unknown origin
        ("Sun, 01 Mar 2026 13:00:09 +0100", 9.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),  # in the past: now
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_SECONDS),
        ("Sun, 31 Feb 2026 12:00:00 GMT", None),  # no such day
        ("Sun, 01 Mar 2026 25:61:61 GMT", None),  # no such hour
    ],
)
def test_retry_after_in_every_form(zone: str, header: str | None, seconds: float | None) -> None:
    """Both forms of RFC 9110 §10.2.3, the same in every time zone of the machine; anything else is no wish."""
    assert retry_after_seconds(header, now=NOW.timestamp()) == seconds


@given(st.integers(0, 3600))
def test_a_date_says_the_same_as_its_seconds(seconds: int) -> None:
    """The two forms agree."""
    date = format_datetime(datetime.fromtimestamp(NOW.timestamp() + seconds, UTC), usegmt=True)
    assert retry_after_seconds(date, now=NOW.timestamp()) == retry_after_seconds(str(seconds), now=NOW.timestamp())


@given(st.text() | st.from_regex(r"\w{3}, \d{1,3}[- ]\w{3}[- ]\d{1,9} [\d:.]{1,12} ?[-+\w]{0,9}", fullmatch=True))
@example("Wed, 3 Apr 2002 12.34.56.78+0800")
@example("17 June , 2022")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Fri, 31 Dec 9999 23:59:59 -9999")
def test_no_header_a_server_may_send_breaks_the_run(header: str) -> None:
    """Hostile values are no wish, or one within bounds."""
    wait = retry_after_seconds(header, now=NOW.timestamp())
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER_SECONDS
