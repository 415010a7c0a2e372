"""An Airflow connection → the URL of the store. Without the connection ``ai_store``: a SQLite file in AIRFLOW_HOME.

The default is for one machine. Workers on several need a PostgreSQL that all of them reach; it may be the one that
holds Airflow's metadata, as the store's tables are all named ``ai_…``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_ai.hooks.warehouse import says_phi, warehouse_url

DEFAULT_STORE_CONN_ID = "ai_store"
_FILE = "ai_store.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConnection:
    """A store. ``url``: SQLAlchemy URL, password included; ``phi``: health data goes there."""

    url: str = field(repr=False)
    phi: bool = False


def store_url(conn_id: str = DEFAULT_STORE_CONN_ID) -> str:
    """The URL of :func:`store_connection`."""
    return store_connection(conn_id).url


def store_connection(conn_id: str = DEFAULT_STORE_CONN_ID) -> StoreConnection:
    """The store behind a connection.

    :param conn_id: a connection of type ``postgres`` or ``sqlite``, or any with a whole SQLAlchemy URL as host
    :raises SpecError: when the connection gives no URL
    """
    try:
        conn = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        if conn_id != DEFAULT_STORE_CONN_ID:
            raise
        return StoreConnection(url=f"sqlite:///{_home() / _FILE}")
    return StoreConnection(url=warehouse_url(conn).render_as_string(hide_password=False), phi=says_phi(conn))


def _home() -> Path:
    """As Airflow itself finds it."""
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME", "~/airflow"))).expanduser().absolute()
