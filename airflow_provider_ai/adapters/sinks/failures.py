"""What a database error means to the person on call, in our own words.

Drivers put row values, statements and connection strings into their messages, so nothing of a driver's text is ever
passed on. What is passed on: the SQLSTATE, names of columns and constraints, and a sentence chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError

RETRY = "a retry publishes from the checkpoints without calling the model"
NO_RETRY = "no inference is lost, but a plain retry cannot help"

# SQLSTATE, or its class (two digits), to what it means; the longer entry wins. ISO/IEC 9075-2 and PostgreSQL's list.
_TRY_AGAIN: Mapping[str, str] = {
    "08": "the connection broke",
    "40": "the transaction lost against a concurrent one",
    "40P01": "two transactions waited for each other",
    "53": "the server is short of resources (disk, memory or connections)",
    "55P03": "another transaction holds a lock for longer than the wait allows",
    "57": "the server ended the transaction or is not accepting any (shutting down, starting, timeout)",
    "58": "the server met a system error",
    "25P03": "the server closed the idle connection",
    "25P04": "the server ended the transaction for its length",
}
_NO_USE: Mapping[str, str] = {
    "08P01": "the server and the driver disagree about the data",
    "22": "a value does not fit its column",
    "22001": "a text is longer than its column allows",
    "23": "a constraint refuses a row",
    "23502": "a column that must not be null gets no value",
    "23505": "a unique constraint refuses a row: another partition, or a writer outside this package, has its key",
    "25006": "the server is read-only (a standby?)",
    "28": "the server refuses the user or the password",
    "3D": "the database does not exist",
    "3F": "the schema does not exist; create it first",
    "42": "the statement does not suit the table as it is now",
    "42501": "the user lacks a privilege (to create or alter the tables, or to write them)",
    "42P01": "the table was dropped meanwhile",
}


def from_sqlstate(where: str, state: str, *, column: str | None = None, constraint: str | None = None) -> SinkError:
    """The error of a five-character SQLSTATE."""
    named = [f"column {column!r}"] if column else []
    named += [f"constraint {constraint!r}"] if constraint else []
    detail = ", ".join([f"SQLSTATE {state}", *named])
    for key in (state, state[:2]):
        if key in _TRY_AGAIN:
            return unavailable(where, f"{_TRY_AGAIN[key]} ({detail})")
        if key in _NO_USE:
            return refused(where, f"{_NO_USE[key]} ({detail})")
    return refused(where, f"the server refuses ({detail})")


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
