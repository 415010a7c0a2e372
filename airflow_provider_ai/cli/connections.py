"""What an Airflow connection says, asked of a process of its own: the commands themselves do not import Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError

_MODULE = "airflow_provider_ai.hooks.job_transport"
_TIMEOUT_SECONDS = 120.0


def transport_of(conn_id: str) -> TransportSettings:
    """The queues of a connection of type ``ai_jobs``, as this environment's Airflow has it; takes some seconds.

    :raises SpecError: there is none, it cannot be right, or Airflow does not run here
    """
    try:
        asked = subprocess.run(
            [sys.executable, "-m", _MODULE, conn_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Airflow's own logging
            timeout=_TIMEOUT_SECONDS,
            check=True,
            env=os.environ,
        )
        found = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise SpecError(
            f"--conn {conn_id}: Airflow could not be asked in this environment ({type(error).__name__}); "
            "see that `airflow connections get` works, or give a SPEC.toml"
        ) from None
    if "error" in found:
        raise SpecError(f"--conn {conn_id}: {found['error']}")
    return TransportSettings(**found["transport"])
