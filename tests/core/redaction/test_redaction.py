"""Rules over records: what leaves, what is refused, and that nothing passes by a rule that does not understand it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction import Redaction, check_rules
from airflow_provider_ai.exceptions import SpecError

KEY = bytes(range(32))
RULES: dict[str, Any] = {
    "name": "drop",
    "phone": {"rule": "mask", "keep_last": 2},
    "insurer": "mask",
    "mrn": "tokenise",
    "admitted": "year",
    "discharged": "year-month",
    "born": {"rule": "birth-year", "as_of": date(2026, 1, 1)},
    "age": "age",
    "zip": "zip3",
}
RECORD = {
    "name": "Ada Canary",
    "phone": "617-555-0142",
    "insurer": "Blue Canary",
    "mrn": "canary-17",
    "admitted": "2024-02-03",
    "discharged": "2024-02-29",
    "born": "1931-04-05",
    "age": 93,
    "zip": "02139",
    "pulse": 88,
}


class Shouting:
    """Finds every capital letter."""

    def redact(self, text: str) -> str:
        if text == "fail":
            raise ValueError(text)
        return "".join("#" if letter.isupper() else letter for letter in text)

    def identity(self) -> dict[str, Any]:
        return {"finder": "capitals"}


def test_each_rule() -> None:
    """What is left of a record; fields without a rule stay, and the record itself is not touched."""
    before = dict(RECORD)
    left = Redaction(rules=RULES, key=KEY).apply(RECORD)
    token = left.pop("mrn")
    assert token.startswith("tok1_")
    assert left == {
        "phone": "***42",
        "insurer": "***",
        "admitted": "2024",
        "discharged": "2024-02",
        "born": "90+",
        "age": "90+",
        "zip": "021",
        "pulse": 88,
    }
    assert before == RECORD


def test_nulls_and_absent_fields() -> None:
    """There is nothing to redact in them."""
    nulls: dict[str, Any] = dict.fromkeys(RULES)
    left = Redaction(rules=RULES, key=KEY).apply(nulls)
    assert left == {name: None for name in RULES if name != "name"}
    assert Redaction(rules=RULES, key=KEY).apply({"pulse": 1}) == {"pulse": 1}


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("admitted", "Ada Canary", "redaction_date"),
        ("born", "Ada Canary", "redaction_date"),
        ("age", "Ada Canary", "redaction_age"),
        ("zip", "Ada Canary", "redaction_zip"),
        ("mrn", ["Ada Canary"], "redaction_type"),
        ("phone", {"of": "Ada Canary"}, "redaction_type"),
    ],
)
def test_a_value_that_a_rule_does_not_understand(column: str, value: object, word: str) -> None:
    """It makes the record unrenderable, in a word without data and without a cause that may quote it."""
    with pytest.raises(UnrenderableRecordError) as caught:
        Redaction(rules=RULES, key=KEY).apply({**RECORD, column: value})
    assert str(caught.value) == word
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_free_text() -> None:
    """Goes through the finder; what is no text, or makes it fail, is refused."""
    redaction = Redaction(rules={"note": "free-text"}, free_text=Shouting())
    assert redaction.apply({"note": "Ada is ill"}) == {"note": "#da is ill"}
    for value, word in ((7, "redaction_type"), ("fail", "redaction_failed")):
        with pytest.raises(UnrenderableRecordError, match=word) as caught:
            redaction.apply({"note": value})
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_short_value_is_masked_whole() -> None:
    """The last digits are kept only where they are less than half of it."""
    redaction = Redaction(rules={"phone": {"rule": "mask", "keep_last": 4}})
    shown = [redaction.apply({"phone": value})["phone"] for value in ("5550142", "55550142", 12345678)]
    assert shown == ["***", "***0142", "***5678"]


def test_the_identity() -> None:
    """Rules, key and finder each make another one; it is plain and holds no secret."""
    same = Redaction(rules={"age": "age"}, key=KEY).identity()
    assert same == Redaction(rules={"age": {"rule": "age"}}, key=KEY).identity()
    others = [
        Redaction(rules={"age": {"rule": "age", "as": "number"}}, key=KEY),
        Redaction(rules={"age": "mask"}, key=KEY),
        Redaction(rules={"age": "age"}, key=KEY[::-1]),
        Redaction(rules={"age": "age"}),
        Redaction(rules={"age": "age"}, key=KEY, free_text=Shouting()),
    ]
    assert all(other.identity() != same for other in others)
    assert KEY.hex() not in str(same)
    assert "\\x01" not in repr(Redaction(rules={"age": "age"}, key=KEY))


@pytest.mark.parametrize(
    "rules",
    [
        {"age": "ages"},
        {"age": None},
        {"age": {"as": "number"}},
        {"age": {"rule": "age", "as": "words"}},
        {"age": {"rule": "age", "top": 90}},
        {"phone": {"rule": "mask", "keep_last": 5}},
        {"phone": {"rule": "mask", "keep_last": True}},
        {"mrn": {"rule": "tokenise", "domain": ""}},
        {"born": "birth-year"},
        {"born": {"rule": "birth-year", "as_of": "today"}},
        {"": "drop"},
        {7: "drop"},
        ["age"],
    ],
)
def test_rules_that_cannot_be_right(rules: Any) -> None:
    """Found out when they are read, and not at the first record."""
    with pytest.raises(SpecError, match="redaction"):
        check_rules(rules)


def test_what_a_rule_needs() -> None:
    """A key, an extra: without them there is no redaction at all."""
    with pytest.raises(SpecError, match="needs a key"):
        Redaction(rules={"mrn": "tokenise"})
    with pytest.raises(SpecError, match="extra 'presidio'"):
        Redaction(rules={"note": "free-text"})
