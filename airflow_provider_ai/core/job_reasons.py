"""Why a job failed, or its message is a dead letter, in words of the worker's and the dispatcher's own.

Others come from where it went wrong: verdicts on a call (:mod:`airflow_provider_ai.core.verdict`), flaws of an answer
(:mod:`airflow_provider_ai.core.requests.reasons`), of a message and of a claim.
"""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_ai.core.messages import WRONG_HASH

UNKNOWN_JOB: Final = "unknown_job"  # the store has no such job
PAYLOAD_MISMATCH: Final = "payload_mismatch"  # not the payload that was submitted under this id
PAYLOAD_LOST: Final = "payload_lost"  # the claim check leads to nothing, or to something else
PAYLOAD_UNAVAILABLE: Final = "payload_unavailable"  # the storage of claim checks is down
PAYLOAD_NOT_JSON: Final = "payload_not_json"
DEADLINE: Final = "deadline"  # the handler took longer than it may
HANDLER_ERROR: Final = "handler_error"  # the handler raised
NO_THREAD: Final = "no_thread"  # all threads for plain functions are busy or were left behind
INVALID_RESULT: Final = "invalid_result"  # the handler's result is no plain JSON
REQUEST_REFUSED: Final = "request_refused"  # the queue does not take its request
AUDIT_UNAVAILABLE: Final = "audit_unavailable"  # it cannot be audited now, so nothing was sent
RESULT_NOT_KEPT: Final = "result_not_kept"  # the result could not be stored

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")


_OF_THE_MESSAGE = frozenset({UNKNOWN_JOB, PAYLOAD_MISMATCH, WRONG_HASH})


def ends_job(reason: str) -> bool:
    """Whether a dead letter says of its job that it has failed.

    Where the message is not the one that was submitted it does not speak for the job, whose own is sent again.
    """
    return reason not in _OF_THE_MESSAGE


def word(reason: object) -> str:
    """A reason that foreign code gave, if it is one word; else ``handler_error``: it may quote data."""
    return reason if isinstance(reason, str) and _WORD.fullmatch(reason) else HANDLER_ERROR
