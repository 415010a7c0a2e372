"""The batch spec: one TOML file that says everything about a batch. It is read once, before anything is started.

Relative paths are relative to the spec's folder, so it does not matter where cron starts the command. Secrets are not
in the file: the API key comes from the variable ``api_key_env`` names, AWS credentials from the usual environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_ai.cli.audit_spec import audit_settings
from airflow_provider_ai.cli.encryption_spec import ENCRYPTION_KEYS, encryption_settings
from airflow_provider_ai.cli.spec_keys import BATCH, REQUEST_CLASSES, SpecShape, Table, require_key
from airflow_provider_ai.cli.spec_parts import (
    AnyRequest,
    api_key,
    database_url,
    endpoint_settings,
    in_table,
    located,
    make_request,
    read_toml,
    unused_keys,
)
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.core.requests import JsonRequest, OpenInferenceRequest
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

SHAPE = SpecShape({**BATCH.known, "encryption": ENCRYPTION_KEYS}, BATCH.required)
_SENDS_COLUMNS = (JsonRequest, OpenInferenceRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """A spec file, checked. ``unused``: its keys that the protocol has no use for."""

    path: Path
    input: InputSettings
    endpoint: EndpointSettings
    request: AnyRequest
    limits: Limits
    checkpoint: CheckpointSettings
    sink: SinkSettings
    storage: StorageOptions | None = None
    keys: KeySettings | None = None
    audit: AuditSettings | None = None
    unused: tuple[str, ...] = ()


def load_batch_spec(
    path: str | Path, *, environ: Mapping[str, str] | None = None, need_api_key: bool = True
) -> BatchSpec:
    """Read and check a spec file.

    :param environ: where ``api_key_env`` is looked up; ``None`` for the process environment
    :param need_api_key: whether an absent variable is an error; showing the status of a batch calls no model
    :raises SpecError: for the first thing that cannot be right; names the file, the table and the key
    """
    file = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    environ = os.environ if environ is None else environ
    try:
        tables = SHAPE.check(read_toml(file))
        audit = None
        if need_api_key:
            storage = StorageOptions(**tables["storage"])
            audit = audit_settings(tables["audit"], file.parent, environ, store=None, storage=storage)
        keys = encryption_settings(tables["encryption"], file.parent, environ)
        secret = api_key(tables["endpoint"], environ, needed=need_api_key)
        return replace(_build(file, tables, secret, keys), audit=audit)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _build(file: Path, tables: dict[str, Table], secret: str | None, keys: KeySettings | None) -> BatchSpec:
    folder = file.parent
    request = _request(tables, folder)
    with in_table("input"):
        source = InputSettings(**_input(tables["input"], request, folder))
    with in_table("endpoint"):
        endpoint = endpoint_settings(tables["endpoint"], folder, secret=secret)
    with in_table("limits"):
        limits = Limits(**{key: value for key, value in tables["limits"].items() if key != "records_per_request"})
    with in_table("checkpoint"):
        checkpoint = CheckpointSettings(**located(tables["checkpoint"], "uri", folder))
    with in_table("sink"):
        sink = SinkSettings(**{**tables["sink"], "url": database_url(tables["sink"]["url"], folder)})
    _refuse_collisions(source, request)
    return BatchSpec(
        path=file,
        input=source,
        endpoint=endpoint,
        request=request,
        limits=limits,
        checkpoint=checkpoint,
        sink=sink,
        storage=StorageOptions(**tables["storage"]) if tables["storage"] else None,
        keys=keys,
        unused=unused_keys(tables["endpoint"], request),
    )


def _input(table: Table, request: AnyRequest, folder: Path) -> Table:
    """The columns to read are those the request needs, or else the ones listed; the id is read in any case."""
    columns = request.columns if request.columns is not None else table.get("columns")
    if columns is not None:
        columns = tuple(name for name in columns if name != table["id_column"])
    return {**located(table, "uri", folder), "columns": columns}


def _request(tables: dict[str, Table], folder: Path) -> AnyRequest:
    protocol = tables["endpoint"]["protocol"]
    records = tables["limits"].get("records_per_request")
    if REQUEST_CLASSES.get(protocol) is OpenInferenceRequest:
        require_key(tables, "input", "columns", f": protocol {protocol!r} sends them in the order given")
    if protocol == "openai-chat" and records not in (None, 1):
        raise SpecError(f"[limits] records_per_request must be 1: a completion answers one record, got {records}")
    try:
        return make_request(
            tables["endpoint"],
            folder,
            columns=tables["input"].get("columns") if REQUEST_CLASSES.get(protocol) in _SENDS_COLUMNS else None,
            records_per_request=None if protocol == "openai-chat" else records,
        )
    except SpecError as error:
        raise SpecError(_at_home(str(error))) from None


def _at_home(message: str) -> str:
    if "[endpoint]" in message:
        return message
    home = {"columns": "input", "records_per_request": "limits"}.get(message.split(" ", 1)[0], "endpoint")
    return f"[{home}] {message}"


def _refuse_collisions(source: InputSettings, request: AnyRequest) -> None:
    if source.id_column in request.output_columns:
        raise SpecError(f"[endpoint] the output column {source.id_column!r} has the name of the id column")
    if request.protocol == "json" and source.id_column != "id" and "id" in (request.columns or ()):
        raise SpecError("[input] columns must not hold 'id': protocol 'json' sends the id column under that name")
