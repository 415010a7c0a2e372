"""Jobs with their inbox, and replies that belong to none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables of the asynchronous pattern."""
    op.create_table(
        "ai_jobs",
        sa.Column("job_id", sa.Text(), primary_key=True),
        sa.Column("submission", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("superseded", sa.Boolean(), nullable=False),
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
        sa.Column("touched_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("tenant", sa.Text()),
        sa.Column("webhook", sa.Boolean(), nullable=False),
        sa.Column("inbox_state", sa.Text()),
        sa.Column("inbox_via", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("payload_sha256", sa.Text(), nullable=False),
        sa.Column("payload_codec", sa.Text(), nullable=False),
        sa.Column("payload_ref", sa.Text()),
        sa.Column("result_sha256", sa.Text()),
        sa.Column("result_codec", sa.Text()),
        sa.Column("result_ref", sa.Text()),
        sa.Column("payload_inline", sa.LargeBinary()),
        sa.Column("result_inline", sa.LargeBinary()),
    )
    op.create_index("ix_ai_jobs_place", "ai_jobs", ["submission", "position", "generation"], unique=True)
    op.create_index("ix_ai_jobs_waiting", "ai_jobs", ["submission", "position", "superseded", "inbox_state"])
    op.create_index("ix_ai_jobs_upkeep", "ai_jobs", ["inbox_state", "state", "touched_at"])
    op.create_index("ix_ai_jobs_expiry", "ai_jobs", ["state", "expires_at"])
    op.create_table(
        "ai_unknown_replies",
        sa.Column("digest", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Text()),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False, index=True),
    )
