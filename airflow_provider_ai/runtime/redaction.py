"""Redaction rules with what they need: a key, and for prose the extra ``presidio``."""

from __future__ import annotations

from airflow_provider_ai.core.redaction import Redaction, check_rules
from airflow_provider_ai.core.redaction.redaction import Rules
from airflow_provider_ai.core.redaction.tokens import parse_key


def make_redaction(rules: Rules, *, key: str | None = None) -> Redaction:
    """Rules ready to be applied.

    :param key: Base64 of at least 32 bytes, for ``tokenise``
    :raises SpecError: a rule is not known, its key is missing or none, or its extra is not installed
    """
    checked = check_rules(rules)
    free_text = None
    if any(rule["rule"] == "free-text" for rule in checked.values()):
        from airflow_provider_ai.adapters.redaction import open_free_text

        free_text = open_free_text()
    return Redaction(rules=checked, key=None if key is None else parse_key(key), free_text=free_text)
