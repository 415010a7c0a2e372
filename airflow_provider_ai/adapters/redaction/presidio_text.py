"""Prose through Presidio's pattern recognisers: numbers and names in a known form, replaced by ``<ENTITY>``.

Patterns only, no language model: Presidio's models are not on the package index, and a note must not depend on a
download. So a name is found after a title (``Mr.``, ``Dr.``, ``Patient:``) and nowhere else, and nothing here is
complete: the measured recall is in docs/minimum-necessary.md. Send prose only where that is enough.

Presidio itself logs what it finds at level DEBUG; its logger is kept above that. Its recognisers of e-mail addresses
and URLs ask the network for a list of domains, so there are patterns of our own for these.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer, RecognizerResult
from presidio_analyzer import predefined_recognizers as known

ENTITIES = (
    "AGE_90_OR_OLDER",
    "CREDIT_CARD",
    "DATE",
    "EMAIL_ADDRESS",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "RECORD_NUMBER",
    "TITLED_NAME",
    "PHONE_NUMBER",
    "URL",
    "US_MBI",
    "US_NPI",
    "US_SSN",
    "ZIP_CODE",
)
"""What is looked for. Nothing else is found: no untitled names, no streets, no cities, no employers."""
LEAST_SCORE = 0.3
_SURE = 0.9
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
_NAME = r"[A-Z][\w'’-]+(?:\s+(?:[A-Z]\.|[A-Z][\w'’-]+)){0,3}"
_OWN: dict[str, Sequence[str]] = {
    "AGE_90_OR_OLDER": (
        r"\b(?:9\d|1[0-2]\d)(?=[\s-]*(?:years?|yrs?|y)\b[\s-]*(?:old|of age|o\b)?)",
        r"(?<=\baged )(?:9\d|1[0-2]\d)\b",
    ),
    "DATE": (
        r"\b\d{4}-\d{2}-\d{2}\b",
        r"\b\d{1,2}[/.]\d{1,2}[/.](?:\d{4}|\d{2})\b",
        rf"(?i:\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?\b)",
        rf"(?i:\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}(?:,?\s+\d{{4}})?\b)",
    ),
    "EMAIL_ADDRESS": (r"[\w.+'-]+@[\w-]+(?:\.[\w-]+)+",),
    "RECORD_NUMBER": (
        r"(?i:(?<=\bMRN)[\s:#.-]*[A-Z]{0,3}-?\d{4,12}\b)",
        r"(?i:\b(?:record|account|chart|policy|member|accession)\s+(?:no|nr|number|id|#)[\s:#.-]*[A-Z]{0,3}-?\d{4,12}\b)",
    ),
    "TITLED_NAME": (
        rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sr|Sra)\.?\s+{_NAME}",
        rf"(?:\b[Pp]atient|\b[Pp]t|\b[Nn]ame|\b[Dd]aughter|\b[Ss]on|\b[Ww]ife|\b[Hh]usband)(?:\s+name)?\s*[:,]?\s+{_NAME}",
    ),
    "URL": (r"(?i:\b(?:https?://|www\.)[^\s<>\"]+)",),
    "ZIP_CODE": (r"(?<=\b[A-Z]{2} )\d{5}(?:-\d{4})?\b", r"(?i:\bzip(?:\s+code)?[\s:]*\d{5}(?:-\d{4})?\b)"),
}


class PresidioPatterns:
    """Implements :class:`~airflow_provider_ai.core.redaction.FreeText`. Thread-safe."""

    def __init__(self) -> None:
        logging.getLogger("presidio-analyzer").setLevel(logging.WARNING)
        self._recognizers = _recognizers()

    def redact(self, text: str) -> str:
        """The text with ``<ENTITY>`` for each finding."""
        parts: list[str] = []
        last = 0
        for start, end, entity in self.findings(text):
            parts += (text[last:start], f"<{entity}>")
            last = end
        return "".join((*parts, text[last:]))

    def findings(self, text: str) -> list[tuple[int, int, str]]:
        """``(start, end, entity)`` of what is replaced, in order. What overlaps is one finding."""
        merged: list[tuple[int, int, RecognizerResult]] = []
        for found in sorted(self._findings(text), key=lambda one: (one.start, one.end)):
            if not merged or found.start >= merged[-1][1]:
                merged.append((found.start, found.end, found))
                continue
            start, end, surest = merged[-1]
            merged[-1] = (start, max(end, found.end), found if found.score > surest.score else surest)
        return [(start, end, str(one.entity_type)) for start, end, one in merged]

    def identity(self) -> dict[str, Any]:
        """What decides about the outcome."""
        return {"presidio": version("presidio-analyzer"), "entities": list(ENTITIES), "least_score": LEAST_SCORE}

    def _findings(self, text: str) -> list[RecognizerResult]:
        # Patterns look at the text alone: there are no artifacts of a language model.
        every = (one for each in self._recognizers for one in each.analyze(text, each.supported_entities, None))  # type: ignore[arg-type]
        return [one for one in every if one.score >= LEAST_SCORE]


def _recognizers() -> list[EntityRecognizer]:
    theirs: list[EntityRecognizer] = [
        known.CreditCardRecognizer(),
        known.IpRecognizer(),
        known.MacAddressRecognizer(),
        known.PhoneRecognizer(supported_regions=("US", "GB", "DE", "CA")),
        known.UsMbiRecognizer(),
        known.UsNpiRecognizer(),
        known.UsSsnRecognizer(),
    ]
    return [*theirs, *(_own(entity, patterns) for entity, patterns in _OWN.items())]


def _own(entity: str, patterns: Sequence[str]) -> EntityRecognizer:
    listed = [Pattern(f"{entity} {number}", regex, _SURE) for number, regex in enumerate(patterns)]
    return PatternRecognizer(entity, patterns=listed, name=f"{entity}_RECOGNIZER", global_regex_flags=0)
