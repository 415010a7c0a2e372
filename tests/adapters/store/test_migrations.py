"""The store's tables: made at first use, upgraded on request, refused when they are not this package's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from airflow_provider_ai.adapters.store import open_store, schema
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.adapters.store.tables import METADATA, REVISIONS
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.exceptions import StoreError, StoreSchemaError
from tests.adapters.store.conftest import OpenStore
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY

OURS = {*METADATA.tables, REVISIONS.name}


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", "airflow_provider_ai.adapters.store:migrations")
    return made


def at_revision(store: Store, revision: str) -> None:
    """A store as an older package has left it."""
    with store.database.transaction(30) as connection:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)


def tables(store: Store) -> set[str]:
    with store.database.session() as session:
        return session.attempt(lambda connection: set(sa.inspect(connection).get_table_names()))


def use(store: Store) -> None:
    store.gate(CallSettings()).admit("e")


def test_the_known_revisions_are_those_in_the_package() -> None:
    """In order, and one after the other; there is no way down."""
    scripts = list(ScriptDirectory.from_config(config()).walk_revisions())
    assert tuple(script.revision for script in reversed(scripts)) == schema.KNOWN
    assert not any(hasattr(script.module, "downgrade") for script in scripts)


def test_the_first_use_makes_the_tables(opened: OpenStore) -> None:
    """All of them named ai_…, and nothing else."""
    store = opened()
    assert store.revision() is None
    use(store)
    assert store.revision() == schema.HEAD
    assert tables(store) == OURS
    assert all(name.startswith("ai_") for name in OURS)


def test_migrations_make_what_the_code_expects(opened: OpenStore) -> None:
    """Alembic finds no difference between the tables in the database and those in the code."""
    store = opened()
    store.upgrade()
    with store.database.transaction(30) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": REVISIONS.name})
        assert compare_metadata(context, METADATA) == []


def test_older_tables_are_upgraded_only_on_request(opened: OpenStore) -> None:
    """Until then every use says what to run; what they hold stays."""
    store = opened()
    at_revision(store, schema.KNOWN[0])
    for _ in range(2):
        with pytest.raises(StoreSchemaError, match=r"at revision 0001, .* run `airflow-ai store upgrade`"):
            use(store)
    assert store.revision() == "0001"
    store.upgrade()
    store.upgrade()
    use(store)
    assert store.revision() == schema.HEAD


def test_jobs_of_an_older_package_stay(opened: OpenStore) -> None:
    """With their payload and all; they name no deployment, so each looks after them, as before."""
    store = opened()
    at_revision(store, "0004")
    job = {
        **dict.fromkeys(("owner", "payload_codec"), ""),
        **dict.fromkeys(("position", "generation", "fence", "attempts", "abandoned"), 0),
        **dict.fromkeys(("lease_until", "lease_seconds", "submitted_at", "touched_at"), 1.0),
        **dict.fromkeys(("superseded", "sent", "webhook"), False),
        "job_id": "j",
        "submission": "s",
        "state": "pending",
        "payload_sha256": "0" * 64,
        "expires_at": 9e9,
    }
    columns = {name: sa.column(name) for name in job} | {"payload_inline": sa.column("payload_inline", sa.LargeBinary)}
    with store.database.transaction(30) as connection:
        connection.execute(sa.insert(sa.table("ai_jobs", *columns.values())), [{**job, "payload_inline": b"{}"}])
    store.upgrade()
    [found] = store.jobs().unsent(older_than_seconds=1, most=9, queue="any")
    assert (found.job_id, found.queue, found.model, found.payload.inline) == ("j", "", None, b"{}")
    with store.database.transaction(30) as connection:
        names = [column["name"] for column in sa.inspect(connection).get_columns("ai_jobs")]
        kept = {index["name"] for index in sa.inspect(connection).get_indexes("ai_jobs")}
    assert kept == {index.name for index in METADATA.tables["ai_jobs"].indexes}
    large = {"payload_inline", "result_inline"}
    assert store.where.startswith("PostgreSQL") or set(names[-2:]) == large


def test_newer_tables_are_left_alone(opened: OpenStore) -> None:
    """The package says that it is the older one, for use and for an upgrade."""
    store = opened()
    store.upgrade()
    with store.database.transaction(30) as connection:
        connection.execute(sa.update(REVISIONS).values(version_num="9999"))
    other = opened()
    for refused in (lambda: use(other), other.upgrade):
        with pytest.raises(StoreSchemaError, match=r"at revision 9999, which this package .* does not know"):
            refused()
    assert store.revision() == "9999"


def test_tables_of_others_are_left_alone(opened: OpenStore) -> None:
    """Another user of Alembic keeps its version, and it does not mistake ours for its own."""
    store = opened()
    with store.database.transaction(30) as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('3.3.2')")
    use(store)
    with store.database.transaction(30) as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "3.3.2"
    assert tables(store) == OURS | {"alembic_version"}


def test_an_upgrade_that_fails_has_done_nothing(opened: OpenStore) -> None:
    """All revisions are one transaction: a table in the way of the second one undoes the first."""
    store = opened()
    with store.database.transaction(30) as connection:
        connection.exec_driver_sql("CREATE TABLE ai_good_answers (x INTEGER)")
    with pytest.raises(StoreError):
        store.upgrade()
    assert store.revision() is None
    assert tables(store) == {"ai_good_answers"}


@pytest.fixture
def poor_url(postgres_server: PostgresServer, postgres_url: str) -> Iterator[str]:
    """The URL of a role that may connect and nothing else."""
    admin = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE ai_poor LOGIN")
    yield postgres_url.replace("postgres@", "ai_poor@")
    with admin.connect() as connection:
        connection.exec_driver_sql("DROP OWNED BY ai_poor")
        connection.exec_driver_sql("DROP ROLE ai_poor")
    admin.dispose()


def test_a_role_that_may_not_create_tables(poor_url: str, postgres_url: str) -> None:
    """It is told so; once a stronger one has made them and granted their use, it works."""
    store = open_store(poor_url)
    with pytest.raises(StoreError, match="lacks a privilege"):
        use(store)
    owner = open_store(postgres_url)
    owner.upgrade()
    with owner.database.transaction(30) as connection:
        names = ", ".join(sorted(OURS))
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO ai_poor")
    use(store)
    store.close()
    owner.close()


def test_migrations_run_from_an_installed_wheel(tmp_path: Path) -> None:
    """They are in the wheel, and need nothing beside it."""
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    sources = tmp_path / "sources"
    ignore = ["--exclude=__pycache__", "--exclude=*.egg-info"]
    sources.mkdir()
    names = ["airflow_provider_ai", "pyproject.toml", "setup.cfg", "README.md", "LICENSE"]
    packed = subprocess.run(["tar", "-c", *ignore, *names], cwd=REPOSITORY, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=sources, input=packed.stdout, check=True)
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=sources, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    unpacked = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(unpacked)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
        "import airflow_provider_ai.adapters.store as module\n"
        "store = module.open_store('sqlite:///store.db')\n"
        "store.upgrade()\n"
        "print(module.__file__, store.revision())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [str(unpacked / "airflow_provider_ai/adapters/store/__init__.py"), schema.HEAD]
