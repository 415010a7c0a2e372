"""What Airflow itself says about health data: the switch for the whole package, and the key of redaction rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, conf, mask_secret

from airflow_provider_ai.core.phi_policy import CONFIG_KEY, CONFIG_SECTION
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.redaction import Redaction

DEFAULT_REDACTION_KEY_CONN_ID = "ai_redaction_key"


def package_wide() -> bool:
    """Airflow's configuration ``[ai_provider] phi``.

    :raises SpecError: for a word that is neither true nor false: it must not be taken for "off"
    """
    try:
        return bool(conf.getboolean(CONFIG_SECTION, CONFIG_KEY, fallback=False))
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        raise SpecError(f"Airflow's configuration [{CONFIG_SECTION}] {CONFIG_KEY} must be true or false") from None


def resolved_redaction(rules: Mapping[str, Any] | None, key_conn_id: str) -> Redaction | None:
    """Rules with their key, which is looked up only where a rule needs one; None for no rules.

    :param key_conn_id: connection with the key as its password: Base64 of at least 32 random bytes
    """
    if not rules:
        return None
    from airflow_provider_ai.core.redaction import check_rules
    from airflow_provider_ai.runtime.redaction import make_redaction

    checked = check_rules(rules)
    needed = any(rule["rule"] == "tokenise" for rule in checked.values())
    return make_redaction(checked, key=_key(key_conn_id) if needed else None)


def _key(conn_id: str) -> str:
    key = BaseHook.get_connection(conn_id).password
    if not key:
        raise SpecError(f"connection {conn_id!r}: the password must be the redaction key, Base64 of 32 random bytes")
    mask_secret(key)
    return key
