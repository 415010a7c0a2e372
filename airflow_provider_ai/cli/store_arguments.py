"""The arguments of ``airflow-ai store``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
The store holds what processes share: circuit breakers, bulkheads, last good answers, and the jobs and the inbox of the
asynchronous pattern. A new one makes its tables by
itself at first use; one that an older version of this package has made is upgraded by `airflow-ai store upgrade`.
"""

_UPGRADE_NOTES = """\
Brings the tables to this version's revision, in one transaction; safe while others use the store or do the same. There
is no way back, and older versions of this package no longer use the store after that: upgrade all of them.

The role needs the right to create tables. libpq's own PGPASSWORD and ~/.pgpass keep a password out of the command line.

exit codes:
  0  the tables are as this version needs them
  1  failed: the message says why; the tables are as they were
  2  the spec (or the command line) must be corrected

examples:

  airflow-ai store upgrade triage.toml                                     # the [store] of a spec
  airflow-ai store upgrade --store postgresql://ai@db.example.org/airflow
  airflow-ai store upgrade --store sqlite:////opt/airflow/ai_store.db
"""

_STATUS_NOTES = """\
Shows the revision of the tables, each endpoint's circuit breaker and bulkhead, how many good answers are kept, how many
jobs there are in each state, how many of their outcomes have arrived in the inbox, and, by reason, how many dead
letters and replies that belong to no job. Changes nothing.

exit codes:
  0  this version can use the store
  1  it cannot: there is none yet, its tables are older or newer, or it does not answer
  2  the spec (or the command line) must be corrected

example:

  airflow-ai store status triage.toml --json | jq '.endpoints[] | select(.state != "closed")'
"""


def add_to(patterns: Any) -> None:
    """Add ``store`` with ``upgrade`` and ``status``."""
    store = add_command(patterns, "store", "The store: upgrade its tables, or see what stands in it.", _NOTES)
    commands = store.add_subparsers(dest="command", metavar="COMMAND", required=True)
    upgrade = add_command(commands, "upgrade", "Upgrade the store's tables.", _UPGRADE_NOTES, handler=_upgrade)
    _add_place(upgrade)
    status = add_command(commands, "status", "Show what stands in the store.", _STATUS_NOTES, handler=_status)
    _add_place(status)
    status.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _add_place(command: argparse.ArgumentParser) -> None:
    place = command.add_mutually_exclusive_group(required=True)
    place.add_argument("spec", metavar="SPEC.toml", nargs="?", help="a spec with a [store]")
    place.add_argument("--store", metavar="URL", help="SQLAlchemy URL, sqlite:///PATH or postgresql://…")
    add_log_level(command)


def _upgrade(arguments: argparse.Namespace, runtime: None) -> int:
    from airflow_provider_ai.cli import store

    return store.upgrade(arguments)


def _status(arguments: argparse.Namespace, runtime: None) -> int:
    from airflow_provider_ai.cli import store

    return store.status(arguments)
