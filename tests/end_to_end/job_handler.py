"""What the workers of the end-to-end tests do: they write down each job they are asked to do, and answer.

A note that says so is rejected. The list of calls is a file, so that tests count at the far end.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from airflow_provider_ai.core.job_handling import HandledJob, RejectedJobError


def answer(job: HandledJob) -> dict[str, Any]:
    """How long the note is."""
    if "REJECT" in job.payload["note"]:
        _called(job)
        raise RejectedJobError("not_a_note")
    return mended(job)


def mended(job: HandledJob) -> dict[str, Any]:
    """The same once the cause of the rejections is gone."""
    _called(job)
    return {"length": len(job.payload["note"]), "first_word": job.payload["note"].split()[0]}


def hanging(job: HandledJob) -> dict[str, Any]:
    """No answer."""
    _called(job)
    threading.Event().wait()
    raise AssertionError


def _called(job: HandledJob) -> None:
    with open(os.environ["CALLS_FILE"], "a") as calls:  # noqa: PTH123 - one write, appended as a whole
        calls.write(f"{job.payload['note_id']}\n")
