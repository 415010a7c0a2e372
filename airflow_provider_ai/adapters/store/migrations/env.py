"""What Alembic runs to bring a store's tables up: on the connection, and in the transaction, that it is given."""

from __future__ import annotations

from alembic import context

from airflow_provider_ai.adapters.store.tables import METADATA, REVISIONS


def migrate() -> None:
    """Run the revisions that are missing."""
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=METADATA, version_table=REVISIONS.name
    )
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # the name Alembic loads this file under
    migrate()
