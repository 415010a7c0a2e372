"""Which deployment a job belongs to, and what answered it.

Jobs that are there already name no queue and belong to every deployment, as they did. SQLite puts new columns last,
behind the payload, which would have to be read first: its table is made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    columns = {
        "job_id": sa.Column("queue", sa.Text(), nullable=False, server_default=""),
        "reason": sa.Column("model", sa.Text()),
    }
    if op.get_context().dialect.name != "sqlite":
        for column in columns.values():
            op.add_column("ai_jobs", column)
        return
    with op.batch_alter_table("ai_jobs", recreate="always") as jobs:
        for before, column in columns.items():
            jobs.add_column(column, insert_after=before)
