"""``airflow-ai store upgrade`` and ``airflow-ai store status``: results on stdout, what is for people on stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.cli.endings import COMPLETE, FAILED, Endings, attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.cli.spec_parts import database_url, read_toml
from airflow_provider_ai.exceptions import SpecError, StoreSchemaError, StoreUnavailableError

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.overview import Overview
    from airflow_provider_ai.adapters.store.store import Store

_TIMEOUT_SECONDS = 10.0
_ENDINGS = Endings(
    advice=(
        (SpecError, "correct it, then run again; nothing was changed"),
        (StoreSchemaError, "nothing was changed"),
        (StoreUnavailableError, "see that the database is up, then run again; nothing was changed"),
    ),
    otherwise="correct the database or the rights on it, then run again; nothing was changed",
)


def upgrade(arguments: argparse.Namespace) -> int:
    """``store upgrade``; the exit code."""

    def work() -> str:
        with closing(_store(arguments)) as store:
            before = store.revision()
            store.upgrade()
            now = store.revision()
        done = f"was at revision {now} already" if before == now else f"upgraded from {before or 'nothing'} to {now}"
        return f"{store.where}: {done}"

    with logging_to(sys.stderr, arguments.log_level):
        said, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if said is not None:
        print(said, flush=True)
    return code


def status(arguments: argparse.Namespace) -> int:
    """``store status``; the exit code."""

    def work() -> Overview:
        from airflow_provider_ai.adapters.store.overview import overview

        with closing(_store(arguments)) as store:
            return overview(store)

    with logging_to(sys.stderr, arguments.log_level):
        found, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if found is None:
        return code
    print(json.dumps(asdict(found)) if arguments.json else "\n".join(_as_text(found)), flush=True)
    return COMPLETE if found.usable else FAILED


def _store(arguments: argparse.Namespace) -> Store:
    url = arguments.store if arguments.store is not None else _url_of_spec(arguments.spec)
    return open_store(url, timeout_seconds=_TIMEOUT_SECONDS)


def _url_of_spec(path: str) -> str:
    """Only ``[store]`` is read: the rest of a spec may be of any kind."""
    file = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    try:
        table = read_toml(file).get("store")
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    url = table.get("url") if isinstance(table, dict) else None
    if not isinstance(url, str):
        raise SpecError(f"{path}: there is no [store] with a url")
    return database_url(url, file.parent)


def _as_text(found: Overview) -> Iterator[str]:
    yield found.where
    if found.revision is None:
        yield "tables: none yet; the first use makes them, or `airflow-ai store upgrade`"
        return
    if not found.usable:
        yield f"tables: revision {found.revision}; this version needs {found.needed}"
        return
    yield f"tables: revision {found.revision}, as this version needs them"
    yield f"good answers: {found.good_answers:,}"
    if found.jobs is not None:
        yield f"jobs: {_counted(found.jobs.states)}"
        yield f"inbox: {found.jobs.arrived:,} outcomes have arrived, {found.jobs.under_way:,} are under way"
        yield f"dead letters: {_counted(found.jobs.dead_letters)}"
        yield f"unknown replies and refused webhooks: {_counted(found.jobs.unknown_replies)}"
    if found.endpoints:
        yield ""
        yield f"{'breaker':<10} {'calls':>11}  endpoint"
    for row in found.endpoints:
        yield f"{row.state:<10} {f'{row.slots_taken} of {row.slots}':>11}  {row.endpoint}"


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items()) or "none"
