"""Waiting for a lock whose holder shows no life."""

from __future__ import annotations

from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from tests.support.processes import wait_until


def take_over(storage: CheckpointStorage) -> None:
    """Try until the dead or frozen holder's lock is ours, which must not be before its lease is over."""
    attempts = 0

    def taken_over() -> bool:
        nonlocal attempts
        attempts += 1
        return storage.try_lock("me") is not None

    wait_until(taken_over, deadline_seconds=20, what="the lease of the former holder", poll_seconds=0.02)
    assert attempts > 2, "not before the lease"
