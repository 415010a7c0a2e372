"""``[encryption]`` of a spec: where the keys come from. The keys themselves are never in the file.

::

    [encryption]
    kind = "local"
    keyring_env = "AI_KEYRING"        # or keyring_file; what `airflow-ai keys generate` prints
    tenant = "clinic-a"

    [encryption]
    kind = "kms"
    key_id = "arn:aws:kms:eu-central-1:…:key/…"
    wrapped_hash_key = "…"            # what `airflow-ai keys generate SPEC.toml` prints; or hash_key_env, hash_key_file
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.spec_keys import NAMES, NUMBER, TEXT, WHOLE, Table, require_key
from airflow_provider_ai.cli.spec_parts import absolute, in_table
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import DataKeyLimits, KeySettings, KmsKeys

ENCRYPTION_KEYS = {
    "kind": TEXT,
    "tenant": TEXT,
    "keyring_env": TEXT,
    "keyring_file": TEXT,
    "key_id": TEXT,
    "older_key_ids": NAMES,
    "region": TEXT,
    "endpoint_url": TEXT,
    "hash_key_env": TEXT,
    "hash_key_file": TEXT,
    "wrapped_hash_key": TEXT,
    "data_key_seconds": NUMBER,
    "data_key_messages": WHOLE,
    "data_key_bytes": WHOLE,
}
_LOCAL = ("keyring_env", "keyring_file")
_KMS = (
    "key_id",
    "older_key_ids",
    "region",
    "endpoint_url",
    "hash_key_env",
    "hash_key_file",
    "wrapped_hash_key",
)
_LIMITS = {"data_key_seconds": "max_age_seconds", "data_key_messages": "max_messages", "data_key_bytes": "max_bytes"}


def encryption_settings(
    table: Table, folder: Path, environ: Mapping[str, str], *, need_hash_key: bool = True
) -> KeySettings | None:
    """The keys that a table names; None for an absent (empty) one.

    :param need_hash_key: False where one is about to be made
    :raises SpecError: names the key of the table, never what it leads to
    """
    if not table:
        return None
    with in_table("encryption"):
        require_key({"encryption": table}, "encryption", "kind")
        kind = table["kind"]
        if kind not in ("local", "kms"):
            raise SpecError(f"kind must be 'local' or 'kms', got {kind!r}")
        _refuse(table, _KMS if kind == "local" else _LOCAL, kind)
        if kind == "local":
            from airflow_provider_ai.core.keyring import parse_keyring

            text = _secret(table, "keyring", folder, environ)
            return parse_keyring(text, **_common(table))
        return _kms(table, folder, environ, need_hash_key)


def _kms(table: Table, folder: Path, environ: Mapping[str, str], need_hash_key: bool) -> KmsKeys:
    from airflow_provider_ai.core.key_settings import KmsKeys
    from airflow_provider_ai.core.keyring import bytes_from_text, key_from_text

    require_key({"encryption": table}, "encryption", "key_id")
    settings: dict[str, Any] = {name: table[name] for name in ("key_id", "region", "endpoint_url") if name in table}
    settings["older_key_ids"] = tuple(table.get("older_key_ids", ()))
    if "wrapped_hash_key" in table:
        settings["wrapped_hash_key"] = bytes_from_text(table["wrapped_hash_key"], "wrapped_hash_key")
    if "hash_key_env" in table or "hash_key_file" in table:
        settings["hash_key"] = key_from_text(_secret(table, "hash_key", folder, environ), "the hash key")
    if not need_hash_key and not settings.keys() & {"hash_key", "wrapped_hash_key"}:
        settings["wrapped_hash_key"] = b""
    return KmsKeys(**settings, **_common(table))


def _common(table: Table) -> dict[str, Any]:
    given: dict[str, Any] = {"limits": _limits(table)}
    return given | ({"tenant": table["tenant"]} if "tenant" in table else {})


def _limits(table: Table) -> DataKeyLimits:
    from airflow_provider_ai.core.key_settings import DataKeyLimits

    return DataKeyLimits(**{name: table[key] for key, name in _LIMITS.items() if key in table})


def _refuse(table: Table, keys: tuple[str, ...], kind: str) -> None:
    for key in keys:
        if key in table:
            raise SpecError(f"{key!r} is for the other kind than {kind!r}")


def _secret(table: Table, name: str, folder: Path, environ: Mapping[str, str]) -> str:
    """The text that ``…_env`` or ``…_file`` leads to."""
    variable, file = table.get(f"{name}_env"), table.get(f"{name}_file")
    if (variable is None) == (file is None):
        raise SpecError(f"either '{name}_env' or '{name}_file' must be set, got {'both' if file else 'neither'}")
    if variable is not None:
        value = environ.get(variable)
        if not value:
            raise SpecError(f"'{name}_env' names the environment variable {variable!r}, which is not set")
        return value
    try:
        return Path(absolute(str(file), folder)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"'{name}_file' cannot be read ({type(error).__name__})") from None
