"""An Airflow connection of type ``ai_jobs`` → where jobs go: queues, claim checks and the store that all parties share.

One connection says all of it, for whoever submits and whoever waits must mean the same queues and the same store. Keys
for AWS come from a connection of the amazon provider, when one is named, and from the usual AWS places otherwise.
Invariants: as with ``ai_endpoint``, one parser for operators, sensors, triggers, the webhook and the Test button; no
unknown extra; no secret in a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowException, BaseHook, mask_secret

from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import AIProviderError, SpecError
from airflow_provider_ai.hooks.audit import audit_settings
from airflow_provider_ai.hooks.extras import ConnectionFields, boolean, number, parse_extras, whole
from airflow_provider_ai.hooks.storage import DEFAULT_AWS_CONN_ID, aws_access, storage_options

if TYPE_CHECKING:
    from airflow_provider_ai.patterns.collecting import CollectedReply
    from airflow_provider_ai.runtime.job_service import JobSettings

CONNECTION_TYPE = "ai_jobs"
DEFAULT_CONN_ID = "ai_jobs"
DEFAULT_STORE_CONN_ID = "ai_store"


def _seconds(value: Any) -> float:
    return number(value, "seconds")


_OF_TRANSPORT: Mapping[str, Callable[[Any], Any]] = {
    "kind": str,
    "request_queue": str,
    "result_queue": str,
    "dead_letter_queue": str,
    "call_timeout_seconds": _seconds,
    "ca_file": str,
    "allow_plaintext": boolean,
    "region": str,
    "consumer_group": str,
    "session_timeout_seconds": _seconds,
    "security_protocol": str,
    "client_cert_file": str,
    "client_key_file": str,
    "sasl_mechanism": str,
}
EXTRAS: Mapping[str, Callable[[Any], Any]] = {
    **_OF_TRANSPORT,
    "aws_conn_id": str,
    "store_conn_id": str,
    "claim_check_uri": str,
    "inline_limit_bytes": whole,
    "webhook_secret": str,
    "webhook_second_secret": str,
    "keys_conn_id": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConnection:
    """What the connection itself says; the connections that it names are not looked up yet.

    :param transport: without the keys of an AWS connection
    :param keys_conn_id: of the keys that encrypt payloads and results
    :param webhook_secrets: the keys that sign webhooks now: one, or two while they are rotated
    """

    conn_id: str
    transport: TransportSettings
    claim_check: ClaimCheckSettings
    store_conn_id: str = DEFAULT_STORE_CONN_ID
    aws_conn_id: str | None = None
    keys_conn_id: str | None = None
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)


def jobs_connection(conn: ConnectionFields) -> JobsConnection:
    """What the connection says. SpecError names the connection, the field and what it must be; never a secret."""
    try:
        extras = parse_extras(conn.extra, EXTRAS)
        secrets = [extras.pop(name, None) for name in ("webhook_secret", "webhook_second_secret")]
        of_transport = {name: extras.pop(name) for name in _OF_TRANSPORT if name in extras}
        return JobsConnection(
            conn_id=conn.conn_id,
            transport=_transport(conn, of_transport),
            claim_check=_claim_check(extras.pop("claim_check_uri", None), extras.pop("inline_limit_bytes", None)),
            webhook_secrets=tuple(secret for secret in secrets if secret is not None),
            **extras,
        )
    except SpecError as error:
        raise SpecError(f"connection {conn.conn_id!r} (type {CONNECTION_TYPE}): {error}") from None


def _claim_check(uri: str | None, limit: int | None) -> ClaimCheckSettings:
    if uri is None:
        raise SpecError("claim_check_uri is missing; set it in the connection's Claim checks field")
    absolute = uri.startswith(("/", "file:///", "s3://"))
    require(absolute, "claim_check_uri must be s3://… or an absolute path that all workers share", "another one")
    return ClaimCheckSettings(uri=uri) if limit is None else ClaimCheckSettings(uri=uri, inline_limit_bytes=limit)


def _transport(conn: ConnectionFields, given: dict[str, Any]) -> TransportSettings:
    given.setdefault("kind", "sqs")
    for name in ("request_queue", "result_queue", "dead_letter_queue"):
        if name not in given:
            raise SpecError(f"{name} is missing; set it in the connection's {name.replace('_', ' ')} field")
    host = (conn.host or "").strip() or None
    if given["kind"] == "kafka":
        servers = host if host is None or ":" in host or conn.port is None else f"{host}:{conn.port}"
        return TransportSettings(
            bootstrap_servers=servers, sasl_username=conn.login or None, sasl_password=conn.password or None, **given
        )
    if conn.login or conn.password:
        raise SpecError("login and password are for Kafka; name an AWS connection in aws_conn_id for the keys of SQS")
    return TransportSettings(endpoint_url=host, **given)


class AIJobsHook(BaseHook):
    """The queues, claim checks and store of asynchronous jobs, on SQS or Kafka.

    Connection fields: ``host`` is the SQS endpoint (empty: AWS) or Kafka's bootstrap servers, login and password are
    Kafka's; everything else is in the extras.

    :param transport_conn_id: connection of type ``ai_jobs``
    :param store_conn_id: connection of the store instead of the one that it names
    """

    conn_name_attr = "transport_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = "AI jobs"

    def __init__(self, transport_conn_id: str = default_conn_name, store_conn_id: str | None = None) -> None:
        super().__init__()
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id

    def connection(self) -> JobsConnection:
        """What the connection says; SpecError when it cannot be right."""
        conn = cast(ConnectionFields, self.get_connection(self.transport_conn_id))
        for secret in (conn.password, *(found := jobs_connection(conn)).webhook_secrets):
            if secret:
                mask_secret(secret)
        return found

    def get_conn(self, *, uris: Iterable[str] = ()) -> JobSettings:
        """Everything a job needs, the connections that this one names included. SpecError as :meth:`connection`.

        :param uris: datasets that are to be reached as well

        In triggers: in a thread (:func:`asgiref.sync.sync_to_async`).
        """
        # SQLAlchemy is not needed to parse a DAG.
        from airflow_provider_ai.hooks.ai_keys import keys_of
        from airflow_provider_ai.hooks.store import store_url
        from airflow_provider_ai.runtime.job_service import JobSettings

        found = self.connection()
        uri = found.claim_check.uri or ""
        return JobSettings(
            transport=with_aws(found.transport, found.aws_conn_id),
            store=store_url(self.store_conn_id or found.store_conn_id),
            claim_check=found.claim_check,
            storage=storage_options((uri, *uris), found.aws_conn_id or DEFAULT_AWS_CONN_ID),
            keys=keys_of(found.keys_conn_id),
            audit=audit_settings(),
        )

    def test_connection(self) -> tuple[bool, str]:
        """Whether store and queues can be reached, and what waits in them. For the Test button."""
        from airflow_provider_ai.runtime.job_service import check_service

        try:
            return True, check_service(self.get_conn())
        except (AIProviderError, AirflowException) as error:
            return False, str(error)


def with_aws(transport: TransportSettings, aws_conn_id: str | None) -> TransportSettings:
    """The transport with region, endpoint and keys of an AWS connection, as far as it has none itself."""
    if aws_conn_id is None or transport.kind == "kafka":
        return transport
    access = aws_access(aws_conn_id, "sqs")
    return replace(
        transport,
        endpoint_url=transport.endpoint_url or access.endpoint_url,
        region=transport.region or access.region,
        access_key=access.access_key,
        secret_key=access.secret_key,
        session_token=access.session_token,
    )


def load_replies(
    manifest: Mapping[str, Any], *, transport_conn_id: str = DEFAULT_CONN_ID, store_conn_id: str | None = None
) -> Iterator[CollectedReply]:
    """The replies of a submission, in order, for the tasks that need them; read a page at a time.

    :param manifest: what the operator returned
    """
    from airflow_provider_ai.runtime.job_service import open_client

    with open_client(AIJobsHook(transport_conn_id, store_conn_id).get_conn()) as client:
        yield from client.replies(manifest["submission"])
