"""Results of handler functions must be plain JSON, so that what was recorded is what whoever waits reads."""

from __future__ import annotations

import math
from typing import Any

import orjson

_LEAVES = frozenset({str, int, bool, type(None)})


class NotPlainError(ValueError):
    """A value is no plain JSON. Carries no data."""

    def __init__(self) -> None:
        super().__init__("the result must be plain JSON")


def plain_json(value: object) -> bytes:
    """JSON of a value made of dict (with text keys), list, str, int, finite float, bool and None, and of nothing else.

    No date, no tuple, no NaN: what has no JSON form of its own would come back as something else.

    :raises NotPlainError: for everything else; for integers beyond 64 bits, broken text and nesting beyond 250 levels
    """
    try:
        text = orjson.dumps(value)  # first: it has an end for what contains itself
    except (TypeError, RecursionError):
        raise NotPlainError from None
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is list:
            pending += item
        elif kind is dict and all(type(name) is str for name in item):
            pending += item.values()
        elif kind not in _LEAVES and not (kind is float and math.isfinite(item)):
            raise NotPlainError
    return text
