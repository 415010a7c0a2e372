"""Grants → a PostgreSQL script that may be run again: it takes away all that a role had on these tables, then grants.

The script is for whoever owns the tables. Roles are NOLOGIN: a login is made a member of one. Row-level security goes
by the role, and not by a setting of the session, which anyone could change; the owner of a table is not bound by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from airflow_provider_ai.core.policies.roles import Role
from airflow_provider_ai.core.policies.store_grants import JOBS, REVISIONS, TABLES, TENANT, Columns, Grant
from airflow_provider_ai.exceptions import SpecError

MARKERS = "_ai_publications"
_LONGEST_NAME = 63  # bytes: PostgreSQL cuts longer ones off, and two roles could become one
_UNSEEN = re.compile(r"[\x00-\x1f\x7f]")


def store_script(
    role: Role, grants: Mapping[str, Grant], *, schema: str, name: str | None = None, tenant: str | None = None
) -> str:
    """Of the store.

    :param name: of the role in PostgreSQL; None for ``ai_<role>``, and ``ai_<role>_<tenant>``
    :param tenant: the only one whose jobs the role sees and writes; None for all of them
    """
    name = name or "_".join(["ai", role.value, *([tenant] if tenant else [])])
    if role is Role.OWNER:
        return _script(_owner(name, schema, TABLES))
    if not grants:
        raise SpecError(f"role {role.value!r} does not use this database: it needs no rights on it")
    grants = {REVISIONS: Grant(select=("version_num",)), **grants}
    if tenant is not None and JOBS not in grants:
        raise SpecError(f"--tenant is for roles that see jobs, and {role.value!r} is none of them")
    lines = [*_role(name, schema), *_taken_away(name, schema, TABLES), *_granted(name, schema, grants)]
    if JOBS in grants:
        rows = "true" if tenant is None else f"{_quoted(TENANT)} = {_text(tenant)}"
        lines += _row_security(name, schema, JOBS, rows)
    return _script(lines)


def warehouse_script(role: Role, *, schema: str, table: str, name: str | None = None) -> str:
    """Of the warehouse: the target table, and the markers of its publications."""
    name = name or f"ai_{role.value}"
    tables = (table, MARKERS)
    if role is Role.OWNER:
        return _script(_owner(name, schema, tables))
    if role in (Role.BATCH, Role.SUBMITTER):
        publish = Grant(select=True, insert=True, delete=True)
        grants = dict.fromkeys(tables, publish)
    elif role is Role.READER:
        grants = {table: Grant(select=("_partition",)), MARKERS: Grant(select=True)}
    else:
        raise SpecError(f"role {role.value!r} does not use the warehouse: it needs no rights on it")
    lines = [*_role(name, schema), *_taken_away(name, schema, tables), *_granted(name, schema, grants)]
    if role is not Role.READER:
        lines.append(_temporary(name))
    return _script([*lines, *_row_security(name, schema, MARKERS, f"{_quoted('target_table')} = {_text(table)}")])


_HEAD = "-- For the owner of the tables, who may also create roles; to be run again after every upgrade."


def _script(lines: Iterable[str]) -> str:
    return "\n".join([_HEAD, "BEGIN;", *lines, "COMMIT;", ""])


# --- lines


def _owner(name: str, schema: str, tables: Sequence[str]) -> Iterator[str]:
    yield _made(name)
    yield f"GRANT USAGE, CREATE ON SCHEMA {_quoted(schema)} TO {_quoted(name)};"
    for table in tables:
        yield f"ALTER TABLE IF EXISTS {_table(schema, table)} OWNER TO {_quoted(name)};"


def _role(name: str, schema: str) -> Iterator[str]:
    yield _made(name)
    yield f"REVOKE CREATE ON SCHEMA {_quoted(schema)} FROM PUBLIC;"
    yield f"REVOKE ALL ON SCHEMA {_quoted(schema)} FROM {_quoted(name)};"
    yield f"GRANT USAGE ON SCHEMA {_quoted(schema)} TO {_quoted(name)};"


def _made(name: str) -> str:
    return _block(
        f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {_text(name)}) THEN "
        f"CREATE ROLE {_quoted(name)} NOLOGIN; END IF;"
    )


def _taken_away(name: str, schema: str, tables: Sequence[str]) -> Iterator[str]:
    for table in tables:
        yield f"REVOKE ALL ON {_table(schema, table)} FROM PUBLIC, {_quoted(name)};"


def _granted(name: str, schema: str, grants: Mapping[str, Grant]) -> Iterator[str]:
    for table, grant in grants.items():
        rights = {"SELECT": grant.select, "INSERT": grant.insert, "UPDATE": grant.update, "DELETE": grant.delete}
        words = ", ".join(f"{verb}{_columns(columns)}" for verb, columns in rights.items() if columns)
        yield f"GRANT {words} ON {_table(schema, table)} TO {_quoted(name)};"


def _columns(columns: Columns) -> str:
    return "" if isinstance(columns, bool) else f" ({', '.join(map(_quoted, columns))})"


def _row_security(name: str, schema: str, table: str, rows: str) -> Iterator[str]:
    where = _table(schema, table)
    yield f"ALTER TABLE {where} ENABLE ROW LEVEL SECURITY;"
    yield f"DROP POLICY IF EXISTS {_quoted(name)} ON {where};"
    yield f"CREATE POLICY {_quoted(name)} ON {where} TO {_quoted(name)} USING ({rows}) WITH CHECK ({rows});"


def _temporary(name: str) -> str:
    """What a plan supersedes goes through a temporary table."""
    grant = f"format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), {_text(name)})"
    return _block(f"EXECUTE {grant};")


def _block(text: str) -> str:
    """A DO block, between marks that the text cannot hold: names with control characters or ``$ai$`` are refused."""
    return f"DO $ai$ BEGIN {text} END $ai$;"


def _table(schema: str, name: str) -> str:
    return f"{_quoted(schema)}.{_quoted(name)}"


def _quoted(name: str) -> str:
    if not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise SpecError(f"a name in PostgreSQL must have 1 to {_LONGEST_NAME} bytes, got one of {len(name.encode())}")
    return '"' + _plain(name).replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + _plain(value).replace("'", "''") + "'"


def _plain(text: str) -> str:
    if _UNSEEN.search(text) or "$ai$" in text or "\\" in text:
        raise SpecError(r"a name must hold no control characters, no backslash and no '$ai$'")
    return text
