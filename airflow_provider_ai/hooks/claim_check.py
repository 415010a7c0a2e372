"""Outputs that do not lie in XCom, for the tasks that need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import get_current_context

from airflow_provider_ai.hooks.audit import audit_settings, task_actor
from airflow_provider_ai.hooks.storage import DEFAULT_AWS_CONN_ID, storage_options

if TYPE_CHECKING:
    from airflow_provider_ai.runtime.auditing import Audit


def load_output(
    answer: Mapping[str, Any], *, aws_conn_id: str | None = DEFAULT_AWS_CONN_ID, keys_conn_id: str | None = None
) -> Any:
    """The output of an answer, checked against its reference when it lies elsewhere (``output_uri``).

    Where the audit is on, an encrypted output is handed out once it is on record who reads it.

    :param answer: what the call returned
    :param aws_conn_id: connection for an ``s3://`` reference; not looked up for others
    :param keys_conn_id: connection of the keys, for an output that was encrypted
    :raises ClaimCheckError: when what lies there is not what was stored
    :raises AuditError: when its reading cannot be put on record
    """
    # pyarrow is not needed to parse a DAG, nor for an output in XCom.
    if "output_ref" not in answer:
        return answer["output"]
    from airflow_provider_ai.adapters.claim_check import load_output as load
    from airflow_provider_ai.adapters.crypto.opening import open_codec
    from airflow_provider_ai.hooks.ai_keys import keys_of
    from airflow_provider_ai.patterns.audited_codec import AuditedCodec
    from airflow_provider_ai.runtime.auditing import auditing

    options, codec = storage_options((answer["output_ref"]["uri"],), aws_conn_id), open_codec(keys_of(keys_conn_id))
    with auditing(None if keys_conn_id is None else _audit()) as auditor:
        return load(answer, options=options, codec=AuditedCodec(codec, auditor) if auditor.on else codec)


def _audit() -> Audit | None:
    """The audit of whoever reads: a task, or somebody outside of one; None when it is off."""
    from airflow_provider_ai.runtime.auditing import Audit, shell_actor

    settings = audit_settings()
    if settings is None:
        return None
    try:
        actor = task_actor(get_current_context(), "reader")
    except RuntimeError:  # no task is running
        actor = shell_actor("reader")
    return Audit(settings=settings, actor=actor)
