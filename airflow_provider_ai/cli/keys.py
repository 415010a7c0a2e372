"""``airflow-ai keys``: results on stdout, what is for people on stderr. Keys are printed by ``generate`` only."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_ai.cli.encryption_spec import ENCRYPTION_KEYS, encryption_settings
from airflow_provider_ai.cli.endings import COMPLETE, FAILED, Endings, attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.cli.spec_keys import CREDENTIALS, SpecShape, Table, kinds_of
from airflow_provider_ai.cli.spec_parts import absolute, database_url, in_table, read_toml
from airflow_provider_ai.cli.stopping import stopped_by_signals
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.envelope import KEY_BYTES
from airflow_provider_ai.core.key_settings import KeySettings, KmsKeys, LocalKeys
from airflow_provider_ai.core.keyring import keyring_text, parse_keyring, text_of, with_new_key
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.runtime.key_rotation import KeyRotation, RotationReport, StoredPlaces

BUSY = 3
_ENDINGS = Endings(
    advice=((SpecError, "correct it, then run again; nothing was changed"),),
    otherwise="then run the same command again: it goes on where it was",
)
_SAY_SECONDS = 5.0
_SHAPE = SpecShape({"encryption": ENCRYPTION_KEYS, "storage": kinds_of(StorageOptions, leave_out=CREDENTIALS)}, {})
log = logging.getLogger(__name__)


def generate(arguments: argparse.Namespace) -> int:
    """``keys generate``; the exit code."""

    def work() -> str:
        if arguments.spec is not None:
            return _wrapped_hash_key(arguments.spec)
        key_id = arguments.key_id or f"{time.strftime('%Y-%m-%d', time.gmtime())}-{os.urandom(2).hex()}"
        if arguments.keyring is not None:
            return keyring_text(with_new_key(_read_keyring(arguments.keyring), key_id, os.urandom(KEY_BYTES)))
        return keyring_text(
            LocalKeys(current=key_id, keys=((key_id, os.urandom(KEY_BYTES)),), hash_key=os.urandom(KEY_BYTES))
        )

    return _carried_out(work, arguments, lambda text: (text, COMPLETE))


def rotate(arguments: argparse.Namespace) -> int:
    """``keys rotate``; the exit code."""
    stop = StopToken()

    def work() -> RotationReport:
        keys, places = _load(arguments)
        return KeyRotation(places, keys, write=True, on_seen=_Told(), stop=stop).run()

    def ended(report: RotationReport) -> tuple[str, int]:
        code = FAILED if report.refused else BUSY if report.busy else COMPLETE
        return json.dumps(report.to_dict()), code

    with stopped_by_signals(stop):
        return _carried_out(work, arguments, ended)


def status(arguments: argparse.Namespace) -> int:
    """``keys status``; the exit code."""

    def work() -> dict[str, Any]:
        from airflow_provider_ai.adapters.crypto.opening import try_keys

        keys, places = _load(arguments)
        log.info("%s", try_keys(keys))
        report = KeyRotation(places, keys, write=False, on_seen=_Told()).run().to_dict()
        return {"usable": True, "due": report.pop("rewrapped"), **report}

    return _carried_out(work, arguments, lambda found: (json.dumps(found), COMPLETE))


class _Told:
    """Says now and then how far it is."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SAY_SECONDS

    def __call__(self, seen: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAY_SECONDS
            log.info("%s files and rows so far", f"{seen:,}")


def _carried_out(
    work: Callable[[], Any], arguments: argparse.Namespace, ended: Callable[[Any], tuple[str, int]]
) -> int:
    with logging_to(sys.stderr, arguments.log_level):
        found, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if found is None:
        return code
    text, code = ended(found)
    print(text, flush=True)
    return code


# --- what the spec says


def _document(path: str) -> tuple[Table, Path]:
    """Of a spec of any pattern, only what says where things are kept is read."""
    file = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    document = read_toml(file)
    for name in ("encryption", "storage"):
        if isinstance(document.get(name), dict):
            _SHAPE.check_table(name, document[name])
    return document, file.parent


def _load(arguments: argparse.Namespace) -> tuple[KeySettings, StoredPlaces]:
    try:
        document, folder = _document(arguments.spec)
        keys = _keys(document, folder)
        folders = [_text(document, "checkpoint", "uri"), _text(document, "claim_check", "uri"), *arguments.also]
        url = _text(document, "store", "url")
        return keys, StoredPlaces(
            folders=tuple(absolute(uri, folder) for uri in folders if uri is not None),
            store=None if url is None else database_url(url, folder),
            storage=StorageOptions(**document["storage"]) if document.get("storage") else None,
        )
    except SpecError as error:
        raise SpecError(f"{arguments.spec}: {error}") from None


def _keys(document: Table, folder: Path, *, need_hash_key: bool = True) -> KeySettings:
    table = document.get("encryption")
    keys = encryption_settings(table, folder, os.environ, need_hash_key=need_hash_key) if table else None
    if keys is None:
        raise SpecError("there is no [encryption] in it")
    return keys


def _text(document: Table, table: str, key: str) -> str | None:
    found = document.get(table, {}).get(key)
    if found is not None and not isinstance(found, str):
        raise SpecError(f"{key!r} in [{table}] must be a string")
    return found


def _read_keyring(path: str) -> LocalKeys:
    try:
        return parse_keyring(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({type(error).__name__})") from None
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _wrapped_hash_key(path: str) -> str:
    from airflow_provider_ai.adapters.crypto.hash_keys import wrap_hash_key
    from airflow_provider_ai.adapters.crypto.kms_keys import KmsKeyWrapper

    document, folder = _document(path)
    with in_table("encryption"):
        keys = _keys(document, folder, need_hash_key=False)
        if not isinstance(keys, KmsKeys):
            raise SpecError("kind must be 'kms': for a local key, a keyring is made without a spec")
    return text_of(wrap_hash_key(KmsKeyWrapper(keys), os.urandom(KEY_BYTES), tenant=keys.tenant))
