"""What finds identifiers in prose. Importing this package loads none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.redaction import FreeText


def open_free_text() -> FreeText:
    """Presidio's pattern recognisers.

    :raises SpecError: the extra ``presidio`` is not installed
    """
    try:
        from airflow_provider_ai.adapters.redaction.presidio_text import PresidioPatterns
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("presidio_analyzer", "spacy"):
            raise
        raise SpecError(
            "redaction rule 'free-text' needs the extra 'presidio': pip install 'airflow-provider-ai[presidio]'"
        ) from None
    return PresidioPatterns()
