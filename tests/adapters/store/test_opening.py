"""Opening a store: which URLs, when it connects, what it makes, and what it never says."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.exceptions import SpecError, StoreError, StoreUnavailableError
from tests.adapters.store.conftest import OpenStore
from tests.support.processes import REPOSITORY, free_port

SECRET = "tops3cret"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "must name a SQLite file"),
        ("sqlite:///:memory:", "must name a SQLite file"),
        ("sqlite:///file:x?mode=memory&uri=true", "must name a SQLite file"),
        (f"mysql://u:{SECRET}@db/x", "must begin with sqlite: or postgresql:, got 'mysql'"),
        (f"no url {SECRET}", "cannot be parsed"),
        (f"postgresql://u:{SECRET}@db:port/x", "cannot be parsed"),
    ],
)
def test_urls_that_cannot_be_used(url: str, words: str) -> None:
    """Refused at once, in words that carry no password."""
    with pytest.raises(SpecError, match=words) as caught:
        open_store(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_name_of_postgresql_means_psycopg_3(driver: str) -> None:
    """Whatever the URL says, as those of Airflow connections differ."""
    store = open_store(f"{driver}://u:{SECRET}@db.example.org/x")
    assert store.where == "PostgreSQL store at db.example.org:5432"
    assert SECRET not in repr(store) + repr(store.database) + repr(vars(store.database)["_engine"])


def test_opening_touches_nothing(tmp_path: Path) -> None:
    """Neither file nor folder, before the first session."""
    open_store(f"sqlite:///{tmp_path}/new/store.db").gate(CallSettings())
    assert list(tmp_path.iterdir()) == []


def test_what_it_makes_is_its_owners_only(tmp_path: Path) -> None:
    """The file and its companions."""
    store = open_store(f"sqlite:///{tmp_path}/new/store.db")
    store.gate(CallSettings()).admit("e")
    files = sorted((tmp_path / "new").iterdir())
    assert [file.name for file in files] == ["store.db", "store.db-shm", "store.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_call_needs_neither_alembic_nor_postgresql(tmp_path: Path) -> None:
    """Nor Airflow, nor numpy: what is not needed is not imported, once the tables are there."""
    url = f"sqlite:///{tmp_path}/store.db"
    open_store(url).upgrade()
    code = (
        "import sys\n"
        "from airflow_provider_ai.adapters.store import open_store\n"
        "from airflow_provider_ai.core.call_settings import CallSettings\n"
        f"assert open_store({url!r}).gate(CallSettings()).admit('e').refused is None\n"
        "heavy = ('airflow', 'alembic', 'numpy', 'pydantic', 'psycopg', 'sqlalchemy.orm', 'pyarrow')\n"
        "print(*[name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


def test_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """An error that says what to look at, without the password."""
    store = open_store(f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x")
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreUnavailableError, match="connection refused") as caught:
        store.gate(CallSettings()).admit("e")
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text + repr(store)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.write_text("this is no database, " * 100), "not a SQLite database"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
)
def test_a_file_that_cannot_be_used(prepare: Any, words: str, tmp_path: Path) -> None:
    """Its reason, in our words."""
    path = tmp_path / "store.db"
    prepare(path)
    with pytest.raises(StoreError, match=words):
        open_store(f"sqlite:///{path}").gate(CallSettings()).admit("e")


def test_a_folder_that_cannot_be_made() -> None:
    """Nothing can be made in ``/proc``."""
    with pytest.raises(StoreError, match="the file cannot be made"):
        open_store("sqlite:////proc/new/store.db").gate(CallSettings()).admit("e")


def test_a_file_that_others_use_becomes_wal(tmp_path: Path) -> None:
    """The store may move into a database that is there already, beside the tables of others."""
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("INSERT INTO alembic_version VALUES ('someone else''s')")
    open_store(f"sqlite:///{path}").gate(CallSettings()).admit("e")
    assert other.execute("SELECT version_num FROM alembic_version").fetchall() == [("someone else's",)]
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_child_process_has_connections_of_its_own(opened: OpenStore) -> None:
    """One that was forked with a store in use uses it like any other process, and so does the parent."""
    store = opened()
    gate = store.gate(CallSettings(max_concurrent_calls=2))
    mine = gate.admit("e")

    def child() -> None:
        admission = gate.admit("e")
        ok = (admission.slot, gate.admit("e").refused) == (1, "bulkhead_full")
        os._exit(0 if ok else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert gate.admit("e").refused == "bulkhead_full"
    assert mine.slot == 0
