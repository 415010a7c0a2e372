"""An Airflow connection of type ``ai_audit`` → the audit of all operators, and who acts in a task.

The audit is on where there is a connection ``ai_audit`` (or the one that ``[ai_patterns] audit_conn_id`` names), as the
store is where ``ai_store`` says: a connection, because two of its fields are keys, which belong into a secrets backend.
With ``[ai_patterns] audit_required = True`` nothing runs without one. A connection that cannot be looked up is an
error, never a reason to go on without.

Connection fields: ``host`` is the folder of signed heads, ``password`` the key that record keys are made with;
everything else is in the extras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    BaseHook,
    Context,
    conf,
    mask_secret,
)

from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import AIProviderError, SpecError
from airflow_provider_ai.hooks.extras import ConnectionFields, number, parse_extras, whole
from airflow_provider_ai.hooks.storage import DEFAULT_AWS_CONN_ID, storage_options

if TYPE_CHECKING:
    from airflow_provider_ai.runtime.auditing import Audit

CONNECTION_TYPE = "ai_audit"
DEFAULT_CONN_ID = "ai_audit"
_SECTION = "ai_patterns"


def _seconds(value: Any) -> float:
    return number(value, "seconds")


EXTRAS: Mapping[str, Callable[[Any], Any]] = {
    "signing_key": str,
    "purpose": str,
    "on_audit_failure": str,
    "store_conn_id": str,
    "aws_conn_id": str,
    "object_lock": str,
    "retain_days": whole,
    "timeout_seconds": _seconds,
    "head_interval_seconds": _seconds,
    "head_lag_seconds": _seconds,
}


class AIAuditHook(BaseHook):
    """The audit: where events and heads go, and the keys.

    :param audit_conn_id: connection of type ``ai_audit``
    """

    conn_name_attr = "audit_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = "AI audit"

    def __init__(self, audit_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.audit_conn_id = audit_conn_id

    def get_conn(self) -> AuditSettings:
        """The settings, the store's connection included. SpecError when they cannot be right; never with a key."""
        # SQLAlchemy is not needed to parse a DAG.
        from airflow_provider_ai.hooks.store import DEFAULT_STORE_CONN_ID, store_url

        conn = cast(ConnectionFields, self.get_connection(self.audit_conn_id))
        try:
            extras = parse_extras(conn.extra, EXTRAS)
            for secret in (conn.password, extras.get("signing_key")):
                if secret:
                    mask_secret(secret)
            if not conn.password:
                raise SpecError("the key of record keys is missing; set it in the connection's password field")
            heads = (conn.host or "").strip() or None
            aws = extras.pop("aws_conn_id", DEFAULT_AWS_CONN_ID)
            return AuditSettings(
                store=store_url(extras.pop("store_conn_id", DEFAULT_STORE_CONN_ID)),
                hmac_key=conn.password.encode(),
                heads=heads,
                storage=storage_options((heads or "",), aws) or StorageOptions(),
                **extras,
            )
        except SpecError as error:
            raise SpecError(f"connection {conn.conn_id!r} (type {CONNECTION_TYPE}): {error}") from None

    def test_connection(self) -> tuple[bool, str]:
        """Whether keys and store can be used. For the Test button; writes no event."""
        from airflow_provider_ai.adapters.audit.event_table import AuditTable
        from airflow_provider_ai.adapters.audit.signing import HeadSigner
        from airflow_provider_ai.adapters.store import open_store

        try:
            settings = self.get_conn()
            if settings.signing_key is not None:
                HeadSigner(settings.signing_key)
            table = AuditTable(open_store(settings.store, timeout_seconds=settings.timeout_seconds))
            table.prepare()
        except (AIProviderError, AirflowException) as error:
            return False, str(error)
        table.close()
        heads = settings.heads or "none: a chain that is cut off or removed goes unnoticed"
        return True, f"Events go to the {table.where}; heads: {heads}"


def audit_settings(*, required: bool = False) -> AuditSettings | None:
    """The audit of this Airflow; None when there is no connection for it.

    :param required: whether that is an error (with ``[ai_patterns] audit_required`` it always is one)
    :raises SpecError: for a connection that cannot be right, or is missing
    """
    conn_id = conf.get(_SECTION, "audit_conn_id", fallback=DEFAULT_CONN_ID)
    try:
        return AIAuditHook(conn_id).get_conn()
    except AirflowNotFoundException as error:
        if required or conn_id != DEFAULT_CONN_ID or conf.getboolean(_SECTION, "audit_required", fallback=False):
            raise SpecError(f"nothing runs unaudited here, and: {error}") from None
        return None


def task_audit(context: Context, role: str = "submitter") -> Audit | None:
    """The audit of a task; None when it is off. Main thread only, as all look-ups."""
    settings = audit_settings()
    if settings is None:
        return None
    from airflow_provider_ai.runtime.auditing import Audit

    return Audit(settings=settings, actor=task_actor(context, role))


def task_actor(context: Context, role: str = "submitter") -> Actor:
    """Who acts in a task. ``user``: who triggered the run, as Airflow says; who cleared a task it does not say."""
    ti = context["ti"]
    run = context.get("dag_run")
    return Actor(
        kind="airflow",
        role=role,
        user=getattr(run, "triggering_user_name", None),
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index if isinstance(ti.map_index, int) and ti.map_index >= 0 else None,
        try_number=getattr(ti, "try_number", None),
    )
