"""What data keys are for. Each purpose has its own, and KMS is told it, so that policies can grant some of them."""

from __future__ import annotations

from typing import Final

CHECKPOINT: Final = "checkpoint"  # logs, segments and plans of batches; plans of submitted datasets
JOB_PAYLOAD: Final = "job-payload"  # submitters encrypt, workers decrypt; landing the replies of a dataset does, too
JOB_RESULT: Final = "job-result"  # workers encrypt, whoever collects decrypts
DEAD_LETTER: Final = "dead-letter"  # dispatchers and webhook receivers encrypt, `airflow-ai dlq` decrypts
GOOD_ANSWER: Final = "good-answer"  # synchronous calls
OUTPUT: Final = "output"  # synchronous calls with an output_uri encrypt, later tasks decrypt
HASH_KEY: Final = "hash-key"  # the wrapped hash key, if there is one: everybody decrypts
TEST: Final = "test"  # the Test button and `airflow-ai keys status`
PURPOSES: Final = (CHECKPOINT, JOB_PAYLOAD, JOB_RESULT, DEAD_LETTER, GOOD_ANSWER, OUTPUT, HASH_KEY, TEST)


def of_job(kind: str) -> str:
    """The purpose of a ``payload`` or a ``result``."""
    return f"job-{kind}"
