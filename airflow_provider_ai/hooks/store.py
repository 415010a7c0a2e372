"""The Airflow connection of the store → its SQLAlchemy URL.

Nobody has to make one to begin with: without a connection ``ai_store`` the store is an SQLite file in AIRFLOW_HOME,
which all task processes of one machine share. The URL may hold a password: it goes to the store and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sqlalchemy.engine import URL

from airflow_provider_ai.hooks.warehouse import warehouse_url

DEFAULT_STORE_CONN_ID = "ai_store"


def store_url(conn_id: str = DEFAULT_STORE_CONN_ID) -> str:
    """The URL of the store behind a connection, password included."""
    try:
        url = warehouse_url(BaseHook.get_connection(conn_id))
    except AirflowNotFoundException:
        if conn_id != DEFAULT_STORE_CONN_ID:
            raise
        url = _in_airflow_home()
    return url.render_as_string(hide_password=False)


def _in_airflow_home() -> URL:
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    return URL.create("sqlite", database=str(home / "ai_store.db"))
