"""An Airflow connection of a warehouse becomes a SQLAlchemy URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import BaseHook
from sqlalchemy import create_engine, text

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.warehouse import sink_settings, warehouse_url


def url_of(set_connection: Callable[..., None], **fields: Any) -> str:
    set_connection("warehouse", **fields)
    return warehouse_url(BaseHook.get_connection("warehouse")).render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (
            {"conn_type": "postgres", "host": "db", "port": 5433, "login": "u", "password": "p@/:", "schema": "lake"},
            "postgresql://u:p%40%2F%3A@db:5433/lake",
        ),
        (  # what the postgres provider's own URL would drop
            {
                "conn_type": "postgres",
                "host": "db",
                "schema": "lake",
                "extra": {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem", "cursor": "dictcursor"},
            },
            "postgresql://db/lake?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
        ),
        ({"conn_type": "sqlite", "host": "/data/w.db"}, "sqlite:////data/w.db"),
        ({"conn_type": "duckdb", "host": "/data/w.duckdb"}, "duckdb:////data/w.duckdb"),
        ({"conn_type": "generic", "host": "duckdb:////data/w.duckdb"}, "duckdb:////data/w.duckdb"),
        (
            {"conn_type": "generic", "host": "mysql+pymysql://db/lake", "login": "u", "password": "p"},
            "mysql+pymysql://u:p@db/lake",
        ),
        (  # through the hook of its own connection type
            {"conn_type": "redshift", "host": "db", "port": 5439, "login": "u", "password": "p", "schema": "lake"},
            "postgresql://u:p@db:5439/lake",
        ),
    ],
)
def test_urls(fields: dict[str, Any], url: str, set_connection: Callable[..., None]) -> None:
    """Password included and escaped; TLS settings kept."""
    assert url_of(set_connection, **fields) == url


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "sqlite", "host": "w.db"}, "must be the absolute path of the sqlite file"),
        ({"conn_type": "duckdb"}, "must be the absolute path of the duckdb file"),
        ({"conn_type": "http", "host": "db"}, "gives no SQLAlchemy URL; put the whole URL into its host field"),
    ],
)
def test_what_cannot_be_told_is_refused(
    fields: dict[str, Any], message: str, set_connection: Callable[..., None]
) -> None:
    """The message names the connection and what to put where."""
    with pytest.raises(SpecError, match="connection 'warehouse'") as error:
        url_of(set_connection, **fields)
    assert message in str(error.value)


def test_a_sink_does_not_show_its_password(set_connection: Callable[..., None]) -> None:
    """Table and schema come from the operator, the URL from the connection."""
    set_connection("warehouse", conn_type="postgres", host="db", login="u", password="s3cr3t-value", schema="lake")
    sink = sink_settings("warehouse", "risk_scores", "ml")
    assert (sink.table, sink.schema) == ("risk_scores", "ml")
    assert "s3cr3t-value" in sink.url
    assert "s3cr3t-value" not in repr(sink)


def test_a_postgres_connection_really_connects(postgres_url: str, set_connection: Callable[..., None]) -> None:
    """The URL is one that a driver accepts, extras included."""
    from sqlalchemy.engine import make_url

    parts = make_url(postgres_url)
    fields = {"host": parts.host, "port": parts.port, "login": parts.username, "schema": parts.database}
    url = make_url(
        url_of(
            set_connection,
            conn_type="postgres",
            extra={"sslmode": "disable", "application_name": "sink", "connect_timeout": 5},
            **fields,
        )
    )
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_setting('application_name')")).scalar() == "sink"
    engine.dispose()
