"""Settings → the audit log of this process. The same settings give the same log, whoever asks: one chain a process."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from airflow_provider_ai.adapters.audit.chain_writer import ChainWriter
from airflow_provider_ai.adapters.audit.continuing import ContinuingLog
from airflow_provider_ai.adapters.audit.event_table import AuditTable
from airflow_provider_ai.adapters.audit.head_places import open_head_place
from airflow_provider_ai.adapters.audit.head_shipping import HeadShipper
from airflow_provider_ai.adapters.audit.signing import HeadSigner
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome, Position
from airflow_provider_ai.core.audit_ports import AuditLog, NullAuditLog
from airflow_provider_ai.core.audit_settings import AuditSettings

_lock = threading.Lock()
_open: dict[AuditSettings, _Shared] = {}
_ends: dict[AuditSettings, Position] = {}


class _Shared:
    """A log that several parts of a process use."""

    def __init__(self, settings: AuditSettings, actor: Actor) -> None:
        self.users = 0
        self.writer = _writer(settings, actor, _ends.get(settings))
        self.log: AuditLog = self.writer
        if settings.on_audit_failure == "continue":
            self.log = ContinuingLog(self.writer, actor=actor, epoch_us=epoch_us)


class SharedLog:
    """One user's hand on the log. Closing the last one closes the chain."""

    on = True

    def __init__(self, settings: AuditSettings, shared: _Shared) -> None:
        self._settings = settings
        self._shared = shared
        self._closed = False

    def append(self, events: Sequence[AuditEvent]) -> None:
        """See :class:`ChainWriter`."""
        self._shared.log.append(events)

    def prepare(self) -> None:
        """See :class:`ChainWriter`."""
        self._shared.log.prepare()

    def close(self) -> None:
        """Twice is once."""
        with _lock:
            if self._closed:
                return
            self._closed = True
            self._shared.users -= 1
            if self._shared.users:
                return
            _open.pop(self._settings, None)
            end = self._shared.writer.end
            if end is not None:
                _ends[self._settings] = end
        self._shared.log.close()


def open_audit_log(settings: AuditSettings | None, actor: Actor) -> AuditLog:
    """The log of this process; nothing is connected before the first event.

    :param settings: None for no audit
    :param actor: who opens it, for the first event of the chain
    :raises SpecError: for a key, a store or a place of heads that cannot be right
    """
    if settings is None:
        return NullAuditLog()
    with _lock:
        shared = _open.get(settings)
        if shared is None:
            shared = _open[settings] = _Shared(settings, actor)
        shared.users += 1
    return SharedLog(settings, shared)


def epoch_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def _writer(settings: AuditSettings, actor: Actor, previous: Position | None) -> ChainWriter:
    table = AuditTable(open_store(settings.store, timeout_seconds=settings.timeout_seconds))
    return ChainWriter(
        table,
        opening=partial(_opening, actor, settings.purpose),
        name=_new_name,
        shipper=_shippers(settings, table),
        previous=previous,
    )


def _shippers(settings: AuditSettings, table: AuditTable) -> Callable[[], HeadShipper] | None:
    if settings.heads is None or settings.signing_key is None:
        return None
    signer = HeadSigner(settings.signing_key)
    place = open_head_place(
        settings.heads,
        object_lock=settings.object_lock,
        retain_days=settings.retain_days,
        storage=settings.storage,
    )
    return partial(
        HeadShipper,
        signer,
        place,
        copy=table.insert_head,
        interval_seconds=settings.head_interval_seconds,
        lag_seconds=settings.head_lag_seconds,
        strict=settings.on_audit_failure == "fail",
        epoch_us=epoch_us,
    )


def _opening(actor: Actor, purpose: str | None, previous: Position | None) -> AuditEvent:
    return AuditEvent(
        action=AuditAction.CHAIN_OPENED,
        outcome=AuditOutcome.SUCCEEDED,
        actor=actor,
        at_us=epoch_us(),
        purpose=purpose,
        previous=previous,
    )


def _new_name() -> str:
    """When it begins, and chance; see :data:`airflow_provider_ai.core.audit_chain.WRITER`."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(6)}"


def _in_child() -> None:
    """A lock that another thread held is held for ever in a child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
