"""The arguments of ``airflow-ai batch``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

if TYPE_CHECKING:
    from airflow_provider_ai.cli.batch import BatchRuntime

EXAMPLE = """\
example: save this as nightly.toml, then run `airflow-ai batch run nightly.toml`

  [input]
  uri = "visits/*.parquet"              # file, folder or glob; local or s3://
  id_column = "visit_id"                # unique and never null
  columns = ["age", "pulse"]            # what the model is sent

  [endpoint]
  url = "http://127.0.0.1:8080"
  protocol = "json"                     # json | open-inference[-grpc] | openai-chat | openai-embeddings
  model = "risk"

  [checkpoint]
  uri = "checkpoints/"                  # where finished records are kept

  [sink]
  url = "duckdb:///warehouse.duckdb"    # any SQLAlchemy URL
  table = "risk_scores"

Paths are relative to the spec's folder.
"""

_RUN_NOTES = """\
verbs:
  --resume         call what is not finished yet, then publish (the default; free when all is done)
  --retry-failed   call quarantined records again too, and publish what they bring
  --recompute      call everything again: the input changed, or the answers are not wanted

exit codes:
  0  complete: every record succeeded or is quarantined, and the table says the same
  1  failed: the message says what to do; what was paid for is kept
  2  the spec (or the command line) must be corrected; nothing was called
  3  more records failed than max_quarantined_fraction allows

The last line on stdout is one JSON object: records, succeeded, quarantined, requests, reused, published, seconds.
Everything else goes to stderr. Ctrl-C and SIGTERM finish what is in flight, keep it, and exit 1: run again to resume.

example, as a line of a crontab:

  0 2 * * *  airflow-ai batch run /etc/batches/nightly.toml >> /var/log/nightly.jsonl
"""

_STATUS_NOTES = """\
Shows what a resume would find: partitions, why records are quarantined, and how many would still be called. Calls no
model and needs no API key.

example:

  airflow-ai batch status nightly.toml --json | jq .would_call
"""


def add_to(patterns: Any) -> None:
    """Add ``batch`` with its commands."""
    batch = add_command(patterns, "batch", "Batch inference: run one, or see how far it is.", EXAMPLE)
    commands = batch.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_status(commands)


def _run(arguments: argparse.Namespace, runtime: BatchRuntime | None) -> int:
    from airflow_provider_ai.cli import batch

    return batch.run(arguments, runtime)


def _status(arguments: argparse.Namespace, runtime: BatchRuntime | None) -> int:
    from airflow_provider_ai.cli import batch

    return batch.status(arguments, runtime)


def _add_run(commands: Any) -> None:
    description = "Run a batch from its spec file until it is published."
    run = add_command(commands, "run", description, _RUN_NOTES, handler=_run)
    run.add_argument("spec", metavar="SPEC.toml", help="the batch; `airflow-ai --help` shows one")
    verbs = run.add_mutually_exclusive_group()
    for verb, text in (
        ("resume", "go on where the last run stopped (default)"),
        ("retry_failed", "call quarantined records again"),
        ("recompute", "start over; pays for every record again"),
    ):
        option = "--" + verb.replace("_", "-")
        verbs.add_argument(option, dest="verb", action="store_const", const=verb, default="resume", help=text)
    run.add_argument("--quiet", action="store_true", help="no progress; warnings and errors only")
    add_log_level(run)


def _add_status(commands: Any) -> None:
    description = "Show how far a batch is and what a resume would call."
    status = add_command(commands, "status", description, _STATUS_NOTES, handler=_status)
    status.add_argument("spec", metavar="SPEC.toml", help="the batch")
    status.add_argument("--json", action="store_true", help="one JSON object instead of text")
    add_log_level(status)
