"""The roles of a deployment: processes of one kind, which get the rights for their own work and no others.

A role of the audit trail (``submitter``, ``worker``, …) is the role of the policy under which the process runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from airflow_provider_ai.exceptions import SpecError

Kind = Literal["jobs", "batch", "call"]
"""What a spec is for: the asynchronous, the batch and the synchronous pattern."""


class Role(StrEnum):
    """Who."""

    SUBMITTER = "submitter"  # a task that submits jobs, waits for them and collects their results
    WORKER = "worker"  # does jobs
    DISPATCHER = "dispatcher"  # takes replies into the inbox, sends what is lost once more, prunes; also the webhook's
    READER = "reader"  # looks at states and counts, at no payload
    OPERATOR = "operator"  # a person, or a task, that deals with dead letters
    BATCH = "batch"  # infers and publishes a batch
    CALLER = "caller"  # makes synchronous calls
    AUDITOR = "auditor"  # verifies and exports the audit
    ROTATOR = "rotator"  # wraps data keys anew
    OWNER = "owner"  # owns the tables and upgrades them; nobody runs under it otherwise


_EVERYWHERE = (Role.READER, Role.AUDITOR, Role.ROTATOR, Role.OWNER)
ROLES: dict[Kind, tuple[Role, ...]] = {
    "jobs": (Role.SUBMITTER, Role.WORKER, Role.DISPATCHER, Role.OPERATOR, *_EVERYWHERE),
    "batch": (Role.BATCH, *_EVERYWHERE),
    "call": (Role.CALLER, *_EVERYWHERE),
}


def role_of(name: str, kind: Kind) -> Role:
    """The role of this name. SpecError when a spec of this kind has no such role."""
    known = [role.value for role in ROLES[kind]]
    if name not in known:
        raise SpecError(f"--role must be one of {', '.join(known)} for a spec of this kind, got {name!r}")
    return Role(name)
