"""What a database error means to the person on call, in our own words.

Drivers put row values, statements and connection strings into their messages, so nothing of a driver's text is ever
passed on. What is passed on: the SQLSTATE, names of columns and constraints, and a sentence chosen here.
"""

from __future__ import annotations

from airflow_provider_ai.adapters.database_errors import meaning_of
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError

RETRY = "a retry publishes from the checkpoints without calling the model"
NO_RETRY = "no inference is lost, but a plain retry cannot help"


def from_sqlstate(where: str, state: str, *, column: str | None = None, constraint: str | None = None) -> SinkError:
    """The error of a five-character SQLSTATE."""
    named = [f"column {column!r}"] if column else []
    named += [f"constraint {constraint!r}"] if constraint else []
    detail = ", ".join([f"SQLSTATE {state}", *named])
    what, transient = meaning_of(state)
    return (unavailable if transient else refused)(where, f"{what} ({detail})")


def unavailable(where: str, what: str) -> SinkUnavailableError:
    """A retry may help."""
    return SinkUnavailableError(f"{where}: {what}; {RETRY}")


def refused(where: str, what: str) -> SinkError:
    """A retry cannot help before something is changed."""
    return SinkError(f"{where}: {what}; {NO_RETRY}")


def unexpected(where: str, error: BaseException) -> SinkError:
    """An error nobody foresaw: its type and the place in this package it came through, but not its text."""
    place = "an unknown place"
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "airflow_provider_ai" in code.co_filename:
            place = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return refused(where, f"unexpected {type(error).__name__} at {place}")
