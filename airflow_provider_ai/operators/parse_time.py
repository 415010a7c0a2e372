"""What may be known of a connection while a DAG is parsed: as much as is cheap, and never an error.

Looked up where it costs little (measured with Airflow 3.3.2): an environment variable takes 0.1 ms; the DAG processor
asks its manager, which takes 30–100 ms, once for each connection and parse (and some seconds for the very first one
after its start). Not looked up: in a task, which resolves its connections anyway; with a secrets backend, whose every
look-up may cost time and money; and anywhere else, such as on the command line. What is not seen here is seen when the
task runs, before anything is sent.
"""

from __future__ import annotations

import os
from functools import cache

from airflow.providers.common.compat.sdk import conf, get_parsing_context

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook


@cache
def endpoint_at_parse_time(conn_id: str) -> EndpointSettings | None:
    """The endpoint behind a connection; None when it is not looked up, absent or not as it should be."""
    if not _is_cheap(conn_id):
        return None
    try:
        return AIEndpointHook(conn_id).get_conn()
    except Exception:  # noqa: BLE001 - whatever is wrong with the connection, the DAG can be parsed
        return None


def _is_cheap(conn_id: str) -> bool:
    in_a_task = get_parsing_context().dag_id is not None
    if in_a_task or "{" in conn_id or conf.get("secrets", "backend", fallback=""):
        return False
    in_dag_processor = os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client"
    return in_dag_processor or f"AIRFLOW_CONN_{conn_id.upper()}" in os.environ
