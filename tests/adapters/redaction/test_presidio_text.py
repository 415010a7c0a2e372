"""Prose through Presidio's patterns: what is found of a small labelled set, measured and printed, and what must be."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from typing import Any

import pytest

from airflow_provider_ai.adapters.redaction import open_free_text
from airflow_provider_ai.adapters.redaction.presidio_text import ENTITIES, PresidioPatterns
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.runtime.redaction import make_redaction
from tests.adapters.redaction.notes import notes

FINDABLE = {*ENTITIES, "NAME"} - {"TITLED_NAME"}


@pytest.fixture(scope="module")
def finder() -> PresidioPatterns:
    return PresidioPatterns()


def _measured(finder: PresidioPatterns) -> tuple[Counter[str], Counter[str], int, int]:
    """Marks and found marks by entity; findings, and those of them that touch no mark."""
    marked: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    findings = wrong = 0
    for note in notes():
        found = finder.findings(note.text)
        findings += len(found)
        wrong += sum(not any(start < e and end > s for s, e, _ in note.marks) for start, end, _ in found)
        for start, end, entity in note.marks:
            marked[entity] += 1
            covered[entity] += any(s <= start and end <= e for s, e, _ in found)
    return marked, covered, findings, wrong


def test_recall_and_precision(finder: PresidioPatterns) -> None:
    """The figures of docs/minimum-necessary.md; what is found today must be found tomorrow."""
    marked, covered, findings, wrong = _measured(finder)
    for entity, count in sorted(marked.items()):
        print(
            f"{entity:<16} {covered[entity]:>3} of {count:>3}{'' if entity in FINDABLE else '   (no pattern for it)'}"
        )
    of_findable = sum(covered[each] for each in FINDABLE) / sum(marked[each] for each in FINDABLE)
    recall = covered.total() / marked.total()
    precision = 1 - wrong / findings
    print(f"recall {recall:.2f} of all, {of_findable:.2f} of what there are patterns for; precision {precision:.2f}")
    assert recall >= 0.80
    assert of_findable >= 0.90
    assert precision >= 0.85
    assert recall < 1  # or the set has become too easy to say anything


@pytest.mark.parametrize(
    "text",
    [
        "The 41-year-old denies smoking; 2 units of alcohol a week. Creatinine 0.9, eGFR > 90. No known allergies.",
        "Glucose 105 mg/dL, BP 120/80, dose 5 mg twice a day, 40 mg x 30 tablets, QTc 431 ms.",
        "",
    ],
)
def test_what_stays(text: str, finder: PresidioPatterns) -> None:
    """Findings, doses and ages up to 89 are what the model is asked about."""
    assert finder.redact(text) == text


def test_what_overlaps_goes_as_a_whole(finder: PresidioPatterns) -> None:
    """No end of a number is left beside a placeholder."""
    redacted = finder.redact("MA 02139. 95-year-old with MRN 00412987")
    assert "02139" not in redacted
    assert "95" not in redacted
    assert "0041" not in redacted


def test_nothing_goes_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presidio's own recogniser of e-mail addresses fetches a list of domains."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    finder = PresidioPatterns()
    assert finder.redact("jsmith@example.co.uk http://example.org/x") == "<EMAIL_ADDRESS> <URL>"


def test_nothing_is_logged(finder: PresidioPatterns, caplog: pytest.LogCaptureFixture) -> None:
    """Presidio prints what it finds when it is asked to debug."""
    with caplog.at_level(logging.DEBUG):
        finder.redact("SSN 219-09-9999 of Mr. Canary")
    assert "219-09" not in caplog.text
    assert "Canary" not in caplog.text


def test_as_a_rule(finder: PresidioPatterns) -> None:
    """With versions and entities in its identity."""
    redaction = make_redaction({"note": "free-text"})
    assert redaction.apply({"note": "Dr. Aisha Rahman called"}) == {"note": "<TITLED_NAME> called"}
    assert redaction.identity()["free_text"]["entities"] == list(ENTITIES)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named."""
    import sys

    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.delitem(sys.modules, "airflow_provider_ai.adapters.redaction.presidio_text")
    with pytest.raises(SpecError, match=r"airflow-provider-ai\[presidio\]"):
        open_free_text()
