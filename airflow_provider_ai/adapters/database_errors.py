"""What a database's error codes mean, in our own words: a driver's text may quote rows, statements or the URL."""

from __future__ import annotations

from collections.abc import Mapping

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

# What libpq says when it cannot connect: ours to choose, because its text may quote the connection string.
_CANNOT_CONNECT: tuple[tuple[str, str, bool], ...] = (
    ("password authentication failed", "the server refuses the user or the password", False),
    ("no password supplied", "the server asks for a password and the url has none", False),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not let this host or user in", False),
    ("certificate", "the TLS certificates do not match", False),
    ("SSL", "client and server do not agree on TLS (see sslmode)", False),
    ("invalid URI query parameter", "the url has an argument that libpq does not know", False),
    ("invalid", "the url or one of its arguments is not valid for libpq", False),
    ("starting up", "the server is starting up", True),
    ("shutting down", "the server is shutting down", True),
    ("too many clients", "the server has no connection left", True),
    ("remaining connection slots", "the server has no connection left", True),
    ("Connection refused", "connection refused", True),
    ("timeout expired", "no answer within the connect timeout", True),
    ("could not translate host name", "the host name is unknown", True),
    ("failed to resolve host", "the host name is unknown", True),
    ("does not exist", "the database or the user does not exist", False),
)


def meaning_of(state: str) -> tuple[str, bool]:
    """What a five-character SQLSTATE means, and whether trying again may help."""
    for key in (state, state[:2]):
        if key in _TRY_AGAIN:
            return _TRY_AGAIN[key], True
        if key in _NO_USE:
            return _NO_USE[key], False
    return "the server refuses", False


def no_connection(text: str) -> tuple[str, bool]:
    """Why libpq could not connect, told from its text, and whether trying again may help."""
    for words, meaning, transient in _CANNOT_CONNECT:
        if words in text:
            return meaning, transient
    return "no connection", True
