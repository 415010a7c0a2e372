"""What the workers of the end-to-end tests do: they write down each job they are asked to do, and answer.

A note that says so is rejected. The list of calls is a file, so that tests count at the far end.
"""

from __future__ import annotations

import os
from typing import Any

from airflow_provider_ai.core.job_handling import HandledJob, RejectedJobError


def answer(job: HandledJob) -> dict[str, Any]:
    """How long the note is."""
    with open(os.environ["CALLS_FILE"], "a") as calls:  # noqa: PTH123 - one write, appended as a whole
        calls.write(f"{job.payload['note_id']}\n")
    if "REJECT" in job.payload["note"]:
        raise RejectedJobError("not_a_note")
    return {"length": len(job.payload["note"]), "first_word": job.payload["note"].split()[0]}
