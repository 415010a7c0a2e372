"""GRANTs as text: names that are quoted, scripts that say what they need, and tables that are the store's."""

from __future__ import annotations

import re

import pytest

from airflow_provider_ai.adapters.sinks.layout import MARKERS as SINKS_MARKERS
from airflow_provider_ai.adapters.store.tables import METADATA
from airflow_provider_ai.adapters.store.tables import REVISIONS as STORES_REVISIONS
from airflow_provider_ai.core.policies.roles import ROLES, Kind, Role, role_of
from airflow_provider_ai.core.policies.sql import MARKERS, store_script, warehouse_script
from airflow_provider_ai.core.policies.store_grants import REVISIONS, TABLES, audit_grants, store_grants
from airflow_provider_ai.exceptions import SpecError

PAIRS = [(kind, role) for kind in ROLES for role in ROLES[kind]]


def test_tables_are_those_of_the_store() -> None:
    """Said twice, for the core knows no adapter: a table that is added must be decided about."""
    assert set(TABLES) == {*METADATA.tables, STORES_REVISIONS.name}
    assert (STORES_REVISIONS.name, SINKS_MARKERS) == (REVISIONS, MARKERS)


@pytest.mark.parametrize(("kind", "role"), PAIRS, ids=str)
def test_columns_are_those_of_the_store(kind: Kind, role: Role) -> None:
    """Likewise."""
    for table, grant in {**store_grants(kind, role), **audit_grants(kind, role)}.items():
        for columns in (grant.select, grant.insert, grant.update):
            named = set() if isinstance(columns, bool) else set(columns)
            assert named <= {column.name for column in METADATA.tables[table].columns}


def script(**options: str) -> str:
    return store_script(Role.WORKER, store_grants("jobs", Role.WORKER), **{"schema": "public", **options})


def test_all_is_taken_away_before_anything_is_granted() -> None:
    """In one transaction: from everyone, and what an older version has granted to the role."""
    lines = script().splitlines()
    assert (lines[1], lines[-1]) == ("BEGIN;", "COMMIT;")
    granted = [number for number, line in enumerate(lines) if line.startswith("GRANT") and "SCHEMA" not in line]
    for table in TABLES:
        taken = lines.index(f'REVOKE ALL ON "public"."{table}" FROM PUBLIC, "ai_worker";')
        assert taken < min(granted)


def test_roles_are_named_by_tenant_and_cannot_log_in() -> None:
    """A login is made a member of one."""
    assert 'CREATE ROLE "ai_worker" NOLOGIN' in script()
    assert 'CREATE ROLE "ai_worker_clinic-a" NOLOGIN' in script(tenant="clinic-a")
    assert 'CREATE ROLE "another" NOLOGIN' in script(name="another")


def test_names_and_tenants_are_quoted() -> None:
    """What is in a name stays a name."""
    found = script(name='a"; DROP TABLE x; --', schema="s'q\"", tenant="o'neil")
    assert 'CREATE ROLE "a""; DROP TABLE x; --" NOLOGIN' in found
    assert '"s\'q"""."ai_jobs"' in found
    assert "(\"tenant\" = 'o''neil')" in found


@pytest.mark.parametrize("name", ["", "x" * 64, "a\nb", "a\\b", "$ai$", "\x00"], ids=repr)
def test_a_name_that_could_become_another_is_refused(name: str) -> None:
    """PostgreSQL cuts long ones off."""
    with pytest.raises(SpecError):
        script(schema=name)


def test_tenants_are_for_roles_that_see_jobs() -> None:
    """Others have no row that is a tenant's."""
    with pytest.raises(SpecError, match="--tenant is for roles that see jobs"):
        store_script(Role.AUDITOR, audit_grants("jobs", Role.AUDITOR), schema="public", tenant="a")


def test_a_role_that_does_not_use_a_database_gets_no_script() -> None:
    """Rather than one that grants nothing and looks as if it did."""
    with pytest.raises(SpecError, match="does not use this database"):
        store_script(Role.BATCH, {}, schema="public")
    with pytest.raises(SpecError, match="does not use the warehouse"):
        warehouse_script(Role.WORKER, schema="public", table="t")


def test_the_owner_gets_the_tables_and_the_right_to_make_more() -> None:
    """And nobody else may make any."""
    found = store_script(Role.OWNER, {}, schema="public")
    assert 'GRANT USAGE, CREATE ON SCHEMA "public" TO "ai_owner";' in found
    assert len(re.findall(r"ALTER TABLE IF EXISTS .* OWNER TO", found)) == len(TABLES)
    assert "GRANT USAGE, CREATE" not in script()


@pytest.mark.parametrize(("name", "kind"), [("batch", "jobs"), ("worker", "batch"), ("caller", "batch"), ("x", "call")])
def test_a_role_must_be_one_of_the_spec_s_pattern(name: str, kind: Kind) -> None:
    """The error names those that there are."""
    with pytest.raises(SpecError, match=r"--role must be one of .*reader, auditor, rotator, owner"):
        role_of(name, kind)
