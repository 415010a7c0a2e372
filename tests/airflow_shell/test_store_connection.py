"""An Airflow connection, or none at all, becomes the URL of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.store import store_url


def test_without_a_connection_it_is_a_file_in_airflows_home(airflow_home: Path) -> None:
    """Nothing has to be configured on one machine."""
    assert store_url() == f"sqlite:///{airflow_home}/ai_store.db"
    assert open_store(store_url()).where == f"SQLite store {airflow_home}/ai_store.db"


def test_a_connection_that_was_named_must_exist() -> None:
    """A misspelled one must not silently become a file."""
    with pytest.raises(AirflowNotFoundException):
        store_url("ai_stroe")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (
            {"conn_type": "postgres", "host": "db", "login": "u", "password": "p@", "schema": "airflow",
             "extra": {"sslmode": "verify-full", "cursor": "dictcursor"}},
            "postgresql://u:p%40@db/airflow?sslmode=verify-full",
        ),
        ({"conn_type": "sqlite", "host": "/data/ai_store.db"}, "sqlite:////data/ai_store.db"),
        ({"conn_type": "generic", "host": "postgresql+psycopg://db/airflow"}, "postgresql+psycopg://db/airflow"),
    ],
)  # fmt: skip
def test_urls(fields: dict[str, Any], url: str, set_connection: Callable[..., None]) -> None:
    """As for a warehouse; the store can be opened with each."""
    set_connection("ai_store", **fields)
    assert store_url() == url
    open_store(url)


def test_a_relative_file_is_refused(set_connection: Callable[..., None]) -> None:
    """Every worker has another working directory."""
    set_connection("ai_store", conn_type="sqlite", host="ai_store.db")
    with pytest.raises(SpecError, match="absolute path"):
        store_url()
