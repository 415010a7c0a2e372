"""Whether the store's tables are those of this package, and making them so.

Alembic is imported only to change tables. ``KNOWN`` are the revisions in ``migrations/versions``, oldest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from airflow_provider_ai.adapters.store.tables import REVISIONS
from airflow_provider_ai.exceptions import StoreSchemaError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006")
HEAD = KNOWN[-1]

_READ = sa.select(REVISIONS.c.version_num)


def revision(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none."""
    if not sa.inspect(connection).has_table(REVISIONS.name):
        return None
    found: str | None = connection.execute(_READ).scalar()
    return found


def check(found: str | None, where: str) -> None:
    """StoreSchemaError unless the tables are this package's."""
    if found == HEAD:
        return
    if found is None or found in KNOWN:
        raise StoreSchemaError(
            f"{where}: its tables are at revision {found or 'none'}, this package needs {HEAD}: "
            "run `airflow-ai store upgrade`"
        )
    raise StoreSchemaError(
        f"{where}: its tables are at revision {found}, which this package (at {HEAD}) does not know: "
        "install the version of airflow-provider-ai that upgraded the store, or a newer one"
    )


def upgrade(connection: Connection, where: str) -> None:
    """Bring the tables to ``HEAD`` in the transaction that is open, which excludes everyone else's upgrade."""
    found = revision(connection)
    if found == HEAD:
        return
    if found is not None and found not in KNOWN:
        check(found, where)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "airflow_provider_ai.adapters.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
