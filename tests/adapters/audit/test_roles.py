"""Real roles of PostgreSQL: a writer may insert and nothing else, an auditor may read and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from airflow_provider_ai.adapters.audit.event_table import AuditReader, AuditTable
from airflow_provider_ai.adapters.audit.head_places import open_head_place
from airflow_provider_ai.adapters.audit.opening import open_audit_log
from airflow_provider_ai.adapters.audit.signing import HeadVerifier
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit_chain import Row, next_row, start_of
from airflow_provider_ai.core.audit_check import Finding
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.exceptions import AuditError
from airflow_provider_ai.runtime.audit_verify import HeadSource, verify_audit
from tests.adapters.audit.events import ACTOR, event

TABLES = ("ai_audit_events", "ai_audit_heads")
pytestmark = pytest.mark.real


@pytest.fixture
def roles(postgres_url: str) -> Iterator[dict[str, str]]:
    """Role → its URL: ``writer`` and ``auditor`` with what the documentation says that they need, ``stranger`` with
    nothing. The tables are there already."""
    with closing(open_store(postgres_url)) as store:
        store.upgrade()
    names = ("writer", "auditor", "stranger")
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        for name in names:
            owner.execute(f"CREATE ROLE ai_audit_{name} LOGIN")
        owner.execute(f"GRANT INSERT ON {', '.join(TABLES)} TO ai_audit_writer")
        owner.execute(f"GRANT SELECT ON {', '.join(TABLES)}, ai_alembic_version TO ai_audit_auditor")
    yield {name: postgres_url.replace("postgres@", f"ai_audit_{name}@") for name in names}
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        for name in names:
            owner.execute(f"DROP OWNED BY ai_audit_{name}")
            owner.execute(f"DROP ROLE ai_audit_{name}")


@pytest.fixture
def settings(roles: dict[str, str], tmp_path: Path, keys: tuple[str, str]) -> AuditSettings:
    return AuditSettings(store=roles["writer"], hmac_key=b"k" * 32, heads=str(tmp_path / "heads"), signing_key=keys[0])


def refused(url: str, statement: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


def test_insert_is_all_that_a_writer_needs(
    settings: AuditSettings, roles: dict[str, str], keys: tuple[str, str]
) -> None:
    """Events, heads and all; an auditor then verifies them with no right but to read."""
    log = open_audit_log(settings, ACTOR)
    log.append([event(1), event(2)])
    log.append([event(3)])
    log.close()
    found: list[Finding] = []
    with closing(open_store(roles["auditor"], timeout_seconds=30)) as store:
        reader, verifier = AuditReader(store), HeadVerifier([keys[1]])
        place = open_head_place(str(settings.heads))
        for heads in (place, None):
            source = HeadSource(verifier, place=heads, reader=reader, every=True, since="")
            report = verify_audit(reader, source, found=found.append)
            assert (report.events, report.heads, report.unsealed) == (4, 2, 0)
    assert found == []


def test_insert_is_enough_to_settle_a_commit(settings: AuditSettings, roles: dict[str, str]) -> None:
    """Rows that are there already are left alone without being looked at."""
    with closing(open_store(settings.store)) as store:
        table = AuditTable(store)
        row = next_row(start_of("20260101T000000Z-00000000000a"), event(1))
        table.insert([row])
        table.insert_absent([row])
        table.insert_absent([row, next_row(start_of("20260101T000000Z-00000000000b"), event(1))])
        table.close()
    with closing(open_store(roles["auditor"], timeout_seconds=30)) as store:
        assert len([Row(*values) for page in AuditReader(store).pages() for values in page]) == 2


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM {}",
        "SELECT writer FROM {} LIMIT 1",
        "UPDATE {} SET sequence = 1",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
        "ALTER TABLE {} ADD COLUMN x INT",
        "CREATE TRIGGER t BEFORE INSERT ON {} EXECUTE FUNCTION f()",
        "GRANT SELECT ON {} TO PUBLIC",
    ],
)
def test_a_writer_may_do_nothing_else(table: str, statement: str, roles: dict[str, str]) -> None:
    """Neither read what it wrote, nor change it, nor get rid of it."""
    if statement.startswith("GRANT"):  # PostgreSQL warns and grants nothing
        with psycopg.connect(roles["writer"], autocommit=True) as connection:
            connection.execute(statement.format(table))
        assert refused(roles["stranger"], f"SELECT 1 FROM {table}")
        return
    assert refused(roles["writer"], statement.format(table))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement", ["INSERT INTO {} (writer) VALUES ('x')", "UPDATE {} SET sequence = 1", "DELETE FROM {}"]
)
def test_an_auditor_may_only_read(table: str, statement: str, roles: dict[str, str]) -> None:
    """Whoever verifies cannot put anything right."""
    assert refused(roles["auditor"], statement.format(table))
    assert not refused(roles["auditor"], f"SELECT 1 FROM {table}")


def test_a_role_without_rights_cannot_audit(settings: AuditSettings, roles: dict[str, str]) -> None:
    """It is told so, and nothing is done."""
    log = open_audit_log(replace(settings, store=roles["stranger"]), ACTOR)
    with pytest.raises(AuditError, match=r"audit: .* lacks a privilege"):
        log.append([event(1)])
    log.close()
