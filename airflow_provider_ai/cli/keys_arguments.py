"""The arguments of ``airflow-ai keys``. What carries it out is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_ai.cli.arguments import add_command, add_log_level

_NOTES = """\
Keys encrypt what is sent and kept: queue payloads, claim checks, checkpoints, results, last good answers, dead letters.
A spec names them in [encryption]; in Airflow it is a connection of type AI keys.
"""

_GENERATE_NOTES = """\
Without arguments: a new keyring, one line of JSON, for the variable or file that [encryption] names, or the password of
a connection of type AI keys.

With --keyring FILE: that keyring with a new current key. The old keys stay in it, to decrypt, and so does the hash key,
which must never change: record keys and the identity of jobs hang on it.

With SPEC.toml, whose [encryption] is of kind "kms": a new hash key, encrypted by the KMS key, for wrapped_hash_key.

It prints secrets (not with SPEC.toml): send it to a file that only you can read, or to your secrets backend.

exit codes:
  0  printed
  1  failed: the message says why
  2  the spec, the keyring or the command line must be corrected

examples:

  (umask 077; airflow-ai keys generate > keyring.json)
  (umask 077; airflow-ai keys generate --keyring keyring.json > next.json)
  airflow-ai keys generate nightly.toml
"""

_ROTATE_NOTES = """\
Wraps the data keys of everything that the spec's deployment keeps (checkpoints, claim checks, rows of the store) by the
current key. What is encrypted is not touched, so names, checksums and publications stay. It can be killed and run
again, and runs beside everything else; what a runner is just working on is counted as busy and left for another run.

Messages in queues are not touched: keep the older keys configured for as long as a message may live (14 days with SQS).

The last line is JSON: {"seen", "rewrapped", "current", "clear", "busy", "refused", "keys"}; files and rows.

exit codes:
  0  everything is under the current key
  1  failed, or something was refused, or a key could not be used: the messages say why
  2  the spec (or the command line) must be corrected
  3  something was busy: run it again later

example:

  airflow-ai keys rotate nightly.toml && airflow-ai keys status nightly.toml
"""

_STATUS_NOTES = """\
Encrypts and decrypts something with the current key, and counts what is kept by the key it is under. Changes nothing.

exit codes:
  0  the key can be used
  1  it cannot: the message says why
  2  the spec (or the command line) must be corrected

example:

  airflow-ai keys status nightly.toml | jq .keys
"""


def add_to(patterns: Any) -> None:
    """Add ``keys`` with ``generate``, ``rotate`` and ``status``."""
    keys = add_command(patterns, "keys", "Encryption keys: make them, rotate them, see where they are used.", _NOTES)
    commands = keys.add_subparsers(dest="command", metavar="COMMAND", required=True)
    generate = add_command(commands, "generate", "Make keys.", _GENERATE_NOTES, handler=_generate)
    source = generate.add_mutually_exclusive_group()
    source.add_argument("spec", metavar="SPEC.toml", nargs="?", help='a spec whose [encryption] is of kind "kms"')
    source.add_argument("--keyring", metavar="FILE", help="a keyring to add a new current key to")
    generate.add_argument("--key-id", metavar="ID", help="name of the new key (default: today and four random digits)")
    add_log_level(generate)
    for name, text, notes, handler in (
        ("rotate", "Bring everything that is kept under the current key.", _ROTATE_NOTES, _rotate),
        ("status", "See whether the key can be used, and what is under which key.", _STATUS_NOTES, _status),
    ):
        command = add_command(commands, name, text, notes, handler=handler)
        command.add_argument("spec", metavar="SPEC.toml", help="a spec with [encryption], of any pattern")
        command.add_argument("--also", metavar="URI", action="append", default=[], help="another folder, as output_uri")
        add_log_level(command)


def _generate(arguments: argparse.Namespace, runtime: None) -> int:
    from airflow_provider_ai.cli import keys

    return keys.generate(arguments)


def _rotate(arguments: argparse.Namespace, runtime: None) -> int:
    from airflow_provider_ai.cli import keys

    return keys.rotate(arguments)


def _status(arguments: argparse.Namespace, runtime: None) -> int:
    from airflow_provider_ai.cli import keys

    return keys.status(arguments)
