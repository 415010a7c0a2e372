"""Settings of the audit: where events and heads go, which keys are used, what happens when an event cannot be kept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from airflow_provider_ai.core.config import StorageOptions, is_number, is_whole, require

OnAuditFailure = Literal["fail", "continue"]
ObjectLock = Literal["compliance", "governance", "none"]
SIX_YEARS_DAYS = 2192
"""How long documentation of this kind is kept: 45 CFR 164.316(b)(2)(i)."""
_PURPOSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LEAST_KEY_BYTES, _MOST_KEY_BYTES = 32, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """The audit, switched on.

    :param store: SQLAlchemy URL of the store that holds the events; its role needs INSERT on two tables and no more
    :param hmac_key: 32 to 64 bytes that record keys are made with; the same everywhere, or keys cannot be compared
    :param heads: folder of signed heads, local or ``s3://``; None for none, and then a chain that was cut off, or
        removed, goes unnoticed
    :param signing_key: Ed25519 private key, PEM; needed for heads
    :param purpose: purpose of use, such as HL7's ``TREAT`` or ``HOPERAT``; None where it is not stated
    :param on_audit_failure: ``fail``: what cannot be audited is not done; ``continue``: it is, and the loss is audited
    :param timeout_seconds: what keeping an event may take
    :param head_interval_seconds: a head is signed this often while events come
    :param head_lag_seconds: with ``fail``, nothing more is audited once no head could be shipped for so long
    :param object_lock: of heads on S3: ``compliance``, ``governance``, or ``none`` for a bucket that has none
    :param retain_days: how long S3 then refuses to delete one
    :param storage: how S3 is reached
    """

    store: str = field(repr=False)
    hmac_key: bytes = field(repr=False)
    heads: str | None = None
    signing_key: str | None = field(default=None, repr=False)
    purpose: str | None = None
    on_audit_failure: OnAuditFailure = "fail"
    timeout_seconds: float = 5.0
    head_interval_seconds: float = 10.0
    head_lag_seconds: float = 120.0
    object_lock: ObjectLock = "compliance"
    retain_days: int = SIX_YEARS_DAYS
    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        require(isinstance(self.store, str) and "://" in self.store, "audit store must be a SQLAlchemy URL", "another")
        size = len(self.hmac_key) if isinstance(self.hmac_key, bytes) else -1
        right_size = _LEAST_KEY_BYTES <= size <= _MOST_KEY_BYTES
        require(right_size, f"hmac_key must have {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES} bytes", f"{size}")
        named = self.heads is None or (isinstance(self.heads, str) and bool(self.heads.strip()))
        require(named, "heads must be a path or URI, or absent", self.heads)
        signed = self.heads is None or bool(self.signing_key)
        require(signed, "signing_key must be there, for heads are signed: `airflow-ai audit keygen`", "none")
        purpose = self.purpose
        worded = purpose is None or (isinstance(purpose, str) and bool(_PURPOSE.fullmatch(purpose)))
        require(worded, "purpose must be a word such as TREAT, or absent", purpose)
        choices = get_args(OnAuditFailure)
        require(self.on_audit_failure in choices, f"on_audit_failure must be one of {choices}", self.on_audit_failure)
        locks = get_args(ObjectLock)
        require(self.object_lock in locks, f"object_lock must be one of {locks}", self.object_lock)
        require(is_whole(self.retain_days, 1), "retain_days must be an integer ≥ 1", self.retain_days)
        for name in ("timeout_seconds", "head_interval_seconds", "head_lag_seconds"):
            seconds = getattr(self, name)
            require(is_number(seconds) and seconds > 0, f"{name} must be a number > 0 (seconds)", seconds)
        lag = self.head_lag_seconds
        require(lag > self.head_interval_seconds, "head_lag_seconds must be longer than head_interval_seconds", lag)
