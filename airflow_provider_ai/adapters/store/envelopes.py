"""Encrypted columns of the store, to have their data keys wrapped by another key.

A row is changed only if its column is still what was read, so this goes on beside everything else; rows that come in
meanwhile are under the current key already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.adapters.store.tables import DEAD_LETTERS, GOOD_ANSWERS, JOBS, UNKNOWN_REPLIES

COLUMNS: Final[tuple[tuple[sa.Column[Any], sa.Column[Any]], ...]] = (
    (JOBS.c.job_id, JOBS.c.payload_inline),
    (JOBS.c.job_id, JOBS.c.result_inline),
    (GOOD_ANSWERS.c.key, GOOD_ANSWERS.c.output),
    (DEAD_LETTERS.c.letter_id, DEAD_LETTERS.c.message),
    (UNKNOWN_REPLIES.c.digest, UNKNOWN_REPLIES.c.message),
)
_PAGE = 100  # rows, of up to 750 KiB


def pages(store: Store, key: sa.Column[Any], column: sa.Column[Any]) -> Iterator[list[tuple[str, bytes]]]:
    """Key and bytes of the rows in which a column is set, some at a time."""
    after = ""
    while True:
        found: Any = sa.select(key, column).where(key > after, column.is_not(None)).order_by(key).limit(_PAGE)
        with store.session() as session:
            got: Any = session.run(found, {}).all()
        rows = [(str(name), bytes(data)) for name, data in got]
        if not rows:
            return
        yield rows
        after = rows[-1][0]


def replace_rows(
    store: Store, key: sa.Column[Any], column: sa.Column[Any], changes: list[tuple[str, bytes, bytes]]
) -> None:
    """Put other bytes in the place of those that were read (key, before, after), in one durable transaction."""
    if not changes:
        return
    same = sa.and_(key == sa.bindparam("of_key", type_=sa.Text()), column == sa.bindparam("before", type_=column.type))
    table: Any = column.table
    statement = sa.update(table).where(same).values({column.name: sa.bindparam("after", type_=column.type)})
    with store.transaction() as session:
        session.run(statement, [{"of_key": name, "before": old, "after": new} for name, old, new in changes])
