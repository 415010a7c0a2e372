"""The arguments of ``airflow-ai policy``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
Least privilege: what each role of a deployment may do, no more than its code does. Nothing is applied: the text goes
to whoever manages rights. No secret is read.

roles, by what the spec is for:

  jobs    submitter, worker, dispatcher, operator (dead letters)
  batch   batch
  call    caller
  all     reader (states and counts), auditor (verify, export), rotator (keys rotate), owner (the tables; SQL only)
"""

_IAM_NOTES = """\
Prints the IAM policy of one role: queues of SQS, folders of S3, keys of KMS, as far as the spec names them. Data keys
are bound to the encryption context (package, tenant, purpose), and everything without TLS is denied.

What the spec does not say must be given: --account for queues and for keys that are named by their id alone, --region
where [transport] and [encryption] name none.

exit codes:
  0  printed
  2  the spec (or the command line) must be corrected, or the role uses nothing at AWS

examples:

  airflow-ai policy iam --role worker jobs.toml --account 123456789012 > worker.json
  aws iam put-role-policy --role-name ai-worker --policy-name ai --policy-document file://worker.json
"""

_SQL_NOTES = """\
Prints a PostgreSQL script that makes a role (NOLOGIN) and grants it what it does, by table and column; it may be run
again. Run it as the owner of the tables, which must be there (`airflow-ai store upgrade`), and then let a login in:
GRANT ai_worker TO the_login. With --tenant the role sees and writes the jobs of one tenant only (row-level security).

The store is the database of [store], the warehouse that of [sink]. The audit's tables are in the store, unless [audit]
names a database of its own: --database audit.

exit codes:
  0  printed
  2  the spec (or the command line) must be corrected, or the role does not use this database

examples:

  airflow-ai policy sql --role worker jobs.toml | psql -1 postgresql://owner@db.example.org/airflow
  airflow-ai policy sql --role submitter --tenant clinic-a jobs.toml
  airflow-ai policy sql --role batch --database warehouse triage.toml
"""


def add_to(patterns: Any) -> None:
    """Add ``policy`` with ``iam`` and ``sql``."""
    policy = add_command(patterns, "policy", "Print the rights that each role needs.", _NOTES)
    commands = policy.add_subparsers(dest="command", metavar="COMMAND", required=True)
    iam = add_command(commands, "iam", "Print a role's IAM policy.", _IAM_NOTES, handler=_iam)
    _add_common(iam)
    iam.add_argument("--account", metavar="ID", help="12 digits of the AWS account of queues and keys")
    iam.add_argument("--region", metavar="REGION", help="region of queues and keys that the spec names none for")
    iam.add_argument("--partition", default="aws", metavar="NAME", help="aws (default), aws-cn, aws-us-gov, …")
    sql = add_command(commands, "sql", "Print a role's GRANTs.", _SQL_NOTES, handler=_sql)
    _add_common(sql)
    sql.add_argument("--database", choices=("store", "audit", "warehouse"), default="store", help="default: store")
    sql.add_argument("--tenant", metavar="NAME", help="the only tenant whose jobs the role sees")
    sql.add_argument("--name", metavar="ROLE", help="the role in PostgreSQL (default: ai_ROLE, or ai_ROLE_TENANT)")
    sql.add_argument("--schema", metavar="NAME", help="of the tables (default: that of [sink], or public)")
    sql.add_argument("--table", metavar="NAME", help="of the warehouse, where the spec has no [sink]")


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("spec", metavar="SPEC.toml", help="a spec of a batch, of a call or of jobs")
    command.add_argument("--role", required=True, metavar="ROLE", help="see `airflow-ai policy --help`")
    add_log_level(command)


def _iam(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import policy

    return policy.iam(arguments)


def _sql(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import policy

    return policy.sql(arguments)
