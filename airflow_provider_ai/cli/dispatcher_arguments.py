"""The arguments of ``airflow-ai dispatcher``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command
from airflow_provider_ai.cli.worker_arguments import add_service

_NOTES = """\
Brings what workers put into the result queue into the store, where whoever waits for it looks. Takes dead letters into
the store and ends their jobs as failed. Sends requests again that were lost, and expires jobs whose time is over. Any
number of dispatchers may run at once; at least one must.

The spec is that of `airflow-ai worker --help`, with one more table, all of it optional:

  [dispatcher]
  lanes = 2                             # threads that take results
  resend_after_seconds = 900            # a request that was not begun is sent again; longer than the backlog takes
  deliver_after_seconds = 30            # an outcome that did not arrive is taken from the store
  keep_days = 30                        # then finished jobs are removed; by default they stay
  health_port = 8126                    # /health/live, /health/ready, /metrics

exit codes:
  0  stopped by SIGTERM or Ctrl-C
  2  the spec (or the command line) must be corrected
  1  an error that is not expected
"""


def add_to(patterns: Any) -> None:
    """Add ``dispatcher``."""
    description = "Bring results of the asynchronous pattern to who waits for them."
    add_service(add_command(patterns, "dispatcher", description, _NOTES, handler=_dispatcher))


def _dispatcher(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import dispatcher

    return dispatcher.run(arguments, runtime)
