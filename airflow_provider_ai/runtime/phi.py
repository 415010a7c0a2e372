"""The PHI switch at the door of each runtime: facts from settings and environment, and what follows from them.

Each runtime asks in its constructor, so that no caller can forget to: what is not allowed is never even put together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from airflow_provider_ai.adapters.payload_free_logs import keep_payloads_out_of_logs
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.phi_policy import Phi, PhiFacts, require_protected
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.redaction import Necessary, RedactedRequest, Redaction
from airflow_provider_ai.core.transport_settings import TransportSettings


def require_phi(phi: Phi, *, more: bool = False, keys: Any = None, audit: Any = None, **facts: Any) -> bool:
    """Whether PHI is handled, in which case everything protects it, and no log shows a payload from now on.

    :param phi: what the caller says
    :param more: whether somebody else says that it is PHI (a sink, a store)
    :param keys: settings of the keys that encrypt; None for none
    :param audit: settings of the audit, or what has them as ``settings``; None for none
    :param facts: further arguments of :class:`PhiFacts`
    :raises PhiPolicyError: for all that does not protect it
    """
    given = {name: _present(value) for name, value in facts.items()}
    audit = getattr(audit, "settings", audit)
    databases = {**given.pop("databases", {}), **_audit_store(audit)}
    services = {**given.pop("services", {}), **_services(keys, audit)}
    switch = replace(protected_by(phi, keys, audit), on=phi.on or more)
    on = require_protected(PhiFacts(phi=switch, environ=os.environ, databases=databases, services=services, **given))
    if on:
        keep_payloads_out_of_logs()
    return on


def guarded(request: Request, necessary: Necessary, *, phi: bool) -> Request:
    """The request as it is to be sent: with less in it under ``phi``, and wherever there are rules."""
    if isinstance(request, RedactedRequest) or not (phi or necessary.redaction):
        return request
    return RedactedRequest(inner=request, necessary=necessary)


def asked_for(request: Request | None, redaction: Redaction | None) -> tuple[str, ...]:
    """The fields that a request and rules name."""
    asked = () if request is None or request.columns is None else tuple(request.columns)
    return (*asked, *(() if redaction is None else redaction.columns))


class Deployment(Protocol):
    """What the parties of the asynchronous pattern have in common."""

    @property
    def transport(self) -> TransportSettings: ...

    @property
    def store(self) -> str: ...

    @property
    def claim_check(self) -> ClaimCheckSettings: ...

    @property
    def storage(self) -> StorageOptions | None: ...


def deployment(job: Deployment) -> dict[str, Any]:
    """Their facts, for :func:`require_phi`."""
    return {
        "transport": job.transport,
        "databases": {"store": job.store},
        "folders": {"claim check": job.claim_check.uri},
        "storage": job.storage,
    }


def protected_by(phi: Phi, keys: Any, audit: Any) -> Phi:
    """The switch with what encrypts and audits; see :func:`require_phi`."""
    audit = getattr(audit, "settings", audit)
    if keys is not None:
        phi = replace(phi, encryption=True)
    if audit is not None:
        closed = audit.on_audit_failure == "fail"
        phi = replace(phi, audit="fail-closed" if closed else "fail-open")
    return phi


def _audit_store(audit: Any) -> dict[str, str]:
    return {} if audit is None else {"audit store": audit.store}


def _services(keys: Any, audit: Any) -> dict[str, str]:
    """Where keys are wrapped and heads of the audit are shipped, when that is not AWS itself."""
    kms = getattr(keys, "endpoint_url", None)
    heads = None if audit is None else audit.storage.endpoint_url
    return {part: url for part, url in (("KMS", kms), ("audit heads", heads)) if url}


def _present(value: Any) -> Any:
    """Parts that are there."""
    return {part: one for part, one in value.items() if one is not None} if isinstance(value, Mapping) else value
