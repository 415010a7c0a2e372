"""Circuit breakers, their windows, and bulkhead slots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Rows that are updated all the time: room in their page keeps an update from touching the index.
_ROOMY = {"fillfactor": 50}


def upgrade() -> None:
    """Create the tables of the call gate."""
    op.create_table(
        "ai_breakers",
        sa.Column("endpoint", sa.Text(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failed_probes", sa.Integer(), nullable=False),
        sa.Column("probe_at", sa.Double(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        postgresql_with=_ROOMY,
    )
    op.create_table(
        "ai_breaker_buckets",
        sa.Column("endpoint", sa.Text(), primary_key=True),
        sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("starts_at", sa.Double(), primary_key=True),
        sa.Column("alive", sa.Integer(), nullable=False),
        sa.Column("failing", sa.Integer(), nullable=False),
        postgresql_with=_ROOMY,
    )
    op.create_table(
        "ai_bulkhead_slots",
        sa.Column("endpoint", sa.Text(), primary_key=True),
        sa.Column("slot", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("lease", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        postgresql_with=_ROOMY,
    )
