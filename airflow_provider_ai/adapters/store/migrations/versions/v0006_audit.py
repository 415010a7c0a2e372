"""The audit: events, and copies of the heads of their chains.

PostgreSQL sorts writers by their bytes, as object stores sort names, whatever the database's own collation is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create both tables."""
    by_bytes = "C" if op.get_bind().dialect.name == "postgresql" else None
    op.create_table(
        "ai_audit_events",
        sa.Column("writer", sa.Text(collation=by_bytes), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.Column("keys", sa.LargeBinary()),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "ai_audit_heads",
        sa.Column("writer", sa.Text(collation=by_bytes), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("closed", sa.Boolean(), primary_key=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
