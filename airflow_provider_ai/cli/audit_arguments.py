"""The arguments of ``airflow-ai audit``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
The audit: who did what, to which records, with which model, when. Each process writes a chain of hashes into the store;
signed heads of the chains lie apart from it. docs/audit.md says how to turn it on, and what it proves.
"""

_VERIFY_NOTES = """\
Finds events that were edited, deleted, reordered, inserted or cut off, and chains that were removed as a whole, and
says where: the chain and the number in it. Safe while the audit goes on; memory stays flat.

stdout: one JSON object a finding, then one with whole, events, chains, heads, unsealed (events at the ends of chains
that no head vouches for yet), findings by kind, seconds and events_per_second.

exit codes:
  0  whole
  1  could not be verified: store or heads do not answer
  2  the spec (or the command line) must be corrected
  3  there are findings

examples:

  airflow-ai audit verify jobs.toml
  airflow-ai audit verify --store postgresql://auditor@db.example.org/ai --heads s3://audit-heads/ai \\
      --public-key audit.pub.pem
"""

_EXPORT_NOTES = """\
stdout: one JSON object a line, in order of chain and number: a FHIR R4 AuditEvent (4.0.1), an event of OCSF 1.3.0's
class API Activity (6003), or the event as it is here. Nothing is verified: run `audit verify` first.

exit codes: as of `audit verify`, without 3.

examples:

  airflow-ai audit export jobs.toml --format fhir-auditevent --since 2026-11-01 --until 2026-12-01
  key=$(echo '"patient-17"' | airflow-ai audit key jobs.toml)
  airflow-ai audit export jobs.toml --format jsonl --record-key "$key"
"""

_KEYGEN_NOTES = """\
Makes an Ed25519 key pair for heads: the private key for those who write the audit, the public one for those who verify
it. Neither file must be there yet.

example:

  airflow-ai audit keygen --private audit.pem --public audit.pub.pem
"""

_KEY_NOTES = """\
Record ids on stdin, one JSON value a line, become record keys on stdout: what an event calls that record. Ids on stdin
are in no shell history and no list of processes. A number and its text are different ids.

example:

  printf '%s\\n' '"patient-17"' '42' | airflow-ai audit key jobs.toml
"""


def add_to(patterns: Any) -> None:
    """Add ``audit`` with ``verify``, ``export``, ``keygen`` and ``key``."""
    audit = add_command(patterns, "audit", "The audit: verify it, export it, make its keys.", _NOTES)
    commands = audit.add_subparsers(dest="command", metavar="COMMAND", required=True)
    verify = _add(commands, "verify", "Find what was changed or removed.", _VERIFY_NOTES)
    _add_place(verify)
    verify.add_argument("--heads", metavar="URI", help="folder of signed heads, local or s3://; else the spec's")
    verify.add_argument(
        "--public-key", metavar="FILE", action="append", default=[], help="PEM; again for keys from before"
    )
    verify.add_argument("--every-head", action="store_true", help="verify each head, not only the newest of each chain")
    verify.add_argument("--since", metavar="TIME", help="only chains begun from then on (ISO 8601, UTC)")
    verify.add_argument("--until", metavar="TIME", help="only chains begun before then")
    export = _add(commands, "export", "Write events in the formats of others.", _EXPORT_NOTES)
    _add_place(export)
    forms = ("fhir-auditevent", "ocsf", "jsonl")
    export.add_argument("--format", choices=forms, required=True, metavar="FORMAT", help=", ".join(forms))
    export.add_argument("--since", metavar="TIME", help="events from then on (ISO 8601, UTC)")
    export.add_argument("--until", metavar="TIME", help="events before then")
    export.add_argument("--run", metavar="RUN_ID", help="events of an Airflow run")
    export.add_argument("--record-key", metavar="HEX", help="events about a record: its key, see `audit key`")
    keygen = _add(commands, "keygen", "Make keys for signing heads.", _KEYGEN_NOTES)
    keygen.add_argument("--private", metavar="FILE", required=True, help="PEM, readable by its owner only")
    keygen.add_argument("--public", metavar="FILE", required=True, help="PEM")
    key = _add(commands, "key", "Tell the keys of records.", _KEY_NOTES)
    key.add_argument("spec", metavar="SPEC.toml", help="a spec with an [audit]")


def _add(commands: Any, name: str, description: str, notes: str) -> argparse.ArgumentParser:
    command = add_command(commands, name, description, notes, handler=_run)
    add_log_level(command)
    return command


def _add_place(command: argparse.ArgumentParser) -> None:
    place = command.add_mutually_exclusive_group(required=True)
    place.add_argument("spec", metavar="SPEC.toml", nargs="?", help="a spec with an [audit]")
    place.add_argument("--store", metavar="URL", help="SQLAlchemy URL of the store that holds the events")


def _run(arguments: argparse.Namespace, runtime: Any) -> int:
    from airflow_provider_ai.cli import audit

    return audit.run(arguments)
