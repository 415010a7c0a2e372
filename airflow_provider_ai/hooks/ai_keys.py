"""An Airflow connection of type ``ai_keys`` → the keys that encrypt what is sent and kept.

Two kinds. ``local``: the password is a keyring, as ``airflow-ai keys generate`` prints it. ``kms``: the key stays in
AWS KMS, with the credentials of a connection of the amazon provider when one is named, else boto3's own; the password
is the hash key, or the extra ``wrapped_hash_key`` is, encrypted by KMS. Keys are masked in task logs, each by itself,
and part of no message. One parser serves hook, operators and the Test button; an unknown extra is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowException, BaseHook, mask_secret

from airflow_provider_ai.exceptions import AIProviderError, SpecError
from airflow_provider_ai.hooks.extras import ConnectionFields, number, parse_extras, whole
from airflow_provider_ai.hooks.storage import aws_access

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import DataKeyLimits, KeySettings, KmsKeys, LocalKeys

CONNECTION_TYPE = "ai_keys"
DEFAULT_CONN_ID = "ai_keys"
_LIMITS = {"data_key_seconds": "max_age_seconds", "data_key_messages": "max_messages", "data_key_bytes": "max_bytes"}


def _seconds(value: Any) -> float:
    return number(value, "seconds")


def _names(value: Any) -> tuple[str, ...]:
    """A list of names, or their text with commas between them."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError("must be names with commas between them")
    return tuple(name.strip() for name in listed if name.strip())


_KMS: Mapping[str, Callable[[Any], Any]] = {
    "key_id": str,
    "older_key_ids": _names,
    "wrapped_hash_key": str,
    "region": str,
    "aws_conn_id": str,
}
EXTRAS: Mapping[str, Callable[[Any], Any]] = {
    "kind": str,
    "tenant": str,
    **_KMS,
    "data_key_seconds": _seconds,
    "data_key_messages": whole,
    "data_key_bytes": whole,
}


def key_settings(conn: ConnectionFields) -> KeySettings:
    """What the connection says. SpecError names the connection, the field and what it must be; never a key."""
    try:
        extras = parse_extras(conn.extra, EXTRAS)
        kind = extras.pop("kind", "local")
        common = _common(extras)
        if kind == "kms":
            return _kms(conn, extras, common)
        if kind != "local":
            raise SpecError(f"kind must be 'local' or 'kms', got {kind!r}")
        return _local(conn, extras, common)
    except SpecError as error:
        raise SpecError(f"connection {conn.conn_id!r} (type {CONNECTION_TYPE}): {error}") from None


def _common(extras: dict[str, Any]) -> dict[str, Any]:
    from airflow_provider_ai.core.key_settings import DataKeyLimits

    limits = {_LIMITS[name]: extras.pop(name) for name in _LIMITS if name in extras}
    found: dict[str, DataKeyLimits | str] = {"limits": DataKeyLimits(**limits)}
    return found | ({"tenant": extras.pop("tenant")} if "tenant" in extras else {})


def _local(conn: ConnectionFields, extras: dict[str, Any], common: dict[str, Any]) -> LocalKeys:
    from airflow_provider_ai.core.keyring import parse_keyring

    if extras:
        raise SpecError(f"extra {next(iter(extras))!r} is for kind 'kms'")
    if not conn.password:
        raise SpecError("the keyring is missing; put what `airflow-ai keys generate` prints into the password field")
    return parse_keyring(conn.password, **common)


def _kms(conn: ConnectionFields, extras: dict[str, Any], common: dict[str, Any]) -> KmsKeys:
    from airflow_provider_ai.core.key_settings import KmsKeys
    from airflow_provider_ai.core.keyring import bytes_from_text, key_from_text

    if "key_id" not in extras:
        raise SpecError("key_id is missing; set it in the connection's KMS key field")
    if conn.password:
        extras["hash_key"] = key_from_text(conn.password, "the hash key (password)")
    if "wrapped_hash_key" in extras:
        extras["wrapped_hash_key"] = bytes_from_text(extras["wrapped_hash_key"], "wrapped_hash_key")
    return KmsKeys(endpoint_url=(conn.host or "").strip() or None, **_with_aws(extras), **common)


def _with_aws(extras: dict[str, Any]) -> dict[str, Any]:
    """With region, endpoint and credentials of the AWS connection that is named."""
    name = extras.pop("aws_conn_id", None)
    if name is None:
        return extras
    access = aws_access(name, "kms")
    found = {
        "region": access.region,
        "access_key": access.access_key,
        "secret_key": access.secret_key,
        "session_token": access.session_token,
    }
    return found | extras


def keys_of(conn_id: str | None) -> KeySettings | None:
    """The keys behind a connection; None for none. Main thread only."""
    return None if conn_id is None else AIKeysHook(conn_id).get_conn()


class AIKeysHook(BaseHook):
    """The keys that encrypt what is sent and kept: a keyring, or a key in AWS KMS.

    Connection fields: ``password`` is the keyring (local) or the hash key (KMS), ``host`` an endpoint of KMS other than
    AWS's own; everything else is in the extras.

    :param keys_conn_id: connection of type ``ai_keys``
    """

    conn_name_attr = "keys_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE
    hook_name = "AI keys"

    def __init__(self, keys_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.keys_conn_id = keys_conn_id

    def get_conn(self) -> KeySettings:
        """The settings; SpecError when the connection cannot be right."""
        conn = cast(ConnectionFields, self.get_connection(self.keys_conn_id))
        if conn.password:
            mask_secret(conn.password)
        settings = key_settings(conn)
        for secret in _secrets(settings):
            mask_secret(secret)
        return settings

    def test_connection(self) -> tuple[bool, str]:
        """Whether something can be encrypted and decrypted now. For the Test button."""
        from airflow_provider_ai.adapters.crypto.opening import try_keys

        try:
            return True, try_keys(self.get_conn())
        except (AIProviderError, AirflowException) as error:
            return False, str(error)


def _secrets(settings: KeySettings) -> list[str]:
    """What stands for a key in text."""
    from airflow_provider_ai.core.key_settings import LocalKeys
    from airflow_provider_ai.core.keyring import text_of

    if isinstance(settings, LocalKeys):
        return [text_of(key) for key in (*(key for _, key in settings.keys), settings.hash_key)]
    own = [settings.access_key, settings.secret_key, settings.session_token]
    hash_key = [] if settings.hash_key is None else [text_of(settings.hash_key)]
    return [secret for secret in (*own, *hash_key) if secret]
