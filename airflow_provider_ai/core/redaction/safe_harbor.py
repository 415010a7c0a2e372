"""Generalisations of the Safe Harbor method, 45 CFR 164.514(b)(2)(i): ages (C), dates (C) and ZIP codes (B).

Each takes one value and gives the more general one, or raises UnrenderableRecordError with a word: what is not
understood is not passed on. Generalising alone does not make data de-identified; the other identifiers of the list have
to go as well.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.requests import reasons

OLDEST_AGE = 89
"""(C): "all ages over 89 […] may be aggregated into a single category of age 90 or older"."""
AGE_90_OR_OLDER = "90+"
_LONGEST_LIFE = 130

RESTRICTED_ZIP3 = frozenset(
    "036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split()  # noqa: SIM905 - as they are printed
)
"""Three-digit areas of 20,000 people or fewer, whose ZIP codes become 000 (B)(2). These 17 are of the 2000 Census, as
listed in HHS's "Guidance Regarding Methods for De-identification of Protected Health Information", 26 November 2012."""

_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ].*)?")
_ZIP = re.compile(r"([0-9]{3})[0-9]{2}(?:-?[0-9]{4})?")
_AGE = re.compile(r"[0-9]{1,3}")


def year(value: Any) -> str:
    """The year of a date, ``"1961"``. (C) lets no other element of a date through."""
    return f"{_date(value).year:04d}"


def year_month(value: Any) -> str:
    """Year and month, ``"1961-03"``: for a limited data set (164.514(e)); Safe Harbor does not allow the month."""
    when = _date(value)
    return f"{when.year:04d}-{when.month:02d}"


def birth_year(value: Any, *, as_of: date) -> str:
    """The year of a birth, or ``"90+"`` when it tells an age over 89 in the year of ``as_of``: (C) covers "all elements
    of dates (including year) indicative of such age". Whoever is 90 later in that year counts already."""
    born = _date(value)
    if born > as_of:
        raise UnrenderableRecordError(reasons.REDACTION_DATE)
    return AGE_90_OR_OLDER if as_of.year - born.year > OLDEST_AGE else f"{born.year:04d}"


def age(value: Any, *, as_number: bool = False) -> int | str:
    """An age in years, and ``"90+"`` (as a number: 90) from 90 on."""
    years = _years(value)
    if years <= OLDEST_AGE:
        return years
    return OLDEST_AGE + 1 if as_number else AGE_90_OR_OLDER


def zip3(value: Any) -> str:
    """The first three digits of a five- or nine-digit ZIP code, and ``"000"`` for the restricted ones.

    A number gets the leading zeros back that it cannot have.
    """
    text = f"{value:05d}" if type(value) is int and 0 <= value <= 99_999 else value
    found = _ZIP.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise UnrenderableRecordError(reasons.REDACTION_ZIP)
    return "000" if found[1] in RESTRICTED_ZIP3 else found[1]


def _date(value: Any) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    found = _DATE.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        if found is not None:
            return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        pass  # the 31st of February
    raise UnrenderableRecordError(reasons.REDACTION_DATE)


def _years(value: Any) -> int:
    if isinstance(value, str) and _AGE.fullmatch(value.strip()):
        value = int(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if not whole or not 0 <= value <= _LONGEST_LIFE:
        raise UnrenderableRecordError(reasons.REDACTION_AGE)
    return int(value)
