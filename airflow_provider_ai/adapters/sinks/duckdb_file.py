"""Making a DuckDB file, so that nobody ever meets half of one: a process killed midway leaves the path empty.

DuckDB writes its headers in place and never opens a file again that lacks some of them. So the new database is made
beside its place, under a name of its own, and then linked to it, which happens wholly or not at all and never replaces
a file that somebody else has made meanwhile. What a killed process leaves behind is hidden, is never opened, and is
removed by the next publisher.
"""

from __future__ import annotations

import os
from contextlib import suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

import duckdb

HEADERS_BYTES = 3 * 4096
"""A file shorter than its headers is not a database yet: a program that does not take this care is making it."""

_UNFINISHED = "ai_unfinished"


def create_file(path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """See that there is a database at ``path``, by whomever it is made. DuckDB's errors when none can be made.

    :param connection: makes it; a connection of its own would cost as much as a thousand rows
    """
    place = path.resolve()  # the file that a link points to, also when it does not exist yet
    unfinished = place.with_name(f"{_prefix(place)}{uuid4().hex}")
    try:
        connection.execute(f"ATTACH {literal(str(unfinished))} AS {_UNFINISHED}")
        connection.execute(f"DETACH {_UNFINISHED}")
        # No links on this file system: DuckDB then makes the file in place when it is opened. Or it is there already.
        with suppress(OSError):
            os.link(unfinished, place)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what died in :func:`create_file`. Harmless to one that is still in it: the file it would make exists."""
    place = path.resolve()
    for unfinished in place.parent.glob(f"{escape(_prefix(place))}*"):
        unfinished.unlink(missing_ok=True)


def literal(value: str) -> str:
    """A text in DuckDB's SQL."""
    return "'" + value.replace("'", "''") + "'"


def _prefix(place: Path) -> str:
    return f".{place.name}.unfinished-"
