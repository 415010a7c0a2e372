"""``airflow-ai``: the batch pattern from a shell or from cron, without Airflow.

Nothing heavy is imported before the arguments are known to be right, so ``--help`` and a misspelled option answer at
once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_ai import __version__

if TYPE_CHECKING:
    from airflow_provider_ai.cli.batch import BatchRuntime

__all__ = ["main", "program"]

_AS_WRITTEN = argparse.RawDescriptionHelpFormatter
_DESCRIPTION = "Run AI inference over a dataset, checkpointed and published exactly once, without Airflow."

_EXAMPLE = """\
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


def main(argv: Sequence[str] | None = None, *, runtime: BatchRuntime | None = None) -> int:
    """Run a command and return its exit code.

    :param argv: arguments without the program's name; ``None`` for those of the process
    :param runtime: what carries out batches; ``None`` for the real one
    """
    arguments = _parser().parse_args(argv)
    from airflow_provider_ai.cli import batch

    command = batch.run if arguments.command == "run" else batch.status
    return command(arguments, runtime)


def program() -> NoReturn:
    """What the shell starts: :func:`main`, then out.

    Everything is written and closed by then, and taking apart an interpreter full of modules takes 0.2 s more.
    """
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "airflow-ai", description=_DESCRIPTION, epilog=_EXAMPLE, formatter_class=_AS_WRITTEN
    )
    parser.add_argument("--version", action="version", version=f"airflow-ai {__version__}")
    patterns = parser.add_subparsers(dest="pattern", metavar="PATTERN", required=True)
    batch = _command(patterns, "batch", "Batch inference: run one, or see how far it is.", _EXAMPLE)
    commands = batch.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_status(commands)
    return parser


def _command(commands: Any, name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=description, description=description, epilog=epilog, formatter_class=_AS_WRITTEN
    )
    return command


def _add_run(commands: Any) -> None:
    run = _command(commands, "run", "Run a batch from its spec file until it is published.", _RUN_NOTES)
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
    _add_log_level(run)


def _add_status(commands: Any) -> None:
    status = _command(commands, "status", "Show how far a batch is and what a resume would call.", _STATUS_NOTES)
    status.add_argument("spec", metavar="SPEC.toml", help="the batch")
    status.add_argument("--json", action="store_true", help="one JSON object instead of text")
    _add_log_level(status)


def _add_log_level(command: argparse.ArgumentParser) -> None:
    levels = ("debug", "info", "warning", "error")
    text = "what is logged to stderr (default: info); debug adds tracebacks, which may quote data"
    command.add_argument("--log-level", choices=levels, default="info", metavar="LEVEL", help=text)
