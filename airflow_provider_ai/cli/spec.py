"""The batch spec: one TOML file that says everything about a batch. It is read once, before anything is started.

Relative paths are relative to the spec's folder, so it does not matter where cron starts the command. Secrets are not
in the file: the API key comes from the variable ``api_key_env`` names, AWS credentials from the usual environment.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_ai.cli.spec_keys import REQUEST_CLASSES, Table, check_keys, request_keys, require_key
from airflow_provider_ai.core.config import (
    PROTOCOLS,
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.exceptions import SpecError

AnyRequest = JsonRequest | OpenInferenceRequest | OpenAIChatRequest | OpenAIEmbeddingsRequest
_FILE_KEYS = ("ca_file", "client_cert_file", "client_key_file")
_FILE_DATABASE = re.compile(r"(?P<driver>(?:sqlite|duckdb)(?:\+\w+)?:///)(?P<path>[^?]+)(?P<rest>.*)", re.DOTALL)
_NO_FILE = (":memory:", "file:", "md:", "/")


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
        tables = check_keys(_read_toml(file))
        return _build(file, tables, _api_key(tables["endpoint"], environ, needed=need_api_key))
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _read_toml(file: Path) -> Table:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise SpecError("there is no such file") from None
    except OSError as error:
        raise SpecError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SpecError("must be UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"must be valid TOML: {error}") from None


def _api_key(endpoint: Table, environ: Mapping[str, str], *, needed: bool) -> str | None:
    variable = endpoint.get("api_key_env")
    value = environ.get(variable) if variable is not None else None
    if needed and variable is not None and not value:
        raise SpecError(f"'api_key_env' in [endpoint] names the environment variable {variable!r}, which is not set")
    return value


def _build(file: Path, tables: dict[str, Table], api_key: str | None) -> BatchSpec:
    folder = file.parent
    request = _request(tables, folder)
    with _in_table("input"):
        source = InputSettings(**_input(tables["input"], request, folder))
    with _in_table("endpoint"):
        endpoint = EndpointSettings(**_endpoint(tables["endpoint"], folder), api_key=api_key)
    with _in_table("limits"):
        limits = Limits(**_without(tables["limits"], "records_per_request"))
    with _in_table("checkpoint"):
        checkpoint = CheckpointSettings(**_located(tables["checkpoint"], "uri", folder))
    with _in_table("sink"):
        sink = SinkSettings(**{**tables["sink"], "url": _sink_url(tables["sink"]["url"], folder)})
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
        unused=_unused(tables, request),
    )


@contextmanager
def _in_table(name: str) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise SpecError(f"[{name}] {error}") from None


def _without(table: Table, *keys: str) -> Table:
    return {key: value for key, value in table.items() if key not in keys}


# --- paths


def _located(table: Table, key: str, folder: Path) -> Table:
    return {**table, key: _absolute(table[key], folder)} if key in table else table


def _absolute(uri: str, folder: Path) -> str:
    """A path below the spec's folder, unless it says itself where it is. A trailing slash stays."""
    if "://" in uri or not uri.strip():
        return uri
    return os.path.join(folder, os.path.expanduser(uri))  # noqa: PTH111, PTH118 - a Path drops the slash


def _sink_url(url: str, folder: Path) -> str:
    match = _FILE_DATABASE.fullmatch(url)
    if match is None or match["path"].startswith(_NO_FILE):
        return url
    return f"{match['driver']}{_absolute(match['path'], folder)}{match['rest']}"


# --- tables


def _input(table: Table, request: AnyRequest, folder: Path) -> Table:
    """The columns to read are those the request needs, or else the ones listed; the id is read in any case."""
    columns = request.columns if request.columns is not None else table.get("columns")
    if columns is not None:
        columns = tuple(name for name in columns if name != table["id_column"])
    return {**_located(table, "uri", folder), "columns": columns}


def _endpoint(table: Table, folder: Path) -> Table:
    every_request = set[str]().union(*map(request_keys, REQUEST_CLASSES.values()))
    settings = _without(table, "api_key_env", *every_request)
    for key in _FILE_KEYS:
        settings = _located(settings, key, folder)
    return settings


def _request(tables: dict[str, Table], folder: Path) -> AnyRequest:
    endpoint, protocol = tables["endpoint"], tables["endpoint"]["protocol"]
    if protocol not in PROTOCOLS:
        raise SpecError(f"[endpoint] protocol must be one of {PROTOCOLS}, got {protocol!r}")
    request = REQUEST_CLASSES[protocol]
    _require_for(protocol, tables)
    settings = {key: value for key, value in endpoint.items() if key in request_keys(request) | {"path"}}
    if isinstance(settings.get("output_schema"), str):
        settings["output_schema"] = _read_schema(_absolute(settings["output_schema"], folder))
    if request in (JsonRequest, OpenInferenceRequest) and "columns" in tables["input"]:
        settings["columns"] = tables["input"]["columns"]
    if "records_per_request" in tables["limits"] and protocol != "openai-chat":
        settings["records_per_request"] = tables["limits"]["records_per_request"]
    try:
        return request(**settings)
    except SpecError as error:
        raise SpecError(f"[{_home(str(error))}] {error}") from None


def _home(message: str) -> str:
    return {"columns": "input", "records_per_request": "limits"}.get(message.split(" ", 1)[0], "endpoint")


def _require_for(protocol: str, tables: dict[str, Table]) -> None:
    if protocol.startswith("openai-"):
        require_key(tables, "endpoint", "prompt", f": protocol {protocol!r} sends one")
    if protocol in ("open-inference", "open-inference-grpc"):
        require_key(tables, "input", "columns", f": protocol {protocol!r} sends them in the order given")
    records = tables["limits"].get("records_per_request", 1)
    if protocol == "openai-chat" and records != 1:
        raise SpecError(f"[limits] records_per_request must be 1: a completion answers one record, got {records}")


def _read_schema(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SpecError(f"[endpoint] output_schema: {path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise SpecError(f"[endpoint] output_schema: {path} must be a JSON file") from None


def _refuse_collisions(source: InputSettings, request: AnyRequest) -> None:
    if source.id_column in request.output_columns:
        raise SpecError(f"[endpoint] the output column {source.id_column!r} has the name of the id column")
    if request.protocol == "json" and source.id_column != "id" and "id" in (request.columns or ()):
        raise SpecError("[input] columns must not hold 'id': protocol 'json' sends the id column under that name")


def _unused(tables: dict[str, Table], request: AnyRequest) -> tuple[str, ...]:
    every_request = set[str]().union(*map(request_keys, REQUEST_CLASSES.values()))
    foreign = every_request - request_keys(type(request))
    return tuple(sorted(foreign & tables["endpoint"].keys()))
