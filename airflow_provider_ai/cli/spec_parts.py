"""What all spec files have in common: TOML read once, paths relative to the spec's folder, an endpoint and its request.

Secrets are not in a file: the API key comes from the variable that ``api_key_env`` names.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_ai.cli.spec_keys import REQUEST_CLASSES, Table, request_keys
from airflow_provider_ai.core.config import PROTOCOLS, EndpointSettings
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


def read_toml(file: Path) -> Table:
    """The document in a spec file; SpecError when there is none."""
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


def api_key(endpoint: Table, environ: Mapping[str, str], *, needed: bool = True) -> str | None:
    """The API key of an ``[endpoint]``; SpecError when it is ``needed`` and its variable is not set."""
    variable = endpoint.get("api_key_env")
    value = environ.get(variable) if variable is not None else None
    if needed and variable is not None and not value:
        raise SpecError(f"'api_key_env' in [endpoint] names the environment variable {variable!r}, which is not set")
    return value


@contextmanager
def in_table(name: str) -> Iterator[None]:
    """A SpecError from within names the table."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"[{name}] {error}") from None


# --- paths


def located(table: Table, key: str, folder: Path) -> Table:
    """The table with the path under ``key`` below ``folder``."""
    return {**table, key: absolute(table[key], folder)} if key in table else table


def absolute(uri: str, folder: Path) -> str:
    """A path below the spec's folder, unless it says itself where it is. A trailing slash stays."""
    if "://" in uri or not uri.strip():
        return uri
    return os.path.join(folder, os.path.expanduser(uri))  # noqa: PTH111, PTH118 - a Path drops the slash


def database_url(url: str, folder: Path) -> str:
    """A SQLAlchemy URL; the file of a database that is one lies below ``folder`` unless the URL says where."""
    match = _FILE_DATABASE.fullmatch(url)
    if match is None or match["path"].startswith(_NO_FILE):
        return url
    return f"{match['driver']}{absolute(match['path'], folder)}{match['rest']}"


# --- endpoints


def endpoint_settings(table: Table, folder: Path, *, secret: str | None) -> EndpointSettings:
    """The endpoint of an ``[endpoint]`` table."""
    every_request = set[str]().union(*map(request_keys, REQUEST_CLASSES.values()))
    settings = {name: value for name, value in table.items() if name not in {"api_key_env", *every_request}}
    for name in _FILE_KEYS:
        settings = located(settings, name, folder)
    return EndpointSettings(**settings, api_key=secret)


def make_request(
    endpoint: Table, folder: Path, *, columns: Sequence[str] | None = None, records_per_request: int | None = None
) -> AnyRequest:
    """The request that an ``[endpoint]`` table describes.

    :param columns: of the records; for the protocols that send columns
    :param records_per_request: for the protocols that can send several
    """
    protocol = endpoint["protocol"]
    if protocol not in PROTOCOLS:
        raise SpecError(f"[endpoint] protocol must be one of {PROTOCOLS}, got {protocol!r}")
    if protocol.startswith("openai-") and "prompt" not in endpoint:
        raise SpecError(f"missing key 'prompt' in [endpoint]: protocol {protocol!r} sends one")
    request = REQUEST_CLASSES[protocol]
    settings = {name: value for name, value in endpoint.items() if name in request_keys(request) | {"path"}}
    if isinstance(settings.get("output_schema"), str):
        settings["output_schema"] = _read_schema(absolute(settings["output_schema"], folder))
    if columns is not None:
        settings["columns"] = columns
    if records_per_request is not None:
        settings["records_per_request"] = records_per_request
    return request(**settings)


def unused_keys(endpoint: Table, request: AnyRequest) -> tuple[str, ...]:
    """Keys of an ``[endpoint]`` that its protocol has no use for."""
    every_request = set[str]().union(*map(request_keys, REQUEST_CLASSES.values()))
    return tuple(sorted((every_request - request_keys(type(request))) & endpoint.keys()))


def _read_schema(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SpecError(f"[endpoint] output_schema: {path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise SpecError(f"[endpoint] output_schema: {path} must be a JSON file") from None
