"""The last good answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table of good answers."""
    op.create_table(
        "ai_good_answers",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("output", sa.LargeBinary(), nullable=False),
        sa.Column("codec", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("given_at", sa.Double(), nullable=False, index=True),
    )
