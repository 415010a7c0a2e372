"""An error of this package → what Airflow does next: fail for good, or retry.

Invariant: the text of an error this package did not write never leaves the task, because it may quote a record.
What is raised has no cause and no context, so nothing of the original is printed with it.
"""

from __future__ import annotations

import logging
import traceback

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowNotFoundException
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_ai.exceptions import (
    AIProviderError,
    CorruptCheckpointError,
    EncryptionError,
    InputChangedError,
    InputError,
    JobMismatchError,
    KeyAccessError,
    KeyUnavailableError,
    QuarantineThresholdError,
    QueueError,
    QueueUnavailableError,
    ReconciliationError,
    SinkError,
    SinkUnavailableError,
    SpecError,
)

log = logging.getLogger(__name__)

# A retry of the same task meets the same wall.
FINAL = (
    SpecError,
    InputError,
    CorruptCheckpointError,
    QuarantineThresholdError,
    SinkError,
    ReconciliationError,
    JobMismatchError,
    QueueError,
    EncryptionError,
)
# But not these of them: what is down comes back.
TEMPORARY = (SinkUnavailableError, QueueUnavailableError, KeyUnavailableError)

# The messages say what happened and what would help; this says where to click. The first class that fits.
ADVICE: tuple[tuple[type[AIProviderError], str], ...] = (
    (SpecError, "correct the DAG or the connection, then clear this task."),
    (InputChangedError, "run it with param ai_verb=recompute."),
    (InputError, "once the data are right, clear the group from its plan task on."),
    (
        QuarantineThresholdError,
        "run it with param ai_verb=retry_failed, or raise max_quarantined_fraction and clear this task.",
    ),
    (SinkUnavailableError, "retries go on by themselves; after the last one, clear this task."),
    (SinkError, "once the table and the grants are right, clear this task."),
    (
        JobMismatchError,
        "put the requests back as they were and clear this task, or start a new run, or another generation.",
    ),
    (KeyUnavailableError, "retries go on by themselves; after the last one, clear this task."),
    (KeyAccessError, "once the key can be used, clear this task; it goes on where it stopped."),
    (EncryptionError, "once the stored data are right, clear this task."),
    (QueueUnavailableError, "retries go on by themselves; after the last one, clear this task."),
    (QueueError, "once the queues and the rights are right, clear this task."),
    (ReconciliationError, "clear the publish task and the tasks after it; they call no model."),
)


def airflow_error(error: Exception) -> Exception:
    """What to raise in place of ``error``. Raise it outside of the handler, so that no context sticks to it."""
    if isinstance(error, AirflowNotFoundException):
        return AirflowFailException(f"{error}. Create the connection, then clear this task; a retry cannot help.")
    if isinstance(error, AirflowException | AirflowRuntimeError):
        return error
    if isinstance(error, ImportError):
        return AirflowFailException(f"{error}. Install it on the workers, then clear this task; a retry cannot help.")
    if isinstance(error, AIProviderError):
        final = isinstance(error, FINAL) and not isinstance(error, TEMPORARY)
        return (AirflowFailException if final else AirflowException)(_with_advice(error))
    for frame in traceback.extract_tb(error.__traceback__):
        log.error("  at %s:%s in %s", frame.filename, frame.lineno, frame.name)
    return AirflowException(
        f"unexpected {type(error).__name__}, raised where the log above says; its text is withheld because it may "
        "quote a record; a retry resumes"
    )


def _with_advice(error: AIProviderError) -> str:
    text = str(error)
    for kind, advice in ADVICE:
        if isinstance(error, kind):
            return f"{text}{'' if text.endswith('.') else '.'} In Airflow: {advice}"
    return text
