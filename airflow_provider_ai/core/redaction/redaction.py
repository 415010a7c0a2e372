"""Rules, one for a column, as one object that makes redacted records of records. Pure; shared by all three patterns.

A rule is a word or a table with the word under ``rule``::

    {"name": "drop", "phone": {"rule": "mask", "keep_last": 2}, "mrn": "tokenise", "admitted": "year",
     "born": {"rule": "birth-year", "as_of": "2026-01-01"}, "age": "age", "zip": "zip3", "note": "free-text"}

Invariants: a null stays a null; a value that its rule cannot understand makes the whole record unrenderable, with a
word of :mod:`airflow_provider_ai.core.requests.reasons`; the caller's record is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, Protocol

from airflow_provider_ai.core.config import is_whole, require
from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction import safe_harbor
from airflow_provider_ai.core.redaction.tokens import key_id, token
from airflow_provider_ai.core.requests import reasons
from airflow_provider_ai.exceptions import SpecError

MASK = "***"
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "drop": (),
    "mask": ("keep_last",),
    "tokenise": ("domain",),
    "year": (),
    "year-month": (),
    "birth-year": ("as_of",),
    "age": ("as",),
    "zip3": (),
    "free-text": (),
}
RULES = tuple(_OPTIONS)
Rules = Mapping[str, str | Mapping[str, Any]]
Change = Callable[[Any], Any]


class FreeText(Protocol):
    """Finds names and numbers in prose. Never complete."""

    def redact(self, text: str) -> str:
        """The text with a placeholder for each finding."""
        ...

    def identity(self) -> dict[str, Any]:
        """Entities, thresholds and versions, as plain JSON: part of a request's identity."""
        ...


def check_rules(rules: Rules) -> dict[str, dict[str, Any]]:
    """The rules in their long form; SpecError for one that cannot be right, with the column's name."""
    require(isinstance(rules, Mapping), "redaction must be a table of columns and rules", type(rules).__name__)
    return {column: _checked(column, rule) for column, rule in rules.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """Rules, and what they need.

    :param rules: column → rule
    :param key: for ``tokenise``: 32 random bytes or more
    :param free_text: for ``free-text``
    :raises SpecError: a rule is not known, or its key or adapter is missing
    """

    rules: Rules
    key: bytes | None = field(default=None, repr=False)
    free_text: FreeText | None = field(default=None, repr=False)
    _checked: Mapping[str, Mapping[str, Any]] = field(init=False, repr=False)
    _changes: Mapping[str, Change] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checked = check_rules(self.rules)
        object.__setattr__(self, "_checked", checked)
        kept = {column: rule for column, rule in checked.items() if rule["rule"] != "drop"}
        object.__setattr__(self, "_changes", {column: self._change(column, rule) for column, rule in kept.items()})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a rule."""
        return tuple(self._checked)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The columns that do not leave at all, and so need not be read."""
        return tuple(column for column, rule in self._checked.items() if rule["rule"] == "drop")

    def identity(self) -> dict[str, Any]:
        """What makes it these rules and no others, as plain JSON. No secret."""
        text = None if self.free_text is None else self.free_text.identity()
        named = {"rules": {column: dict(rule) for column, rule in self._checked.items()}, "free_text": text}
        return {**named, "key": None if self.key is None else key_id(self.key)}

    def apply(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The redacted record, a new one; UnrenderableRecordError when a rule does not understand its value."""
        changed = {column: value for column, value in record.items() if column not in self.dropped}
        for column, change in self._changes.items():
            value = changed.get(column)
            if value is not None:
                changed[column] = _changed(change, value)
        return changed

    def _change(self, column: str, rule: Mapping[str, Any]) -> Change:
        name = rule["rule"]
        if name == "tokenise":
            if self.key is None:
                raise SpecError(f"redaction of {column!r}: tokenise needs a key (docs/minimum-necessary.md)")
            return partial(token, key=self.key, domain=rule.get("domain", column))
        if name == "free-text":
            if self.free_text is None:
                raise SpecError(f"redaction of {column!r}: free-text needs the extra 'presidio'")
            return partial(_prose, self.free_text)
        if name == "mask":
            return partial(_masked, keep_last=rule.get("keep_last", 0))
        if name == "birth-year":
            return partial(safe_harbor.birth_year, as_of=date.fromisoformat(rule["as_of"]))
        if name == "age":
            return partial(safe_harbor.age, as_number=rule.get("as") == "number")
        plain: Mapping[str, Change] = {
            "year": safe_harbor.year,
            "year-month": safe_harbor.year_month,
            "zip3": safe_harbor.zip3,
        }
        return plain[name]


def _changed(change: Change, value: Any) -> Any:
    try:
        return change(value)
    except UnrenderableRecordError:
        raise
    except Exception:  # noqa: BLE001 - whatever a rule trips over must not let the value through; its text may quote it
        raise UnrenderableRecordError(reasons.REDACTION_FAILED) from None


def _masked(value: Any, *, keep_last: int) -> str:
    """Three stars whatever was there, so that not even its length is told."""
    if not keep_last:
        return MASK
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UnrenderableRecordError(reasons.REDACTION_TYPE)
    text = str(value)
    return MASK + text[-keep_last:] if len(text) >= 2 * keep_last else MASK


def _prose(finder: FreeText, value: Any) -> str:
    if not isinstance(value, str):
        raise UnrenderableRecordError(reasons.REDACTION_TYPE)
    return finder.redact(value)


def _checked(column: object, given: object) -> dict[str, Any]:
    require(isinstance(column, str) and bool(column), "redaction must name columns", column)
    rule = {"rule": given} if isinstance(given, str) else given
    where = f"redaction of {column!r}"
    if not isinstance(rule, Mapping) or rule.get("rule") not in RULES:
        raise SpecError(f"{where} must be one of {', '.join(RULES)}, or a table with rule = one of them")
    options = dict(rule)
    unknown = sorted(options.keys() - {"rule", *_OPTIONS[options["rule"]]})
    require(not unknown, f"{where}: {options['rule']} takes {_OPTIONS[options['rule']] or 'no options'}", unknown)
    _check_options(where, options)
    return options


def _check_options(where: str, options: dict[str, Any]) -> None:
    keep = options.get("keep_last", 0)
    require(is_whole(keep, 0) and keep <= 4, f"{where}: keep_last must be an integer in [0, 4]", keep)
    domain = options.get("domain", "any")
    require(isinstance(domain, str) and bool(domain), f"{where}: domain must be a name", domain)
    form = options.get("as", "text")
    require(form in ("text", "number"), f"{where}: as must be 'text' (90+) or 'number' (90)", form)
    if options["rule"] != "birth-year":
        return
    as_of = options.get("as_of")
    text = as_of.isoformat() if type(as_of) is date else as_of
    try:
        options["as_of"] = date.fromisoformat(text if isinstance(text, str) else "").isoformat()
    except ValueError:
        raise SpecError(f"{where}: birth-year needs as_of, the day that ages are told for: 2026-01-01") from None
