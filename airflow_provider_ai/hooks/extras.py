"""The extras of an Airflow connection, parsed: one parser per name, and no name that is not known.

A key nobody knows is an error, because a misspelt ``verify_tls`` must not go unnoticed. Messages name the extra and
what it must be; never its value.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from airflow_provider_ai.exceptions import SpecError

Parsers = Mapping[str, Callable[[Any], Any]]


class ConnectionFields(Protocol):
    """The part of an Airflow connection that is read here."""

    conn_id: str
    host: str | None
    schema: str | None
    login: str | None
    port: int | None
    password: str | None
    extra: str | None


def parse_extras(text: str | None, parsers: Parsers) -> dict[str, Any]:
    """The extras that are set, each through its parser (which raises ValueError with words that follow its name)."""
    try:
        body = json.loads(text) if text else {}
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise SpecError("the extra field must be a JSON object")
    return {name: _parsed(name, value, parsers) for name, value in body.items() if value not in (None, "", {})}


def _parsed(name: str, value: Any, parsers: Parsers) -> Any:
    if name not in parsers:
        near = difflib.get_close_matches(name, parsers, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(parsers)}"
        raise SpecError(f"unknown extra {name!r}{hint}")
    try:
        return parsers[name](value)
    except ValueError as error:
        raise SpecError(f"extra {name!r} {error}") from None


def boolean(value: Any) -> bool:
    """True or False; the words are for connections given as a URI, whose extras are all text."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("must be true or false")
    return word in ("true", "1", "yes")


def number(value: Any, unit: str) -> float:
    """A number of some unit."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"must be a number ({unit})") from None


def whole(value: Any) -> int:
    """An integer, or its text."""
    try:
        return int(str(value).strip())
    except ValueError:
        raise ValueError("must be an integer") from None
