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

# One row per job, its place in the inbox included: an outcome has arrived when inbox_state says so, and is then the
# job's own. The names of tables and columns are words of the contract, except that GROUP is one of SQL.
JOBS = sa.Table(
    "ai_jobs",
    METADATA,
    sa.Column("job_id", sa.Text(), primary_key=True),
    sa.Column("queue", sa.Text(), nullable=False, server_default=""),  # of requests; jobs of older versions have none
    sa.Column("submission", sa.Text(), nullable=False),
    sa.Column("position", sa.Integer(), nullable=False),
    sa.Column("generation", sa.Integer(), nullable=False),
    sa.Column("superseded", sa.Boolean(), nullable=False),  # there is a later generation
    sa.Column("predecessor", sa.Text()),
    sa.Column("state", sa.Text(), nullable=False),
    sa.Column("owner", sa.Text(), nullable=False),
    sa.Column("fence", sa.BigInteger(), nullable=False),
    sa.Column("attempts", sa.Integer(), nullable=False),
    sa.Column("abandoned", sa.Integer(), nullable=False),
    sa.Column("lease_until", sa.Double(), nullable=False),
    sa.Column("lease_seconds", sa.Double(), nullable=False),
    sa.Column("sent", sa.Boolean(), nullable=False),
    sa.Column("submitted_at", sa.Double(), nullable=False),
    sa.Column("touched_at", sa.Double(), nullable=False),  # anything but a heartbeat
    sa.Column("expires_at", sa.Double()),
    sa.Column("tenant", sa.Text()),
    sa.Column("webhook", sa.Boolean(), nullable=False),
    sa.Column("inbox_state", sa.Text()),
    sa.Column("inbox_via", sa.Text()),
    sa.Column("reason", sa.Text()),
    sa.Column("model", sa.Text()),
    sa.Column("payload_sha256", sa.Text(), nullable=False),
    sa.Column("payload_codec", sa.Text(), nullable=False),
    sa.Column("payload_ref", sa.Text()),
    sa.Column("result_sha256", sa.Text()),
    sa.Column("result_codec", sa.Text()),
    sa.Column("result_ref", sa.Text()),
    sa.Column("payload_inline", sa.LargeBinary()),  # last: what a query does not ask for is then not read
    sa.Column("result_inline", sa.LargeBinary()),
    sa.Index("ix_ai_jobs_place", "submission", "position", "generation", unique=True),
    sa.Index("ix_ai_jobs_waiting", "submission", "position", "superseded", "inbox_state"),
    sa.Index("ix_ai_jobs_upkeep", "inbox_state", "state", "touched_at"),
    sa.Index("ix_ai_jobs_expiry", "state", "expires_at"),
)

# Replies that belong to no job, by the hash of the message: one that comes again is kept once.
UNKNOWN_REPLIES = sa.Table(
    "ai_unknown_replies",
    METADATA,
    sa.Column("digest", sa.Text(), primary_key=True),
    sa.Column("job_id", sa.Text()),
    sa.Column("via", sa.Text(), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("message", sa.LargeBinary(), nullable=False),
    sa.Column("received_at", sa.Double(), nullable=False, index=True),
)

# Messages taken out of the dead letter queue; their bytes have passed the codec that is named beside them.
DEAD_LETTERS = sa.Table(
    "ai_dead_letters",
    METADATA,
    sa.Column("letter_id", sa.Text(), primary_key=True),
    sa.Column("job_id", sa.Text(), index=True),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("source", sa.Text(), nullable=False),
    sa.Column("received_at", sa.Double(), nullable=False, index=True),
    sa.Column("codec", sa.Text(), nullable=False),
    sa.Column("message", sa.LargeBinary(), nullable=False),
)

# Events of the audit, which are inserted and never changed; see core/audit_chain.py for what their hash is over.
AUDIT_EVENTS = sa.Table(
    "ai_audit_events",
    METADATA,
    sa.Column("writer", sa.Text(), primary_key=True),
    sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("at_us", sa.BigInteger(), nullable=False),
    sa.Column("records", sa.Integer(), nullable=False),
    sa.Column("digest", sa.Text(), nullable=False),
    sa.Column("facts", sa.LargeBinary(), nullable=False),
    sa.Column("keys", sa.LargeBinary()),
    sa.Column("hash", sa.LargeBinary(), nullable=False),
)

# Copies of the signed heads of chains; the ones that count lie where nobody may change them.
AUDIT_HEADS = sa.Table(
    "ai_audit_heads",
    METADATA,
    sa.Column("writer", sa.Text(), primary_key=True),
    sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("closed", sa.Boolean(), primary_key=True),
    sa.Column("document", sa.LargeBinary(), nullable=False),
)
