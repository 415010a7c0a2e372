"""The arguments of ``airflow-ai queues``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
The queues of the asynchronous pattern: requests, results, and dead letters for both.
"""

_CREATE_NOTES = """\
Makes the queues (or topics) of [transport], or of an Airflow connection, that are not there yet:

  request_queue      visibility timeout as in [worker]; a message becomes a dead letter after max_receives deliveries
  result_queue       visibility timeout as in [dispatcher]; a reply becomes a dead letter after 1000 deliveries
  dead_letter_queue  kept for 14 days, the others for 4: a dead letter keeps the time at which it was first sent

All are encrypted at rest (by SQS's own key, or by kms_key_id), hold up to 1 MiB a message, and beyond this machine
refuse everyone who comes without TLS. With --print nothing is made: the text is for Terraform or CloudFormation.

Safe to run again. A queue that is there with other attributes is left as it is and reported, with what differs.

stdout: one JSON object with each queue's name, role and state (created, exists or differs), or the text of --print.

exit codes:
  0  all queues are there as they should be
  3  one or more are there with other attributes
  1  the service does not answer or refuses: run the same command again
  2  the spec (or the command line) must be corrected

examples:

  airflow-ai queues create jobs.toml
  airflow-ai queues create --conn ai_jobs                      # for workers with the default visibility timeout
  airflow-ai queues create jobs.toml --print terraform > queues.tf
"""


def add_to(patterns: Any) -> None:
    """Add ``queues`` with ``create``."""
    queues = add_command(patterns, "queues", "Make the queues of the asynchronous pattern.", _NOTES)
    commands = queues.add_subparsers(dest="command", metavar="COMMAND", required=True)
    create = add_command(commands, "create", "Make the queues that are missing.", _CREATE_NOTES, handler=_create)
    place = create.add_mutually_exclusive_group(required=True)
    place.add_argument("spec", metavar="SPEC.toml", nargs="?", help="a spec with a [transport]")
    place.add_argument("--conn", metavar="ID", help="an Airflow connection of type ai_jobs, asked of the Airflow here")
    formats = ("terraform", "cloudformation")
    create.add_argument("--print", dest="template", choices=formats, help="print a template, make nothing")
    add_log_level(create)


def _create(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import queues

    return queues.create(arguments)
