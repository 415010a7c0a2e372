"""Whether a policy lets a request pass, as IAM decides it; as much of it as our policies use, and an error for more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

Context = Mapping[str, str | Sequence[str]]


def permits(policy: Mapping[str, Any], action: str, resource: str, context: Context | None = None) -> bool:
    """A deny wins; what nobody allows is denied.

    :param context: condition key → value, or the values of one that has several
    """
    context = {"aws:SecureTransport": "true", **(context or {})}
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if action in statement["Action"]
        and any(fnmatchcase(resource, pattern) for pattern in statement["Resource"])
        and all(_holds(test, wanted, context) for test, wanted in statement.get("Condition", {}).items())
    }
    return effects == {"Allow"}


def _holds(test: str, wanted: Mapping[str, Any], context: Context) -> bool:
    return all(_one_holds(test, _list(values), context.get(key)) for key, values in wanted.items())


def _one_holds(test: str, wanted: Sequence[str], found: str | Sequence[str] | None) -> bool:
    if test == "ForAllValues:StringEquals":  # holds of nothing, too
        return all(value in wanted for value in _list(found or ()))
    if not isinstance(found, str):
        return False
    if test in ("StringEquals", "Bool"):
        return found in wanted
    if test == "StringLike":
        return any(fnmatchcase(found, pattern) for pattern in wanted)
    raise ValueError(test)


def _list(values: str | Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values
