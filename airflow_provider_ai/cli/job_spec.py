"""The spec of the asynchronous pattern: one file for worker, dispatcher, submitters and waiters.

Paths are relative to the spec's folder. Secrets are not in it: AWS credentials come from the AWS environment, and what
``…_env`` keys name from the process environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_ai.cli.audit_spec import audit_settings
from airflow_provider_ai.cli.encryption_spec import ENCRYPTION_KEYS, encryption_settings
from airflow_provider_ai.cli.spec_keys import (
    AUDIT_KEYS,
    CREDENTIALS,
    NAMES,
    REQUEST_CLASSES,
    TEXT,
    SpecShape,
    Table,
    endpoint_keys,
    kinds_of,
    require_key,
    required_keys,
)
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
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import EndpointSettings, StorageOptions
from airflow_provider_ai.core.job_settings import (
    DispatcherSettings,
    HandlerSettings,
    WebhookSettings,
    WorkerSettings,
)
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

_TRANSPORT_SECRETS = ("access_key", "secret_key", "session_token", "sasl_password")
_FILES = ("ca_file", "client_cert_file", "client_key_file")
JOBS = SpecShape(
    known={
        "transport": {
            **kinds_of(TransportSettings, leave_out=_TRANSPORT_SECRETS),
            "sasl_password_env": TEXT,
        },
        "store": {"url": TEXT},
        "claim_check": kinds_of(ClaimCheckSettings),
        "storage": kinds_of(StorageOptions, leave_out=CREDENTIALS),
        "worker": kinds_of(WorkerSettings),
        "dispatcher": kinds_of(DispatcherSettings),
        "webhook": {**kinds_of(WebhookSettings, leave_out=("secret",)), "secret_env": TEXT},
        "handler": kinds_of(HandlerSettings),
        "encryption": ENCRYPTION_KEYS,
        "endpoint": {**endpoint_keys(), "columns": NAMES},
        "audit": AUDIT_KEYS,
    },
    required={"transport": required_keys(TransportSettings), "store": ["url"]},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A spec file, checked. What is only needed by a worker may be absent.

    :param store: SQLAlchemy URL
    :param unused: keys of ``[endpoint]`` that its protocol has no use for
    """

    transport: TransportSettings
    store: str
    claim_check: ClaimCheckSettings
    storage: StorageOptions
    worker: WorkerSettings
    dispatcher: DispatcherSettings
    webhook: WebhookSettings | None
    handler: HandlerSettings | None
    endpoint: EndpointSettings | None
    request: AnyRequest | None
    keys: KeySettings | None = None
    audit: AuditSettings | None = None
    unused: tuple[str, ...] = ()


def load_job_spec(path: str | Path, *, environ: Mapping[str, str] | None = None, need_secrets: bool = True) -> JobSpec:
    """Read and check a spec file.

    :param environ: where ``…_env`` keys are looked up; ``None`` for the process environment
    :param need_secrets: whether what only a worker needs (API key, webhook secret) must be there
    :raises SpecError: for the first thing that cannot be right; names the file, the table and the key
    """
    file = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    try:
        document = read_toml(file)
        tables = JOBS.check(document)
        return _build(file.parent, tables, os.environ if environ is None else environ, need_secrets)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _build(folder: Path, tables: dict[str, Table], environ: Mapping[str, str], need_secrets: bool) -> JobSpec:
    endpoint = request = None
    unused: tuple[str, ...] = ()
    if tables["endpoint"]:
        for key in required_keys(EndpointSettings):
            require_key(tables, "endpoint", key)
        with in_table("endpoint"):
            table = {name: value for name, value in tables["endpoint"].items() if name != "columns"}
            secret = api_key(table, environ, needed=need_secrets)
            endpoint = endpoint_settings(table, folder, secret=secret)
            request = make_request(table, folder, columns=_columns(tables["endpoint"]))
        unused = unused_keys(table, request)
    with in_table("claim_check"):
        claim_check = ClaimCheckSettings(**located(tables["claim_check"], "uri", folder))
    with in_table("worker"):
        worker = WorkerSettings(**tables["worker"])
    with in_table("dispatcher"):
        dispatcher = DispatcherSettings(**tables["dispatcher"])
    with in_table("handler"):
        handler = HandlerSettings(**tables["handler"]) if tables["handler"] else None
    store, storage = database_url(tables["store"]["url"], folder), StorageOptions(**tables["storage"])
    return JobSpec(
        transport=_transport(tables["transport"], folder, environ),
        store=store,
        claim_check=claim_check,
        storage=storage,
        worker=worker,
        dispatcher=dispatcher,
        webhook=_webhook(tables["webhook"], folder, environ, need_secrets),
        handler=handler,
        endpoint=endpoint,
        request=request,
        keys=encryption_settings(tables["encryption"], folder, environ),
        audit=audit_settings(tables["audit"], folder, environ, store=store, storage=storage),
        unused=unused,
    )


def _columns(endpoint: Table) -> list[str] | None:
    """The fields of a payload that are sent; None for all. A job's payload may hold more: the id of its row, say."""
    columns: list[str] | None = endpoint.get("columns")
    request = REQUEST_CLASSES.get(endpoint["protocol"])
    if columns is not None and request is not None and "columns" not in kinds_of(request):
        raise SpecError(f"columns must be absent with protocol {endpoint['protocol']!r}: its prompt names them")
    return columns


def _transport(table: Table, folder: Path, environ: Mapping[str, str]) -> TransportSettings:
    settings = {name: value for name, value in table.items() if name != "sasl_password_env"}
    for name in _FILES:
        settings = located(settings, name, folder)
    with in_table("transport"):
        password = _secret(table, "sasl_password_env", environ, needed=True)
        return TransportSettings(**settings, sasl_password=password)


def _webhook(table: Table, folder: Path, environ: Mapping[str, str], need_secrets: bool) -> WebhookSettings | None:
    if not table:
        return None
    for key in ("url", "secret_env"):
        require_key({"webhook": table}, "webhook", key)
    settings = located({name: value for name, value in table.items() if name != "secret_env"}, "ca_file", folder)
    with in_table("webhook"):
        secret = _secret(table, "secret_env", environ, needed=need_secrets)
        return None if secret is None else WebhookSettings(**settings, secret=secret)


def _secret(table: Table, key: str, environ: Mapping[str, str], *, needed: bool) -> str | None:
    variable = table.get(key)
    value = None if variable is None else environ.get(variable)
    if variable is not None and not value and needed:
        raise SpecError(f"{key!r} names the environment variable {variable!r}, which is not set")
    return value or None
