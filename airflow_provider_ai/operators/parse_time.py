"""What may be known of a connection while a DAG is parsed: what the environment says, and never an error.

A connection in an environment variable is read in 0.1 ms. Any other one is not looked up: the DAG processor would ask
its manager, which takes 30-100 ms as a rule but, measured with Airflow 3.3.2 on a busy machine, more than the 30 s that
the import of a file may take, and so a right DAG would vanish. What is not seen here is seen when the task runs, before
anything is sent.
"""

from __future__ import annotations

import os
from functools import cache

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook


@cache
def endpoint_at_parse_time(conn_id: str) -> EndpointSettings | None:
    """The endpoint behind a connection; None when the environment does not have it, or it is not as it should be."""
    if f"AIRFLOW_CONN_{conn_id.upper()}" not in os.environ:
        return None
    try:
        return AIEndpointHook(conn_id).get_conn()
    except Exception:  # noqa: BLE001 - whatever is wrong with the connection, the DAG can be parsed
        return None
