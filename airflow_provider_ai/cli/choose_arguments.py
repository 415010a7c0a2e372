"""The arguments of ``airflow-ai choose``, one flag for each question in :mod:`airflow_provider_ai.core.needs`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from airflow_provider_ai.cli.arguments import add_command
from airflow_provider_ai.core.needs import QUESTIONS, Question
from airflow_provider_ai.exceptions import SpecError

_NOTES = """\
In a terminal, what no flag answers is asked. Without one, all five must be given.

examples:

  airflow-ai choose                                        # asks

  # A triage call while the patient stands at the desk: synchronous
  airflow-ai choose --latency-seconds 3 --volume 1 --freshness 60s --effect read --phi

  # Risk scores of all visits, by morning: batch
  airflow-ai choose --latency-seconds 21600 --volume 250000 --freshness 24h --effect read --phi

  # A discharge letter's summary, written to the record: asynchronous
  airflow-ai choose --latency-seconds 600 --volume 1 --freshness 1h --effect ehr-write --phi

  # Start a DAG from what was chosen
  airflow-ai choose --skeleton-only > dags/triage.py

exit codes:
  0  chosen, also when needs conflict: the output says so
  1  ended before all questions were answered
  2  the command line must be corrected

--json prints one JSON object as the last line of stdout: needs, pattern, rule, reasons, conflicts, warnings, changes,
skeleton. docs/choosing-a-pattern.md is the same decision table, to read.
"""


def add_to(patterns: Any) -> None:
    """Add ``choose``."""
    description = "Choose a pattern: synchronous, asynchronous or batch, and why."
    choose = add_command(patterns, "choose", description, _NOTES, handler=_choose)
    for question in QUESTIONS:
        _add_flag(choose, question)
    output = choose.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object instead of text")
    output.add_argument("--skeleton-only", action="store_true", help="the DAG skeleton and nothing else")


def _choose(arguments: argparse.Namespace, runtime: None) -> int:
    from airflow_provider_ai.cli import choose

    return choose.run(arguments)


def _add_flag(command: argparse.ArgumentParser, question: Question) -> None:
    text = f"{question.text} {question.help}"
    if question.metavar is None:
        command.add_argument(question.flag, action=argparse.BooleanOptionalAction, dest=question.name, help=text)
    else:
        command.add_argument(
            question.flag,
            type=_value(question),
            dest=question.name,
            metavar=question.metavar,
            help=f"{text} ({question.answers})",
        )


def _value(question: Question) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return question.read(text)
        except SpecError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
