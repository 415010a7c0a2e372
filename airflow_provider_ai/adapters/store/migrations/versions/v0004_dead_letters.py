"""Dead letters of the asynchronous pattern."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create their table."""
    op.create_table(
        "ai_dead_letters",
        sa.Column("letter_id", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Text(), index=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False, index=True),
        sa.Column("codec", sa.Text(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
    )
