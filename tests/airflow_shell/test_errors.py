"""Which errors end a task for good, and that none of them carries foreign text."""

from __future__ import annotations

import logging

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from airflow_provider_ai import exceptions
from airflow_provider_ai.operators.errors import ADVICE, airflow_error

# The one list of what a retry can help; everything else ends the task at once.
RETRYABLE = {
    exceptions.AIProviderError,
    exceptions.AuditError,
    exceptions.AuditUnavailableError,
    exceptions.CheckpointError,
    exceptions.CheckpointWriteError,
    exceptions.ClaimCheckError,
    exceptions.ClaimCheckUnavailableError,
    exceptions.EndpointUnavailableError,
    exceptions.KeyUnavailableError,
    exceptions.PartitionBusyError,
    exceptions.QueueUnavailableError,
    exceptions.SinkUnavailableError,
    exceptions.StoppedError,
    exceptions.StoreError,
    exceptions.StoreSchemaError,
    exceptions.StoreUnavailableError,
}
OURS = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)]
# Of messages, and made in another way; no task raises them by themselves.
OF_MESSAGES = {exceptions.MessagesRefusedError, exceptions.UndecodableMessageError}


@pytest.mark.parametrize("kind", [kind for kind in OURS if kind not in OF_MESSAGES], ids=lambda kind: kind.__name__)
def test_every_error_is_mapped(kind: type[Exception]) -> None:
    """Retried only when a retry can help; the message is kept and advice follows it in a sentence of its own."""
    mapped = airflow_error(kind("the message"))
    assert isinstance(mapped, AirflowException)
    assert isinstance(mapped, AirflowFailException) == (kind not in RETRYABLE)
    assert str(mapped).startswith("the message")
    assert ".." not in str(mapped)
    assert str(airflow_error(kind("the message."))).startswith("the message.")


def test_advice_is_for_the_nearest_class() -> None:
    """A changed input has advice of its own although it is an input error."""
    changed, missing = (str(airflow_error(kind("x"))) for kind in (exceptions.InputChangedError, exceptions.InputError))
    assert "ai_verb=recompute" in changed
    assert "recompute" not in missing
    kinds = [kind for kind, _ in ADVICE]
    assert all(not issubclass(later, earlier) for i, earlier in enumerate(kinds) for later in kinds[i + 1 :])


def test_foreign_text_is_withheld(caplog: pytest.LogCaptureFixture) -> None:
    """A library's error may quote a row: neither the exception nor the log repeats it, but the place is told."""

    def failing() -> None:
        raise ValueError("patient 4711")

    try:
        failing()
    except ValueError as error:
        with caplog.at_level(logging.ERROR):
            mapped = airflow_error(error)
    assert "4711" not in str(mapped) + caplog.text
    assert "ValueError" in str(mapped)
    assert "in failing" in caplog.text
    assert not isinstance(mapped, AirflowFailException)


def test_a_missing_connection_is_not_retried() -> None:
    """It names the connection and what to do."""
    mapped = airflow_error(AirflowNotFoundException("The conn_id `risk_model` isn't defined"))
    assert isinstance(mapped, AirflowFailException)
    assert "risk_model" in str(mapped)
    assert "Create the connection" in str(mapped)


def test_a_missing_library_is_named() -> None:
    """That text is ours to show, and no retry installs anything."""
    mapped = airflow_error(ModuleNotFoundError("No module named 'adbc_driver_postgresql'"))
    assert isinstance(mapped, AirflowFailException)
    assert "adbc_driver_postgresql" in str(mapped)


def test_airflows_own_errors_pass_through() -> None:
    """Skips, fails and the like keep their meaning."""
    error = AirflowFailException("mine")
    assert airflow_error(error) is error
