"""``airflow-ai``: the patterns from a shell or from cron, without Airflow.

Each command brings its own arguments: a small module with ``add_to(patterns)`` and a handler. Nothing heavy is
imported before the arguments are known to be right, so ``--help`` and a misspelled option answer at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from airflow_provider_ai import __version__
from airflow_provider_ai.cli import (
    audit_arguments,
    batch_arguments,
    call_arguments,
    choose_arguments,
    dispatcher_arguments,
    dlq_arguments,
    jobs_arguments,
    keys_arguments,
    policy_arguments,
    queues_arguments,
    store_arguments,
    worker_arguments,
)
from airflow_provider_ai.cli.arguments import AS_WRITTEN, Handler

__all__ = ["main", "program"]

_DESCRIPTION = """\
AI services called the right way, without Airflow: one synchronous call with a deadline and a fallback, jobs
through queues with workers that do each of them once, or a batch over a dataset, checkpointed and published exactly
once. `choose` says which of them fits."""
_COMMANDS = (
    audit_arguments,
    batch_arguments,
    call_arguments,
    choose_arguments,
    dispatcher_arguments,
    dlq_arguments,
    jobs_arguments,
    keys_arguments,
    policy_arguments,
    queues_arguments,
    store_arguments,
    worker_arguments,
)


def main(argv: Sequence[str] | None = None, *, runtime: Any = None) -> int:
    """Run a command and return its exit code.

    :param argv: arguments without the program's name; ``None`` for those of the process
    :param runtime: what carries out the command, such as a ``BatchRuntime``; ``None`` for the real one
    """
    arguments = _parser().parse_args(argv)
    handler: Handler = arguments.handler
    return handler(arguments, runtime)


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
        "airflow-ai", description=_DESCRIPTION, epilog=batch_arguments.EXAMPLE, formatter_class=AS_WRITTEN
    )
    parser.add_argument("--version", action="version", version=f"airflow-ai {__version__}")
    patterns = parser.add_subparsers(dest="pattern", metavar="PATTERN", required=True)
    for command in _COMMANDS:
        command.add_to(patterns)
    return parser
