"""The PHI policy while a DAG is parsed: what is known then is refused then, the rest when the task runs.

Known are Airflow's configuration, arguments of the task, and connections in environment variables (others are
not looked up, see :mod:`airflow_provider_ai.operators.parse_time`). What else is wrong with a
connection is for the task to say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_ai.core.phi_policy import Phi, PhiFacts, require_protected
from airflow_provider_ai.core.redaction import check_rules
from airflow_provider_ai.hooks.phi import package_wide
from airflow_provider_ai.operators.parse_time import endpoint_at_parse_time

if TYPE_CHECKING:
    from airflow_provider_ai.core.transport_settings import TransportSettings

_READS_AIRFLOW = ("{{", "{%")


def refuse_unprotected(
    *,
    endpoints: Mapping[str, object] | None = None,
    transport_conn_id: object = None,
    databases: Mapping[str, object] | None = None,
    folders: Mapping[str, object] | None = None,
    redaction: Mapping[str, Any] | None = None,
    **facts: Any,
) -> None:
    """SpecError for rules that cannot be right, and PhiPolicyError for what is known to be unprotected.

    :param endpoints: part → connection id; likewise ``databases``. What is no id, or a template, is not known yet
    :param folders: part → path or URI, or a template
    """
    rules = tuple(check_rules(redaction or {}))
    known = {part: endpoint_at_parse_time(str(name)) for part, name in (endpoints or {}).items()}
    stores = {part: _database(str(name)) for part, name in (databases or {}).items() if name is not None}
    told = [found for found in stores.values() if found is not None]
    require_protected(
        PhiFacts(
            phi=Phi(on=package_wide() or any(phi for _, phi in told)),
            endpoints={part: found for part, found in known.items() if found is not None},
            transport=_transport(str(transport_conn_id)),
            databases={part: found[0] for part, found in stores.items() if found is not None},
            folders={part: uri for part, uri in (folders or {}).items() if isinstance(uri, str) and "{" not in uri},
            asked=(*facts.pop("asked", ()), *rules),
            **facts,
        ),
        parsing=True,
    )


def ways_through_airflow(inputs: object) -> list[str]:
    """Which inputs of a task go through Airflow and would stand in its database: outputs of other tasks, templates.

    Constants do not: they are part of the DAG's code.
    """
    if isinstance(inputs, XComArg):
        return ["inputs are the output of another task"]
    if isinstance(inputs, str):
        return ["inputs are a template"] if any(sign in inputs for sign in _READS_AIRFLOW) else []
    if isinstance(inputs, Mapping):
        found = [way for value in inputs.values() for way in ways_through_airflow(value)]
    elif isinstance(inputs, Sequence) and not isinstance(inputs, bytes | bytearray):
        found = [way for value in inputs for way in ways_through_airflow(value)]
    else:
        return []
    return sorted(set(found))


def mapped_ways(task: Any, argument: str) -> list[str]:
    """Whether a mapped ``task`` got an argument by being mapped over it, when it runs: then it came out of XCom."""
    mapped = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    partial = getattr(mapped, "partial_kwargs", None)
    given = partial is None or argument in partial or getattr(partial.get("request"), argument, None) is not None
    return [] if given else [f"{argument} are mapped over"]


def _in_environment(conn_id: str) -> bool:
    return f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ


@cache
def _transport(conn_id: str) -> TransportSettings | None:
    if not _in_environment(conn_id):
        return None
    from airflow_provider_ai.hooks.ai_jobs import AIJobsHook

    try:
        return AIJobsHook(conn_id).connection().transport
    except Exception:  # noqa: BLE001 - whatever is wrong with the connection, the task says it
        return None


@cache
def _database(conn_id: str) -> tuple[str, bool] | None:
    """URL, and whether it is for health data."""
    if not _in_environment(conn_id):
        return None
    from airflow_provider_ai.hooks.store import store_connection

    try:
        found = store_connection(conn_id)
    except Exception:  # noqa: BLE001 - as above
        return None
    return found.url, found.phi
