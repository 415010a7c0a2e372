"""The queues of an ``ai_jobs`` connection, for a program that does not import Airflow: ``python -m … CONN_ID``.

The last line of stdout is one JSON object: the transport's settings, or an ``error``. It may hold keys: it is meant for
the pipe of whoever starts this, and never for a terminal or a log.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_ai.exceptions import AIProviderError
from airflow_provider_ai.hooks.ai_jobs import AIJobsHook, with_aws


def described(conn_id: str) -> dict[str, Any]:
    """What is printed."""
    try:
        found = AIJobsHook(conn_id).connection()
        return {"transport": asdict(with_aws(found.transport, found.aws_conn_id))}
    except (AIProviderError, AirflowException) as error:
        return {"error": str(error)}


if __name__ == "__main__":
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"  # as `airflow connections get` does: the metadata database counts
    sys.stdout.write(f"{json.dumps(described(sys.argv[1]))}\n")
