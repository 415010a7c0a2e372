"""The audit of a process, opened: what the patterns are wrapped with. Where it is off, nothing is wrapped."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_ports import NullAuditLog
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.patterns.auditing import Auditor

_NOBODY = Actor(kind="service", role="nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The audit, switched on, and who acts."""

    settings: AuditSettings
    actor: Actor


def open_auditor(audit: Audit | None) -> Auditor:
    """Makes events; to be closed. Nothing is connected before the first one.

    :param audit: None for no audit
    :raises SpecError: for a key, a store or a place of heads that cannot be right
    """
    if audit is None:
        return Auditor(NullAuditLog(), actor=_NOBODY, hmac_key=b"", epoch=time.time)
    # SQLAlchemy and cryptography are not needed without.
    from airflow_provider_ai.adapters.audit.opening import open_audit_log

    settings = audit.settings
    return Auditor(
        open_audit_log(settings, audit.actor),
        actor=audit.actor,
        hmac_key=settings.hmac_key,
        epoch=time.time,
        purpose=settings.purpose,
    )


@contextmanager
def auditing(audit: Audit | None) -> Iterator[Auditor]:
    """Likewise, and closed at the end."""
    auditor = open_auditor(audit)
    try:
        yield auditor
    finally:
        auditor.close()


def shell_actor(role: str) -> Actor:
    """Who runs this process from a shell or from cron: a user, by name where it has one, and no host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return Actor(kind="cli", role=role, user=user)
