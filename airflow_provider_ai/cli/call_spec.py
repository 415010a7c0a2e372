"""The spec of a synchronous call: an endpoint, how long an answer may take, and what is answered when it has none.

Paths are relative to the spec's folder. The API key of each endpoint comes from the variable its ``api_key_env`` names;
a fallback endpoint inherits protocol, model and request of ``[endpoint]``, never its key or headers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.audit_spec import audit_settings
from airflow_provider_ai.cli.encryption_spec import ENCRYPTION_KEYS, encryption_settings
from airflow_provider_ai.cli.spec_keys import (
    ANYTHING,
    AUDIT_KEYS,
    NUMBER,
    TEXT,
    SpecShape,
    Table,
    endpoint_keys,
    kinds_of,
    nearest,
    require_key,
    required_keys,
)
from airflow_provider_ai.cli.spec_parts import (
    AnyRequest,
    api_key,
    database_url,
    endpoint_settings,
    in_table,
    make_request,
    read_toml,
    unused_keys,
)
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Callable, Endpoint, LastGood, Link, Static, check_chain
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

CALL = SpecShape(
    known={
        "endpoint": endpoint_keys(),
        "call": kinds_of(CallSettings, leave_out=("breaker",)),
        "breaker": kinds_of(BreakerSettings),
        "store": {"url": TEXT},
        "encryption": ENCRYPTION_KEYS,
        "audit": AUDIT_KEYS,
    },
    required={"endpoint": required_keys(EndpointSettings)},
)
_RESERVE = {"reserve_seconds": NUMBER}
FALLBACK = SpecShape(
    known={
        "last-good": {"max_age_seconds": NUMBER},
        "endpoint": {**endpoint_keys(), **_RESERVE},
        "callable": {"path": TEXT, **_RESERVE},
        "static": {"value": ANYTHING},
    },
    required={"last-good": ["max_age_seconds"], "endpoint": ["url"], "callable": ["path"], "static": ["value"]},
)
_OWN = ("api_key_env", "headers", "url", "ca_file", "client_cert_file", "client_key_file", "verify_tls", "p99_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpec:
    """A spec file, checked. ``unused``: its keys that the protocol has no use for; ``store``: a SQLAlchemy URL."""

    endpoint: EndpointSettings
    request: AnyRequest
    settings: CallSettings
    fallback: tuple[Link, ...]
    store: str | None
    keys: KeySettings | None = None
    audit: AuditSettings | None = None
    unused: tuple[str, ...] = ()


def load_call_spec(path: str | Path, *, environ: Mapping[str, str] | None = None) -> CallSpec:
    """Read and check a spec file.

    :param environ: where ``api_key_env`` is looked up; ``None`` for the process environment
    :raises SpecError: for the first thing that cannot be right; names the file, the table and the key
    """
    file = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    try:
        document = read_toml(file)
        links = document.pop("fallback", [])
        return _build(file.parent, CALL.check(document), links, os.environ if environ is None else environ)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _build(folder: Path, tables: dict[str, Table], links: Any, environ: Mapping[str, str]) -> CallSpec:
    table = tables["endpoint"]
    with in_table("endpoint"):
        endpoint = endpoint_settings(table, folder, secret=api_key(table, environ))
        request = make_request(table, folder)
    with in_table("breaker"):
        breaker = BreakerSettings(**tables["breaker"])
    with in_table("call"):
        settings = CallSettings(**tables["call"], breaker=breaker)
    given = tables["store"].get("url")
    store = None if given is None else database_url(given, folder)
    return CallSpec(
        endpoint=endpoint,
        request=request,
        settings=settings,
        fallback=_chain(links, table, folder, environ),
        store=store,
        keys=encryption_settings(tables["encryption"], folder, environ),
        audit=audit_settings(tables["audit"], folder, environ, store=store),
        unused=unused_keys(table, request),
    )


# --- fallbacks


def _chain(links: Any, primary: Table, folder: Path, environ: Mapping[str, str]) -> tuple[Link, ...]:
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise SpecError("fallback must be an array of tables: write [[fallback]] above each")
    if not links:
        raise SpecError('missing [[fallback]]: a call needs one with kind = "static", which always has an answer')
    chain = []
    for number, link in enumerate(links, start=1):
        with in_table(f"fallback number {number}"):
            chain.append(_link(link, primary, folder, environ))
    return check_chain(chain)


def _link(table: Table, primary: Table, folder: Path, environ: Mapping[str, str]) -> Link:
    kind = table.get("kind")
    if kind is None:
        raise SpecError(f"missing key 'kind': one of {', '.join(FALLBACK.known)}")
    if kind not in FALLBACK.known:
        raise SpecError(f"unknown kind {kind!r}; did you mean {nearest(str(kind), FALLBACK.known)!r}?")
    settings = {key: value for key, value in table.items() if key != "kind"}
    FALLBACK.check_table(kind, settings)
    for key in FALLBACK.required[kind]:
        require_key({kind: settings}, kind, key)
    if kind == "static":
        return Static(settings["value"])
    if kind == "last-good":
        return LastGood(max_age=settings["max_age_seconds"])
    if kind == "callable":
        return Callable(**settings)
    return _endpoint_link(settings, primary, folder, environ)


def _endpoint_link(settings: Table, primary: Table, folder: Path, environ: Mapping[str, str]) -> Endpoint:
    reserve = settings.pop("reserve_seconds", None)
    inherited = {key: value for key, value in primary.items() if key not in _OWN}
    if settings.get("protocol", primary["protocol"]) != primary["protocol"]:
        # Another protocol has another path and other settings of the request.
        inherited = {"model": primary["model"]}
    table = {**inherited, **settings}
    endpoint = endpoint_settings(table, folder, secret=api_key(table, environ))
    return Endpoint(endpoint, make_request(table, folder), reserve)
