"""Ages, dates and ZIP codes made general as 45 CFR 164.514(b)(2)(i) asks, and refused when they are not understood."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction import safe_harbor

DAY = date(2026, 11, 24)


@pytest.mark.parametrize("value", ["1961-03-17", " 1961-03-17 ", "1961-03-17T10:00:00Z", "1961-03-17 10:00"])
def test_dates_as_text(value: str) -> None:
    """The year, and for limited data sets the month; nothing of the time of day."""
    assert (safe_harbor.year(value), safe_harbor.year_month(value)) == ("1961", "1961-03")


def test_dates_as_such() -> None:
    """As parquet gives them."""
    assert safe_harbor.year(date(1961, 3, 17)) == "1961"
    assert safe_harbor.year_month(datetime(1961, 3, 17, 10, tzinfo=UTC)) == "1961-03"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "17.03.1961",
        "03/17/1961",
        "1961-3-7",
        "1961",
        "1961-02-31",
        "19610317",
        "unknown",
        "１９６１-03-17",
        1961,
        1.5,
        True,
        ["1961-03-17"],
        b"1961-03-17",
        "x1961-03-17",
        "1961-03-17x",
    ],
)
def test_what_is_no_date(value: Any) -> None:
    """It may be anything, a name among others: it is not passed on, nor shown."""
    for rule in (safe_harbor.year, safe_harbor.year_month):
        with pytest.raises(UnrenderableRecordError) as caught:
            rule(value)
        assert str(caught.value) == "redaction_date"


@pytest.mark.parametrize(
    ("born", "told"),
    [
        ("1936-12-31", "90+"),
        ("1936-01-01", "90+"),
        ("1937-01-01", "1937"),
        ("1900-05-05", "90+"),
        ("2026-11-24", "2026"),
    ],
)
def test_a_year_of_birth_tells_no_age_over_89(born: str, told: str) -> None:
    """Whoever is, or will this year be, 90 or older is in one category."""
    assert safe_harbor.birth_year(born, as_of=DAY) == told


def test_a_birth_to_come() -> None:
    """Born after the day that ages are told for: a wrong date, or a wrong day."""
    with pytest.raises(UnrenderableRecordError, match=r"^redaction_date$"):
        safe_harbor.birth_year("2026-11-25", as_of=DAY)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, 0), (89, 89), ("89", 89), (89.99, 89), (90, "90+"), (90.0, "90+"), ("104", "90+"), (130, "90+"), (" 7 ", 7)],
)
def test_ages(value: Any, told: object) -> None:
    """Up to 89 as they are, in whole years; then one category."""
    assert safe_harbor.age(value) == told


def test_ages_as_numbers() -> None:
    """For models that take numbers: the category is 90."""
    assert [safe_harbor.age(value, as_number=True) for value in (89, 90, 117)] == [89, 90, 90]


@pytest.mark.parametrize(
    "value", [-1, 131, "ninety", "90+", "4.5", "", True, float("nan"), float("inf"), [90], b"90", "９０"]
)
def test_what_is_no_age(value: Any) -> None:
    """Not in years, not an age, or a year of birth in its place."""
    with pytest.raises(UnrenderableRecordError, match=r"^redaction_age$"):
        safe_harbor.age(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("02139", "021"),
        ("02139-4307", "021"),
        ("021394307", "021"),
        (2139, "021"),
        (501, "005"),
        ("99950", "999"),
        (" 10001 ", "100"),
    ],
)
def test_zip_codes(value: Any, told: str) -> None:
    """Their first three digits; numbers get back the zeros that they lost."""
    assert safe_harbor.zip3(value) == told


def test_restricted_zip_codes() -> None:
    """Exactly the 17 of the 2000 Census, out of a thousand, become 000."""
    hidden = {f"{area:03d}" for area in range(1, 1000) if safe_harbor.zip3(f"{area:03d}01") == "000"}
    assert hidden == safe_harbor.RESTRICTED_ZIP3
    assert len(hidden) == 17


@pytest.mark.parametrize(
    "value", ["2139", "021", "0213", "021390", "O2139", "SW1A 1AA", "", -1, 100_000, 2139.0, True, "02139-43"]
)
def test_what_is_no_zip_code(value: Any) -> None:
    """Four digits may be a ZIP code with its zero lost, or a house number."""
    with pytest.raises(UnrenderableRecordError, match=r"^redaction_zip$"):
        safe_harbor.zip3(value)
