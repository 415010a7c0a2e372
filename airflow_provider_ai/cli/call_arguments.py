"""The arguments of ``airflow-ai call``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

EXAMPLE = """\
example: save this as triage.toml, then run `airflow-ai call triage.toml --input patient.json`

  [endpoint]
  url = "http://127.0.0.1:8080"         # grpc://host:port for open-inference-grpc
  protocol = "json"                     # json | open-inference[-grpc] | openai-chat | openai-embeddings
  model = "triage"

  [call]
  deadline_seconds = 3.0                # at most 5; covers everything, fallbacks included

  [[fallback]]                          # tried in this order; the last one must be static
  kind = "last-good"                    # needs a [store]
  max_age_seconds = 21600

  [[fallback]]
  kind = "endpoint"                     # what it does not say is as in [endpoint]; the key is not
  url = "http://127.0.0.1:8081"
  model = "triage-small"

  [[fallback]]
  kind = "callable"
  path = "rules:by_age"                 # function(inputs) -> output; rules.py may lie beside this file

  [[fallback]]
  kind = "static"
  value = { priority = "routine" }

  [store]                               # circuit breaker and bulkhead, shared by all who name it
  url = "sqlite:///store.db"            # or postgresql+psycopg://…

patient.json holds one record, such as {"age": 63, "pulse": 118}, or a list of records.

exit codes:
  0  answered, perhaps by a fallback: "degraded" and "reason" say so
  2  the spec, the input file or the command line must be corrected; nothing was called
  4  with --fail-on-degraded: a fallback answered
  1  stopped, or an error that is not expected

The last line on stdout is the answer: one JSON object with output, degraded, reason, detail, source, age_seconds,
attempts, elapsed_ms, breaker_state and model. Everything else goes to stderr.
"""


def add_to(patterns: Any) -> None:
    """Add ``call``."""
    description = "Synchronous call: one answer within the deadline, always."
    call = add_command(patterns, "call", description, EXAMPLE, handler=_call)
    call.add_argument("spec", metavar="SPEC.toml", help="endpoint, deadline and fallbacks, as in the example below")
    call.add_argument(
        "--input", metavar="FILE.json", required=True, help="the request's inputs: a record or a list; - for stdin"
    )
    call.add_argument("--fail-on-degraded", action="store_true", help="exit 4 when a fallback answered")
    add_log_level(call)


def _call(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import call

    return call.run(arguments, runtime)
