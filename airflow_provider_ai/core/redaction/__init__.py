"""Minimum necessary (45 CFR 164.502(b)): which fields of a record leave, and what is done to them before they do.

One place for all three patterns: :class:`RedactedRequest` encodes what :class:`Necessary` leaves of a record, and a
job's payload is what it leaves of a request.
"""

from airflow_provider_ai.core.redaction.necessary import Necessary, listed_columns
from airflow_provider_ai.core.redaction.redaction import FreeText, Redaction, check_rules
from airflow_provider_ai.core.redaction.request import RedactedRequest

__all__ = ["FreeText", "Necessary", "RedactedRequest", "Redaction", "check_rules", "listed_columns"]
