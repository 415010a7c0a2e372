"""The arguments of ``airflow-ai dlq``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
Dead letters: messages that could not be dealt with, each with a reason. A dispatcher takes them out of their queue,
ends their jobs as failed, and keeps them in the store; what it has not taken yet is shown from the queue. Nothing here
shows a payload.
"""

_LIST_NOTES = """\
stdout: one JSON object a letter with letter_id, job_id, reason, source (the queue it was in), place (store or queue)
and received_at; then one with the counts: letters (in the store), queued (seen in the queue) and reasons.

exit codes:
  0  shown
  1  store or queue do not answer
  2  the spec (or the command line) must be corrected
"""

_SHOW_NOTES = """\
stdout: one JSON object a letter: what `dlq list` says of it, how many bytes it has, and how its job stands.

exit codes:
  0  shown
  1  there is no such letter, or the store does not answer
  2  the spec (or the command line) must be corrected
"""

_REDRIVE_NOTES = """\
Has the jobs of dead letters done once more: each becomes a new job of the next generation, with no attempts and as much
time as the old one had, and its letter goes. Letters of replies, of messages that name no job, and of jobs that are
open or succeeded stay.

Safe to run again: a job has one successor, and what was not sent is sent.

stdout: one JSON object with letters (that were chosen), jobs, sent and skipped.

exit codes:
  0  done
  1  store or queue do not answer: run the same command again
  2  the spec (or the command line) must be corrected

examples:

  airflow-ai dlq redrive jobs.toml --all
  airflow-ai dlq redrive jobs.toml --reason server_error
  airflow-ai dlq redrive jobs.toml --id 0b0a4d1e-6a0a-5a8e-9d0c-5f6f2f1c9f11
"""

_PURGE_NOTES = """\
Throws dead letters away, those in the queue too. Their jobs stay failed. Asks first, unless --yes.

stdout: one JSON object with purged.

exit codes: as of `dlq redrive`.
"""


def add_to(patterns: Any) -> None:
    """Add ``dlq`` with ``list``, ``show``, ``redrive`` and ``purge``."""
    dlq = add_command(patterns, "dlq", "Look at dead letters, and deal with them.", _NOTES)
    commands = dlq.add_subparsers(dest="command", metavar="COMMAND", required=True)
    listed = _add(commands, "list", "Show dead letters and their reasons.", _LIST_NOTES)
    listed.add_argument("--reason", metavar="WORD", help="only those with this reason")
    listed.add_argument("--most", type=int, metavar="N", default=100, help="letters shown (default: 100)")
    shown = _add(commands, "show", "Show what is known of a dead letter.", _SHOW_NOTES)
    shown.add_argument("id", metavar="ID", help="of a letter or a job")
    _choosing(_add(commands, "redrive", "Have jobs of dead letters done once more.", _REDRIVE_NOTES))
    purged = _add(commands, "purge", "Throw dead letters away.", _PURGE_NOTES)
    _choosing(purged)
    purged.add_argument("--yes", action="store_true", help="do not ask")


def _add(commands: Any, name: str, description: str, notes: str) -> argparse.ArgumentParser:
    command = add_command(commands, name, description, notes, handler=_run)
    command.add_argument("spec", metavar="SPEC.toml", help="transport and store")
    add_log_level(command)
    return command


def _choosing(command: argparse.ArgumentParser) -> None:
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="all dead letters")
    which.add_argument("--reason", metavar="WORD", help="those with this reason")
    which.add_argument("--id", dest="ids", metavar="ID", nargs="+", help="of letters or jobs")


def _run(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import dlq

    return dlq.run(arguments, runtime)
