"""The ``[audit]`` table of a spec: the audit is on where the table is there, unless it says ``on = false``.

Keys are not in it: ``hmac_key_env`` and ``signing_key_env`` name environment variables, ``…_file`` files. Events go to
the spec's ``[store]`` unless the table names a store of its own, whose role then needs no right but to insert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_ai.cli.spec_keys import AUDIT_KEYS, SpecShape, Table
from airflow_provider_ai.cli.spec_parts import absolute, database_url, in_table, located
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import SpecError

_ELSEWHERE = ("on", "hmac_key_env", "hmac_key_file", "signing_key_env", "signing_key_file", "public_key_files")
_SHAPE = SpecShape(known={"audit": AUDIT_KEYS}, required={})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlaces:
    """What is needed to verify and to export: no secret but the store's own."""

    store: str
    heads: str | None
    public_keys: tuple[str, ...]


def audit_settings(
    table: Table,
    folder: Path,
    environ: Mapping[str, str],
    *,
    store: str | None,
    storage: StorageOptions | None = None,
) -> AuditSettings | None:
    """The audit of a spec; None when it is off.

    :param store: URL of the spec's ``[store]``, for a table that names none
    :param storage: how S3 is reached
    """
    if not table or table.get("on") is False:
        return None
    with in_table("audit"):
        settings = {name: value for name, value in table.items() if name not in _ELSEWHERE}
        hmac_key = _secret(table, "hmac_key", folder, environ)
        if hmac_key is None:
            raise SpecError("missing key 'hmac_key_env': record keys are made with it")
        return AuditSettings(
            **{
                **located(settings, "heads", folder),
                "store": _store(table, folder, store),
                "hmac_key": hmac_key.strip().encode(),
                "signing_key": _secret(table, "signing_key", folder, environ),
                "storage": storage or StorageOptions(),
            }
        )


def audited(settings: AuditSettings | None, role: str) -> dict[str, Any]:
    """The argument ``audit`` of a runtime, for whoever runs this process; nothing where the audit is off."""
    if settings is None:
        return {}
    from airflow_provider_ai.runtime.auditing import Audit, shell_actor

    return {"audit": Audit(settings=settings, actor=shell_actor(role))}


def audit_places(document: Mapping[str, object], folder: Path) -> AuditPlaces:
    """Where the audit of a spec is; only ``[audit]`` and ``[store]`` are read, the rest may be of any kind."""
    table, store = document.get("audit", {}), document.get("store", {})
    if not isinstance(table, dict) or not table:
        raise SpecError("there is no [audit] in it")
    _SHAPE.check_table("audit", table)
    url = store.get("url") if isinstance(store, dict) else None
    known = database_url(url, folder) if isinstance(url, str) else None
    with in_table("audit"):
        keys = tuple(_read(absolute(name, folder)) for name in table.get("public_key_files", ()))
        heads = located(table, "heads", folder).get("heads")
        return AuditPlaces(store=_store(table, folder, known), heads=heads, public_keys=keys)


def audit_hmac_key(document: Mapping[str, object], folder: Path, environ: Mapping[str, str]) -> bytes:
    """The key that record keys are made with."""
    table = document.get("audit", {})
    secret = _secret(table, "hmac_key", folder, environ) if isinstance(table, dict) else None
    if secret is None:
        raise SpecError("there is no [audit] with hmac_key_env or hmac_key_file in it")
    return secret.strip().encode()


def read_key_file(path: str) -> str:
    """The text of a key file that the command line names."""
    return _read(path)


def _store(table: Table, folder: Path, known: str | None) -> str:
    url = database_url(table["store"], folder) if "store" in table else known
    if url is None:
        raise SpecError("missing key 'store': the SQLAlchemy URL of the store that holds the events")
    return url


def _secret(table: Table, name: str, folder: Path, environ: Mapping[str, str]) -> str | None:
    variable, file = table.get(f"{name}_env"), table.get(f"{name}_file")
    if variable is not None and file is not None:
        raise SpecError(f"only one of '{name}_env' and '{name}_file' can say where the key is")
    if file is not None:
        return _read(absolute(file, folder))
    if variable is None:
        return None
    value = environ.get(variable)
    if not value:
        raise SpecError(f"'{name}_env' names the environment variable {variable!r}, which is not set")
    return value


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise SpecError(f"{path}: the key cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: the key must be text") from None
