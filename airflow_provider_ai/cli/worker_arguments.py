"""The arguments of ``airflow-ai worker``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
Takes requests from the queue, does each job once, and puts what it led to into the result queue. Any number of workers
share a queue and a store.

example: save this as jobs.toml, then run `airflow-ai queues create jobs.toml` once and `airflow-ai worker jobs.toml`

  [transport]
  kind = "sqs"                          # sqs | sqs-fifo | kafka
  region = "us-east-1"
  request_queue = "ai-requests"
  result_queue = "ai-results"
  dead_letter_queue = "ai-dead"

  [store]
  url = "sqlite:///store.db"            # or postgresql+psycopg://…

  [claim_check]
  uri = "claims/"                       # payloads and results over the inline limit; or s3://bucket/folder

  [worker]
  concurrency = 64                      # jobs at a time, and so the most messages it fetches
  visibility_timeout_seconds = 30       # heartbeats keep a job for as long as it takes
  max_attempts = 5
  deadline_seconds = 300                # of one try
  grace_seconds = 20                    # on SIGTERM, before jobs are given back
  health_port = 8125                    # /health/live, /health/ready, /metrics

  [endpoint]
  url = "http://127.0.0.1:8080"
  protocol = "json"                     # json | open-inference[-grpc] | openai-chat | openai-embeddings
  model = "m"

  # or, instead of [endpoint], a function of yours:
  # [handler]
  # target = "summaries:summarise"      # async def summarise(job) -> plain JSON values;
                                        # summaries.py may lie beside this file

  [webhook]                             # results of jobs that ask for it are also delivered there
  url = "https://airflow.example.org"   # /ai/webhooks/jobs/{job_id} is added
  secret_env = "AI_WEBHOOK_SECRET"      # whsec_…

A handler gets job.payload, job.attempt, job.expires_at, job.job_id and job.idempotency_key. The key is the same on
every attempt: whatever the handler writes by itself, it writes under it. An `async` handler must not block (it holds
up other jobs, though no heartbeat); plain functions run in threads. To reject a job for good raise RejectedJobError,
to have it tried later without counting PostponedJobError (both in airflow_provider_ai.core.job_handling).

exit codes:
  0  stopped by SIGTERM or Ctrl-C; what was not finished was given back
  2  the spec (or the command line) must be corrected
  1  an error that is not expected
"""


def add_to(patterns: Any) -> None:
    """Add ``worker``."""
    worker = add_command(patterns, "worker", "Work on jobs of the asynchronous pattern.", _NOTES, handler=_worker)
    add_service(worker)


def add_service(command: argparse.ArgumentParser) -> None:
    """What the services of this pattern have in common."""
    command.add_argument("spec", metavar="SPEC.toml", help="transport, store and the rest")
    command.add_argument(
        "--health-port", type=int, metavar="PORT", help="serve health and metrics there (default: as in the spec)"
    )
    add_log_level(command)


def _worker(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import worker

    return worker.run(arguments, runtime)
