"""The arguments of ``airflow-ai jobs``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
Requests become jobs in a queue, workers do each of them once, and their replies are waited for: by cron, a shell script
or a service, with the spec that `airflow-ai worker` has.

example:

  airflow-ai jobs submit jobs.toml --input notes.jsonl --key notes-2026-03-01 --quiet
  airflow-ai jobs wait   jobs.toml --key notes-2026-03-01 --timeout 7200 --output replies.jsonl

Each command ends with one JSON line of counts on stdout: jobs, completed, failed, expired and pending, and cancelled
where there are any. Everything else on stdout comes before it; what is for people goes to stderr.
"""

_SUBMIT_NOTES = """\
FILE.jsonl, or standard input for `-`, holds one request a line: what the worker's endpoint or handler gets, an object
as a rule. Blank lines are passed over. KEY and the number of the request make the id of its job, so the same command
again re-attaches: it adds nothing, and sends only what was never sent. A request that has changed under the same KEY is
an error.

The input is read twice: first to check every line, so that a bad one is found before anything is submitted, then to
submit. Memory does not depend on its size; standard input is kept in a temporary file without a name meanwhile.

KEY is kept as a hash, which whoever guesses it can tell: let it say nothing about a person.

stdout: the ids, one a line in the order of the requests, unless --quiet; then the counts.

exit codes:
  0  all requests are submitted
  1  store or queue are down, or it was stopped: run the same command again, which submits the rest
  2  the spec, the input or the command line must be corrected
"""

_WAIT_NOTES = """\
Waits until every job of KEY has ended. A dispatcher brings the replies in; this command runs one of its own, beside any
others there may be, so that a worker is all it takes. --no-dispatcher leaves that to `airflow-ai dispatcher`.

FILE.jsonl gets one line a request, in their order:

  {"position": 0, "job_id": "…", "status": "succeeded", "output": {"priority": "routine"}}
  {"position": 1, "job_id": "…", "status": "failed", "reason": "rejected"}

It is written when every job has ended, with failed ones too, and takes its name at the end: there is never half of it.

exit codes:
  0  every job has ended, and no more of them without a result than --max-failed-fraction allows
  1  --timeout is over and jobs are pending (they go on: wait again), or it was stopped; no file is written
  2  the spec or the command line must be corrected, or nothing was ever submitted under KEY
  3  too many jobs have failed, expired or were cancelled; the file is written
"""

_STATUS_NOTES = """\
Shows how the jobs of KEY stand, and changes nothing. A job counts as ended when its outcome is where those who wait
look for it: somewhere a dispatcher must run, or a `jobs wait`.

exit codes:
  0  shown
  1  the store does not answer
  2  the spec or the command line must be corrected, or nothing was ever submitted under KEY
"""

_CANCEL_NOTES = """\
Cancels the jobs of KEY that no worker has begun. Those that have begun go on to their end.

exit codes: as of `jobs status`.
"""


def add_to(patterns: Any) -> None:
    """Add ``jobs`` with ``submit``, ``wait``, ``status`` and ``cancel``."""
    jobs = add_command(patterns, "jobs", "Submit requests as jobs, and wait for their replies.", _NOTES)
    commands = jobs.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_submit(commands)
    _add_wait(commands)
    status = _add(commands, "status", "Show how jobs stand.", _STATUS_NOTES)
    status.add_argument(
        "--reasons", action="store_true", help="a JSON line for each reason that jobs ended without a result for"
    )
    _add(commands, "cancel", "Cancel jobs that have not begun.", _CANCEL_NOTES)


def _add_submit(commands: Any) -> None:
    submit = _add(commands, "submit", "Submit the lines of a file as jobs.", _SUBMIT_NOTES)
    submit.add_argument("--input", metavar="FILE.jsonl", required=True, help="one request a line; - for standard input")
    submit.add_argument(
        "--deadline", type=_seconds, metavar="SECONDS", help="jobs not begun by then expire (default: never)"
    )
    submit.add_argument("--group", metavar="TENANT", help="for fair queues and FIFO: whose jobs these are")
    submit.add_argument("--quiet", action="store_true", help="no ids, and no progress; only the counts")


def _add_wait(commands: Any) -> None:
    wait = _add(commands, "wait", "Wait for jobs, and collect their replies.", _WAIT_NOTES)
    wait.add_argument("--timeout", type=_seconds, metavar="SECONDS", required=True, help="how long, at most")
    wait.add_argument("--output", metavar="FILE.jsonl", help="where the replies go; an old file is replaced")
    wait.add_argument(
        "--max-failed-fraction",
        type=_fraction,
        default=0.0,
        metavar="F",
        help="of all jobs, how many may end without a result (default: 0)",
    )
    wait.add_argument("--no-dispatcher", action="store_true", help="another process brings the replies in")
    wait.add_argument("--quiet", action="store_true", help="no progress")


def _add(commands: Any, name: str, description: str, notes: str) -> argparse.ArgumentParser:
    command = add_command(commands, name, description, notes, handler=_jobs)
    command.add_argument("spec", metavar="SPEC.toml", help="the worker's spec: transport, store and claim checks")
    command.add_argument("--key", metavar="KEY", required=True, type=_key, help="names the submission in this store")
    add_log_level(command)
    return command


def _jobs(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import jobs

    return int(getattr(jobs, arguments.command)(arguments, runtime))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds ≥ 0")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be a number in [0, 1]")
    return value


def _key(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text
