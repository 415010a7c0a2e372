"""What happens to jobs, written down by the store itself: triggers on its table, so no process can forget to say it.

Rows are written in the transaction of the statement that causes them: what the database loses, it loses from both.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa

from airflow_provider_ai.core.jobs import JobState

_FINAL = ", ".join(f"'{state.value}'" for state in JobState if state.final)
_TABLES = (
    "CREATE TABLE faults_claims (job_id TEXT, fence BIGINT, owner TEXT, before TEXT, owner_before TEXT)",
    "CREATE TABLE faults_endings (job_id TEXT, state TEXT, result TEXT)",
)
_CLAIMED = "NEW.state = 'running' AND NEW.fence > OLD.fence"
_ENDED = (
    f"NEW.state IN ({_FINAL}) AND (OLD.state NOT IN ({_FINAL}) OR NEW.state <> OLD.state "
    "OR coalesce(NEW.result_sha256, '') <> coalesce(OLD.result_sha256, ''))"
)
_CLAIM = "INSERT INTO faults_claims VALUES (NEW.job_id, NEW.fence, NEW.owner, OLD.state, OLD.owner)"
_ENDING = "INSERT INTO faults_endings VALUES (NEW.job_id, NEW.state, NEW.result_sha256)"
_SQLITE = "CREATE TRIGGER {name} AFTER UPDATE ON ai_jobs WHEN {when} BEGIN {then}; END"
_POSTGRESQL = (
    "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {then}; RETURN NEW; END $$",
    "CREATE TRIGGER {name} AFTER UPDATE ON ai_jobs FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A granted claim. ``before``: the job's state until then, ``owner_before`` who had it."""

    job_id: str
    fence: int
    owner: str
    before: str
    owner_before: str


class Ledger:
    """On a store whose tables are made. ``url``: as the product has it."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
        forms = (_SQLITE,) if self._engine.dialect.name == "sqlite" else _POSTGRESQL
        with self._engine.begin() as connection:
            for statement in _TABLES:
                connection.exec_driver_sql(statement)
            for name, when, then in (("faults_claimed", _CLAIMED, _CLAIM), ("faults_ended", _ENDED, _ENDING)):
                for form in forms:
                    connection.exec_driver_sql(form.format(name=name, when=when, then=then))

    def claims(self) -> list[Claim]:
        """Every claim that was granted."""
        return [Claim(*row) for row in self._rows("SELECT * FROM faults_claims")]

    def endings(self) -> Counter[str]:
        """How often an outcome was recorded, by job."""
        return Counter(row[0] for row in self._rows("SELECT job_id FROM faults_endings"))

    def held_by(self, pid: int) -> set[tuple[str, int]]:
        """Jobs that a process has, with the fences it has them under."""
        rows = self._rows("SELECT job_id, fence, owner FROM ai_jobs WHERE state = 'running'")
        return {(job_id, fence) for job_id, fence, owner in rows if pid_of(owner) == pid}

    def _rows(self, statement: str) -> list[tuple[str, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]


def pid_of(owner: str) -> int | None:
    """The process that an owner's name belongs to."""
    parts = owner.split(":")
    return int(parts[1]) if len(parts) == 3 and parts[0] == os.uname().nodename else None
