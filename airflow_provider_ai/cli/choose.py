"""``airflow-ai choose``: questions in a terminal or flags in, a pattern with its reasons and a DAG skeleton out.

stdout carries the result, and nothing but it; questions and complaints go to stderr, so a redirected result is clean.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from airflow_provider_ai.core.choosing import Change, Choice, Reason, choose
from airflow_provider_ai.core.choosing_rules import MEANINGS, PATTERNS, TITLES, Pattern
from airflow_provider_ai.core.needs import QUESTIONS, Needs, Question
from airflow_provider_ai.core.skeletons import skeleton
from airflow_provider_ai.exceptions import SpecError

CHOSEN, ENDED, BAD_COMMAND = 0, 1, 2
_WIDTH = 100


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    answers = {question.name: getattr(arguments, question.name) for question in QUESTIONS}
    missing = [question for question in QUESTIONS if answers[question.name] is None]
    if missing and not sys.stdin.isatty():
        _say(_not_given(missing))
        return BAD_COMMAND
    try:
        answers.update((question.name, _ask(question)) for question in missing)
    except (EOFError, KeyboardInterrupt):
        _say("\nended before all questions were answered; nothing was chosen")
        return ENDED
    _show(Needs(**answers), arguments)
    return CHOSEN


def _not_given(missing: Sequence[Question]) -> str:
    flags = ", ".join("--phi or --no-phi" if question.metavar is None else question.flag for question in missing)
    return (
        f"airflow-ai choose: error: not given: {flags}\n"
        "  give them, or run it in a terminal, where it asks; `airflow-ai choose --help` shows examples"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- questions


def _ask(question: Question) -> Any:
    """Until there is an answer that can be read. An empty line is the default."""
    _say(f"\n{question.text}\n{textwrap.indent(textwrap.fill(question.help, _WIDTH - 2), '  ')}")
    while True:
        print(f"  {question.answers} [{question.default}]: ", end="", file=sys.stderr, flush=True)
        try:
            return question.read(input().strip() or question.default)
        except SpecError as error:
            _say(f"  {error}")


# --- the result


def _show(needs: Needs, arguments: argparse.Namespace) -> None:
    choice = choose(needs)
    text = skeleton(choice.pattern, needs)
    if arguments.json:
        print(json.dumps({"needs": asdict(needs), **choice.to_dict(), "skeleton": text}), flush=True)
    elif arguments.skeleton_only:
        print(text, end="", flush=True)
    else:
        print("\n".join(_lines(choice)), text, sep="\n\n", end="", flush=True)


def _lines(choice: Choice) -> Iterator[str]:
    others = tuple(pattern for pattern in PATTERNS if pattern != choice.pattern)
    yield f"Use: {TITLES[choice.pattern]} ({choice.pattern})"
    yield from _wrapped(MEANINGS[choice.pattern], "  ")
    yield from _section("Why", (reason.text for reason in _said(choice, "decides", "for", of=(choice.pattern,))))
    yield from _section("What does not fit", choice.conflicts)
    yield from _section("What speaks for another pattern", map(_titled, _said(choice, "for", of=others)))
    yield from _section("What speaks against the others", map(_titled, _said(choice, "against", of=others)))
    yield from _section("What to mind", choice.warnings)
    yield from _section("What would change that", map(_change, choice.changes))
    yield ""
    yield "The DAG to start from (--skeleton-only prints nothing else)"


def _said(choice: Choice, *verdicts: str, of: Sequence[Pattern]) -> Iterator[Reason]:
    return (reason for reason in choice.reasons if reason.verdict in verdicts and reason.pattern in of)


def _titled(reason: Reason) -> str:
    return f"{TITLES[reason.pattern]}: {reason.text}"


def _change(change: Change) -> str:
    return f"{TITLES[change.pattern]}, if {' and '.join(condition.words for condition in change.conditions)}"


def _section(title: str, points: Iterable[str]) -> Iterator[str]:
    """Nothing when there are no points."""
    lines = [line for point in points for line in _wrapped(point, "  - ")]
    if lines:
        yield from ("", title, *lines)


def _wrapped(text: str, bullet: str) -> list[str]:
    indent = " " * len(bullet)
    return textwrap.wrap(text, _WIDTH, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)
