"""The AWS connection of the amazon provider → :class:`StorageOptions` for ``pyarrow.fs``.

Local paths need no connection, so none is looked up for them. Keys are copied only when the connection holds some or
names a role; otherwise they stay absent and pyarrow finds, and refreshes, them in the usual AWS places.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.core.config import StorageOptions

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

DEFAULT_AWS_CONN_ID = "aws_default"


def storage_options(uris: Iterable[str], aws_conn_id: str | None = DEFAULT_AWS_CONN_ID) -> StorageOptions | None:
    """How to reach the S3 URIs among ``uris``; None when all of them are local."""
    if not any(uri.startswith("s3://") for uri in uris):
        return None
    return aws_access(aws_conn_id, "s3")


def aws_access(aws_conn_id: str | None, service: str) -> StorageOptions:
    """Endpoint, region and keys of an AWS connection, for one service; keys only when it holds some or names a role."""
    # The amazon provider costs a second of import; local runs do without.
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: AwsGenericHook[Any] = AwsGenericHook(aws_conn_id=aws_conn_id, client_type=service)
    config = hook.conn_config
    region, endpoint = config.region_name, config.get_service_endpoint_url(service)
    if not _holds_keys(config):
        return StorageOptions(region=region, endpoint_url=endpoint)
    keys = hook.get_credentials()
    return StorageOptions(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token,
        region=region,
        endpoint_url=endpoint,
    )


def _holds_keys(config: AwsConnectionWrapper) -> bool:
    return bool(config.aws_access_key_id or config.role_arn or config.profile_name)
