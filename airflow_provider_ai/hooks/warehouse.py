"""An Airflow connection of a warehouse → :class:`SinkSettings` with a SQLAlchemy URL.

PostgreSQL keeps the TLS settings of the connection's extras, which the postgres provider's own URL drops. SQLite and
DuckDB are files named by ``host``. Every other type is asked for its URL through its own hook. The URL may hold a
password: it goes to the sink and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook, Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.extras import boolean

# Connection parameters of libpq that an Airflow connection carries as extras.
LIBPQ_EXTRAS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslpassword",
    "channel_binding",
    "connect_timeout",
    "application_name",
    "options",
    "target_session_attrs",
)


def sink_settings(conn_id: str, table: str, schema: str | None = None) -> SinkSettings:
    """The sink behind an Airflow connection. SpecError when its URL cannot be told."""
    conn = BaseHook.get_connection(conn_id)
    url = warehouse_url(conn).render_as_string(hide_password=False)
    return SinkSettings(url=url, table=table, schema=schema, phi=says_phi(conn))


def says_phi(conn: Connection) -> bool:
    """Whether the connection's extras say ``"phi": true``: health data goes there."""
    try:
        return boolean(conn.extra_dejson.get("phi", False))
    except ValueError as error:
        raise SpecError(f"connection {conn.conn_id!r}: extra 'phi' {error}") from None


def warehouse_url(conn: Connection) -> URL:
    """The connection's SQLAlchemy URL, password included."""
    if "://" in (conn.host or ""):
        return _given(conn)
    return _BY_TYPE.get(conn.conn_type or "", _from_hook)(conn)


def _given(conn: Connection) -> URL:
    """``host`` is a whole SQLAlchemy URL; login and password may stand in their own fields."""
    try:
        url = make_url(conn.host or "")
    except ArgumentError:
        raise SpecError(f"connection {conn.conn_id!r}: host must be a SQLAlchemy URL or a host name") from None
    return url.set(username=conn.login or url.username, password=conn.password or url.password)


def _postgres(conn: Connection) -> URL:
    extras: Mapping[str, Any] = conn.extra_dejson
    tls = {name: str(extras[name]) for name in LIBPQ_EXTRAS if extras.get(name) not in (None, "")}
    if extras.get("iam"):
        return _from_hook(conn).update_query_dict(tls)
    return URL.create(
        "postgresql",
        username=conn.login or None,
        password=conn.password or None,
        host=conn.host or None,
        port=conn.port,
        database=conn.schema or None,
        query=tls,
    )


def _file(conn: Connection) -> URL:
    """A database file. Relative paths are refused: every worker has another working directory."""
    path = conn.host or conn.schema or ""
    if not PurePath(path).is_absolute():
        raise SpecError(f"connection {conn.conn_id!r}: host must be the absolute path of the {conn.conn_type} file")
    return URL.create(str(conn.conn_type), database=path)


def _from_hook(conn: Connection) -> URL:
    """What the connection type's own hook says."""
    hook: Any = conn.get_hook()  # type: ignore[no-untyped-call]
    try:
        return make_url(hook.sqlalchemy_url)
    except (NotImplementedError, AttributeError):
        pass  # Not every DbApiHook has it; get_uri is the older way.
    try:
        return make_url(hook.get_uri())
    except (AttributeError, ArgumentError):
        raise SpecError(
            f"connection {conn.conn_id!r} of type {conn.conn_type!r} gives no SQLAlchemy URL; "
            "put the whole URL into its host field"
        ) from None


_BY_TYPE: Mapping[str, Callable[[Connection], URL]] = {"postgres": _postgres, "sqlite": _file, "duckdb": _file}
