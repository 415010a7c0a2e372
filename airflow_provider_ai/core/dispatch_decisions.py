"""What a dispatcher does with replies, dead letters and jobs that were lost. Decided from facts alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from airflow_provider_ai.core.jobs import Job

FORGOTTEN = 4
"""Sent so many resend spans ago, a job's request is sent again however full the queue is."""


def letter_id(message: bytes, reason: str) -> str:
    """Names a dead letter: the same message put aside again for the same reason is the same letter. 32 hex digits."""
    return hashlib.sha256(reason.encode() + b"\0" + message).hexdigest()[:32]


def to_resend(overdue: Sequence[Job], *, queued: int) -> Sequence[Job]:
    """Which of the jobs that were not begun for a while have lost their request.

    Those that were never sent have. The others may stand in a long queue: while it holds as many messages as there are
    such jobs, all of theirs may be among them, and sending them again would double it.

    :param queued: messages in the request queue, hidden ones included
    """
    never = [job for job in overdue if not job.sent]
    maybe = [job for job in overdue if job.sent]
    return never + (maybe if queued < len(maybe) else [])
