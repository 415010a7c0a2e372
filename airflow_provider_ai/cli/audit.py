"""``airflow-ai audit``: findings, events and keys on stdout, what is for people on stderr."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.audit_spec import AuditPlaces, audit_hmac_key, audit_places, read_key_file
from airflow_provider_ai.cli.endings import COMPLETE, Endings, attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.cli.spec_parts import read_toml
from airflow_provider_ai.core.audit_check import Finding
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store

NOT_WHOLE = 3
_TIMEOUT_SECONDS = 60.0
_ENDINGS = Endings(
    advice=((SpecError, "correct it, then run again"),),
    otherwise="see that the store and the heads can be read, then run again: nothing is known of the audit until then",
)
log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """A command of ``audit``; the exit code."""
    command = {"verify": _verify, "export": _export, "keygen": _keygen, "key": _key}[arguments.command]
    with logging_to(sys.stderr, arguments.log_level):
        ended, code = attempt(lambda: command(arguments), _ENDINGS, debug=arguments.log_level == "debug")
    return code if ended is None else int(ended)


def _verify(arguments: argparse.Namespace) -> int:
    from airflow_provider_ai.adapters.audit.event_table import AuditReader
    from airflow_provider_ai.adapters.audit.head_places import open_head_place
    from airflow_provider_ai.adapters.audit.signing import HeadVerifier
    from airflow_provider_ai.runtime.audit_verify import HeadSource, verify_audit

    places = _places(arguments)
    heads = arguments.heads or places.heads
    keys = [*map(read_key_file, arguments.public_key), *places.public_keys]
    if heads is not None and not keys:
        raise SpecError("heads are signed: name the public key, with --public-key or public_key_files in [audit]")
    if heads is None:
        log.warning("no heads are named: that a chain was cut off, rewritten or removed cannot be told without them")
    since, until = _beginning(arguments.since) or "", _beginning(arguments.until)
    with closing(_store(places.store)) as store:
        reader = AuditReader(store)
        source = None
        if keys:
            place = None if heads is None else open_head_place(heads)
            source = HeadSource(HeadVerifier(keys), place=place, reader=reader, every=arguments.every_head, since=since)
        report = verify_audit(reader, source, found=_print_finding, since=since, until=until)
    print(json.dumps(report.to_dict()), flush=True)
    return COMPLETE if report.whole else NOT_WHOLE


def _print_finding(finding: Finding) -> None:
    print(json.dumps(finding.to_dict()))
    log.error("%s", finding)


def _export(arguments: argparse.Namespace) -> int:
    from airflow_provider_ai.adapters.audit.event_table import AuditReader
    from airflow_provider_ai.runtime.audit_export import ExportFilter, exported

    places = _places(arguments)
    if arguments.record_key is not None and not re.fullmatch(r"[0-9a-f]{32}", arguments.record_key):
        raise SpecError("--record-key must be 32 hex digits: `airflow-ai audit key` tells them")
    chosen = ExportFilter(
        since_us=_microseconds(arguments.since),
        until_us=_microseconds(arguments.until),
        run_id=arguments.run,
        record_key=arguments.record_key,
    )
    lines = 0
    with closing(_store(places.store)) as store:
        for line in exported(AuditReader(store), arguments.format, chosen):
            sys.stdout.write(line.decode() + "\n")
            lines += 1
    sys.stdout.flush()
    log.info("%d events", lines)
    return COMPLETE


def _keygen(arguments: argparse.Namespace) -> int:
    from airflow_provider_ai.adapters.audit.signing import HeadSigner, new_key_pair

    private, public = new_key_pair()
    _write_new(Path(arguments.private), private, mode=0o600)
    _write_new(Path(arguments.public), public, mode=0o644)
    print(json.dumps({"key_id": HeadSigner(private).key_id}), flush=True)
    return COMPLETE


def _key(arguments: argparse.Namespace) -> int:
    file = Path(os.path.abspath(arguments.spec))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    secret = audit_hmac_key(read_toml(file), file.parent, os.environ)
    for line in sys.stdin:
        try:
            record_id = json.loads(line)
        except ValueError:
            raise SpecError("a line of stdin is no JSON value: put texts into quotes") from None
        print(record_key(record_id, secret=secret))
    return COMPLETE


def _store(url: str) -> Store:
    """The store, which must be there: looking at none must not look like an audit that is whole."""
    from airflow_provider_ai.adapters.store import open_store

    store = open_store(url, timeout_seconds=_TIMEOUT_SECONDS)
    if store.revision() is None:
        store.close()
        raise SpecError(f"{store.where}: there is no store")
    return store


def _places(arguments: argparse.Namespace) -> AuditPlaces:
    if arguments.spec is None:
        return AuditPlaces(store=arguments.store, heads=None, public_keys=())
    file = Path(os.path.abspath(arguments.spec))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    try:
        return audit_places(read_toml(file), file.parent)
    except SpecError as error:
        raise SpecError(f"{arguments.spec}: {error}") from None


def _write_new(path: Path, text: str, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except OSError as error:
        raise SpecError(f"{path}: the key cannot be written ({error.strerror})") from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError("times must be ISO 8601, such as 2026-11-24 or 2026-11-24T20:00:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _beginning(text: str | None) -> str | None:
    """What the names of chains begin with that were begun then."""
    moment = _moment(text)
    return None if moment is None else f"{moment:%Y%m%dT%H%M%SZ}"


def _microseconds(text: str | None) -> int | None:
    moment: Any = _moment(text)
    return None if moment is None else int(moment.timestamp() * 1_000_000)
