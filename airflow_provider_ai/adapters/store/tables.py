"""The store's tables. All are named ``ai_…``, because the database may be someone else's as well.

Times are epoch seconds of the store's clock. A change here needs a revision in ``migrations/versions``. How a database
lays the rows out is said only there: an option for one dialect would load that dialect in every process.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
REVISIONS = sa.table("ai_alembic_version", sa.column("version_num", sa.String()))
"""Alembic's own table, under a name that no other user of Alembic in this database has."""

BREAKERS = sa.Table(
    "ai_breakers",
    METADATA,
    sa.Column("endpoint", sa.Text(), primary_key=True),
    sa.Column("version", sa.BigInteger(), nullable=False),
    sa.Column("state", sa.Text(), nullable=False),
    sa.Column("failed_probes", sa.Integer(), nullable=False),
    sa.Column("probe_at", sa.Double(), nullable=False),
    sa.Column("lease", sa.Text(), nullable=False),
    sa.Column("lease_until", sa.Double(), nullable=False),
)

# Calls that ended, per version of the breaker and start of a time bucket.
BUCKETS = sa.Table(
    "ai_breaker_buckets",
    METADATA,
    sa.Column("endpoint", sa.Text(), primary_key=True),
    sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("starts_at", sa.Double(), primary_key=True),
    sa.Column("alive", sa.Integer(), nullable=False),
    sa.Column("failing", sa.Integer(), nullable=False),
)

# One row for each call that may be on its way; free when the lease is over.
SLOTS = sa.Table(
    "ai_bulkhead_slots",
    METADATA,
    sa.Column("endpoint", sa.Text(), primary_key=True),
    sa.Column("slot", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("lease", sa.Text(), nullable=False),
    sa.Column("lease_until", sa.Double(), nullable=False),
)

GOOD_ANSWERS = sa.Table(
    "ai_good_answers",
    METADATA,
    sa.Column("key", sa.Text(), primary_key=True),
    sa.Column("output", sa.LargeBinary(), nullable=False),
    sa.Column("codec", sa.Text(), nullable=False),
    sa.Column("model", sa.Text(), nullable=False),
    sa.Column("given_at", sa.Double(), nullable=False, index=True),
)
