"""The tables ``[phi]`` and ``[redaction]`` of any spec file: whether health data is handled, and what of it leaves.

``[redaction]`` names columns, which are not known beforehand, so both are taken out of the document before its other
tables are checked. The key of ``tokenise`` comes from the variable that ``redaction_key_env`` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_ai.cli.spec_keys import BOOLEAN, NAMES, TEXT, SpecShape, Table
from airflow_provider_ai.cli.spec_parts import in_table
from airflow_provider_ai.core.phi_policy import Phi
from airflow_provider_ai.core.redaction import Redaction, check_rules
from airflow_provider_ai.core.redaction.redaction import Rules
from airflow_provider_ai.exceptions import SpecError

PHI = SpecShape(known={"phi": {"enabled": BOOLEAN, "columns": NAMES, "redaction_key_env": TEXT}}, required={})


@dataclass(frozen=True, slots=True, kw_only=True)
class PhiSpec:
    """``columns``: the fields that may leave, where no other table says it."""

    phi: Phi
    columns: tuple[str, ...] | None
    redaction: Redaction | None


def take_phi(
    document: Table, environ: Mapping[str, str], *, columns_elsewhere: str | None = None, redacts: bool = True
) -> PhiSpec:
    """Take both tables out of a document.

    :param columns_elsewhere: the table that has ``columns`` in this kind of spec, if there is one
    :param redacts: whether the rules are applied here, and so their key is needed
    :raises SpecError: for the first thing that cannot be right
    """
    table = PHI.check({"phi": document.pop("phi", {})})["phi"]
    if columns_elsewhere is not None and "columns" in table:
        raise SpecError(f"'columns' must be in [{columns_elsewhere}] here, not in [phi]")
    rules = document.pop("redaction", {})
    with in_table("redaction"):
        checked = check_rules(rules)
        redaction = _redaction(checked, table.get("redaction_key_env"), environ) if redacts and checked else None
    columns = table.get("columns")
    phi = Phi(on=table.get("enabled", False))
    return PhiSpec(phi=phi, columns=None if columns is None else tuple(columns), redaction=redaction)


def _redaction(rules: Rules, variable: str | None, environ: Mapping[str, str]) -> Redaction:
    text = None if variable is None else environ.get(variable)
    if variable is not None and not text:
        raise SpecError(f"'redaction_key_env' in [phi] names the environment variable {variable!r}, which is not set")
    # Presidio is not needed to read a spec that has no prose.
    from airflow_provider_ai.runtime.redaction import make_redaction

    return make_redaction(rules, key=text)
