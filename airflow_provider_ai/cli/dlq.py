"""``airflow-ai dlq``: dead letters by reason and id. stdout carries results, stderr what is for people."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.audit_spec import audited
from airflow_provider_ai.cli.endings import COMPLETE, FAILED, Endings, attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.exceptions import SpecError, StoreSchemaError

if TYPE_CHECKING:
    from airflow_provider_ai.core.job_ports import DeadLetter
    from airflow_provider_ai.patterns.dead_letter_desk import DeadLetterDesk

Desk = AbstractContextManager["DeadLetterDesk"]
_ENDINGS = Endings(
    advice=(
        (SpecError, "correct it, then run again; nothing was changed"),
        (StoreSchemaError, "then run again; nothing was changed"),
    ),
    otherwise="then run the same command again: it goes on where it was",
)
log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, runtime: Any) -> int:
    """A command of ``dlq``; the exit code. ``runtime``: opens a desk, as ``open_dead_letter_desk`` does."""
    command = {"list": _list, "show": _show, "redrive": _redrive, "purge": _purge}[arguments.command]

    def work() -> int:
        with _open(arguments.spec, runtime) as desk:
            return command(desk, arguments)

    with logging_to(sys.stderr, arguments.log_level):
        ended, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    return code if ended is None else int(ended)


def _open(path: str, runtime: Any) -> Desk:
    from airflow_provider_ai.cli.job_spec import load_job_spec

    spec = load_job_spec(path, need_secrets=False)
    from airflow_provider_ai.runtime.dead_letters import open_dead_letter_desk

    safeguards = audited(spec.audit, "operator")
    if spec.phi.on:
        safeguards["phi"] = spec.phi
    opened: Desk = (runtime or open_dead_letter_desk)(
        spec.transport, spec.store, spec.dispatcher, spec.keys, **safeguards
    )
    return opened


def _list(desk: DeadLetterDesk, arguments: argparse.Namespace) -> int:
    reasons: Counter[str] = Counter()
    counts = {"letters": 0, "queued": 0}
    for number, (letter, place) in enumerate(_everywhere(desk, arguments.reason, arguments.most)):
        reasons[letter.reason] += 1
        counts["letters" if place == "store" else "queued"] += 1
        if number < arguments.most:
            print(json.dumps(_facts(letter, place)))
    print(json.dumps({**counts, "reasons": dict(reasons.most_common())}), flush=True)
    return COMPLETE


def _everywhere(desk: DeadLetterDesk, reason: str | None, most: int) -> Iterator[tuple[DeadLetter, str]]:
    kept = set()
    for letter in desk.letters():
        kept.add(letter.letter_id)
        if reason in (None, letter.reason):
            yield letter, "store"
    for letter in desk.queued(most=most):
        if reason in (None, letter.reason) and letter.letter_id not in kept:
            yield letter, "queue"


def _show(desk: DeadLetterDesk, arguments: argparse.Namespace) -> int:
    shown = 0
    for letter in filter(_chooser([arguments.id]), desk.letters()):
        job = desk.job(letter)
        facts = {**_facts(letter, "store"), "bytes": len(letter.message), "job": None}
        if job is not None:
            facts["job"] = {
                "state": job.state.value,
                "reason": job.reason,
                "submission": job.submission,
                "position": job.position,
                "generation": job.generation,
                "attempts": job.attempts,
                "predecessor": job.predecessor,
            }
        print(json.dumps(facts), flush=True)
        shown += 1
    if not shown:
        print("there is no such dead letter in the store; is a dispatcher running?", file=sys.stderr)
    return COMPLETE if shown else FAILED


def _redrive(desk: DeadLetterDesk, arguments: argparse.Namespace) -> int:
    chosen = _chosen(arguments)
    log.info("%d dead letters were taken out of their queue", desk.take_all())
    print(json.dumps(asdict(desk.redrive(chosen))), flush=True)
    return COMPLETE


def _purge(desk: DeadLetterDesk, arguments: argparse.Namespace) -> int:
    chosen = _chosen(arguments)
    if not arguments.yes and not sys.stdin.isatty():
        raise SpecError("say --yes: nobody can be asked here")
    log.info("%d dead letters were taken out of their queue", desk.take_all())
    if not arguments.yes and not _agreed(sum(1 for _ in filter(chosen, desk.letters()))):
        print(json.dumps({"purged": 0}), flush=True)
        return COMPLETE
    print(json.dumps({"purged": desk.purge(chosen)}), flush=True)
    return COMPLETE


def _agreed(letters: int) -> bool:
    print(f"throw {letters} dead letters away? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _chosen(arguments: argparse.Namespace) -> Callable[[DeadLetter], bool]:
    if arguments.ids:
        return _chooser(arguments.ids)
    return lambda letter: arguments.reason in (None, letter.reason)


def _chooser(ids: list[str]) -> Callable[[DeadLetter], bool]:
    wanted = frozenset(ids)
    return lambda letter: letter.letter_id in wanted or letter.job_id in wanted


def _facts(letter: DeadLetter, place: str) -> dict[str, Any]:
    received = datetime.fromtimestamp(letter.received_at, UTC).isoformat(timespec="seconds")
    return {
        "letter_id": letter.letter_id,
        "job_id": letter.job_id,
        "reason": letter.reason,
        "source": letter.source,
        "place": place,
        "received_at": received if letter.received_at else None,
    }
