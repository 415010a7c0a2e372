"""When to try again: full jitter, and the server's own word for it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 3600.0


def full_jitter(attempt: int, *, base: float, cap: float, random: float) -> float:
    """Seconds to wait before attempt ``attempt + 1``: ``random · min(cap, base · 2^(attempt-1))``.

    ``attempt`` counts from 1, ``random`` lies in ``[0, 1)``. Formula: Brooker, "Exponential Backoff And Jitter",
    AWS Architecture Blog 2015, there called Full Jitter.
    """
    return random * min(cap, base * 2.0 ** min(attempt - 1, 60))


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Seconds a Retry-After header asks for, in both forms of RFC 9110 §10.2.3; None when absent or unreadable.

    ``now``: seconds since the epoch, for the HTTP-date form. The result lies in ``[0, 3600]``.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = _in_utc(parsedate_to_datetime(text)).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _in_utc(date: datetime) -> datetime:
    """HTTP dates are in UTC, also where the (obsolete) form does not say so."""
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
