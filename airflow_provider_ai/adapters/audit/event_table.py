"""The two tables of the audit: INSERT for writers, pages in order for whoever verifies or exports.

A writer's role needs no right but INSERT: no statement here reads, returns or compares rows before it inserts. Whether
the tables are those of this package is asked where the role may ask, and else found out by inserting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from airflow_provider_ai.adapters.store.tables import AUDIT_EVENTS, AUDIT_HEADS
from airflow_provider_ai.core.audit_chain import Row, SignedHead
from airflow_provider_ai.exceptions import StoreError, StoreSchemaError, StoreUnavailableError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from airflow_provider_ai.adapters.store.store import Store

E, H = AUDIT_EVENTS.c, AUDIT_HEADS.c
_COLUMNS = ", ".join(f'"{column.name}"' for column in E)
_ROW_OF = {
    True: "(?, ?, ?, ?, ?, ?, NULLIF(?, x''), ?)",
    False: "(%s, %s, %s, %s, %s, %s, NULLIF(%s, ''::bytea), %s)",
}
"""Absent keys are empty ones on their way: a parameter that is null now and then would be another statement."""
_ROWS_PER_STATEMENT = 64
PAGE = 5_000
"""Events read at a time."""


class AuditTable:
    """Writes. Thread-safe. Errors are StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database.durable()
        self._insert_head = self._database.insert(AUDIT_HEADS).on_conflict_do_nothing()

    @property
    def where(self) -> str:
        """The store in messages."""
        return self._store.where

    def prepare(self) -> None:
        """Connect, and make the tables when there are none yet and that is allowed."""
        try:
            self._store.prepare()
        except (StoreUnavailableError, StoreSchemaError):
            raise
        except StoreError:
            return  # it may not look, or not make tables: whether it may insert is what counts

    def insert(self, rows: Sequence[Row]) -> None:
        """Insert rows, all or none; durable when this returns."""
        self._insert(rows, "")

    def insert_absent(self, rows: Sequence[Row]) -> None:
        """Likewise, for rows that may be there: those of a commit that nobody knows the end of."""
        self._insert(rows, " ON CONFLICT DO NOTHING")  # without a target: naming one takes the right to SELECT

    def insert_head(self, signed: SignedHead) -> None:
        """Keep a copy of a head."""
        head = signed.head
        values = {"writer": head.writer, "sequence": head.sequence, "closed": head.closed, "document": signed.to_json()}
        with self._database.session() as session:
            session.run(self._insert_head, values)

    def close(self) -> None:
        """Let connections go."""
        self._database.close()
        self._store.close()

    def _insert(self, rows: Sequence[Row], ending: str) -> None:
        """A statement is a transaction of its own, and one trip to the server; more than fit into it are one, too."""
        slices = [rows[start : start + _ROWS_PER_STATEMENT] for start in range(0, len(rows), _ROWS_PER_STATEMENT)]
        with self._database.session() if len(slices) == 1 else self._database.together() as session:
            for some in slices:
                session.attempt(partial(_insert_some, some, ending))


def _insert_some(rows: Sequence[Row], ending: str, connection: Connection) -> None:
    """Past SQLAlchemy's compiler, which would take longer than the database."""
    row = _ROW_OF[connection.dialect.paramstyle == "qmark"]
    text = f"INSERT INTO ai_audit_events ({_COLUMNS}) VALUES {', '.join([row] * len(rows))}{ending}"  # noqa: S608
    values = tuple(value for each in rows for value in (*each[:6], each.keys or b"", each.hash))
    connection.exec_driver_sql(text, values)


class AuditReader:
    """Reads, in order of writer and number, a page at a time; no transaction stays open between two of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def where(self) -> str:
        """The store in messages."""
        return self._store.where

    def pages(self, *, since: str = "", until: str | None = None) -> Iterator[list[Any]]:
        """All events as rows of :class:`Row`'s columns.

        :param since: name of the first writer, or the time it begins with; ``until``: likewise, and not included
        """
        with ThreadPoolExecutor(1, thread_name_prefix="ai-audit-pages") as ahead:  # the next one comes meanwhile
            coming = ahead.submit(self._page, since, -(1 << 62), until)
            while page := coming.result():
                coming = ahead.submit(self._page, page[-1][0], page[-1][1], until)
                yield page

    def rest(self, writer: str, after: int) -> list[Any]:
        """What has come since in one chain; at most a page."""
        return [row for row in self._page(writer, after, None) if row[0] == writer]

    def hash_at(self, writer: str, sequence: int) -> bytes | None:
        """The hash of one event; None when it is not there."""
        asked = sa.select(E.hash).where(E.writer == writer, E.sequence == sequence)
        with self._store.session() as session:
            found = session.run(asked, {}).scalar()
        return None if found is None else bytes(found)

    def heads(self) -> Iterator[tuple[str, bytes]]:
        """The copies of heads in the store: writer and document, in order."""
        after: Any = ("", 0, False)
        order = (H.writer, H.sequence, H.closed)
        while True:
            later = sa.tuple_(*order) > sa.tuple_(*map(sa.literal, after))
            asked = sa.select(*order, H.document).where(later).order_by(*order).limit(PAGE)
            with self._store.session() as session:
                page: list[Any] = list(session.run(asked, {}))
            yield from ((row[0], bytes(row[3])) for row in page)
            if len(page) < PAGE:
                return
            last = page[-1]
            after = (last[0], last[1], last[2])

    def _page(self, writer: str, number: int, until: str | None) -> list[Any]:
        """Through the driver's own cursor: its rows are tuples already, and there are very many of them."""

        def fetch(connection: Connection) -> list[Any]:
            mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
            before = f" AND writer < {mark}" if until is not None else ""
            text = (
                f"SELECT {_COLUMNS} FROM ai_audit_events WHERE (writer, sequence) > ({mark}, {mark}){before} "  # noqa: S608
                f"ORDER BY writer, sequence LIMIT {PAGE}"
            )
            values = (writer, number) if until is None else (writer, number, until)
            with closing(_cursor(connection)) as cursor:
                cursor.execute(text, values)
                return list(cursor.fetchall())

        with self._store.session() as session:
            return session.attempt(fetch)


def _cursor(connection: Connection) -> Any:
    driver: Any = connection.connection.driver_connection
    with suppress(TypeError):
        return driver.cursor(binary=True)  # PostgreSQL: bytes need not become text on their way
    return driver.cursor()
