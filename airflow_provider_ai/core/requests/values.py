"""Between Python values and JSON: what is sent, and what an answer may hold.

Hostile input is normal here. Sending fails with a word, never with the value; whatever passes :func:`flaw` can be
written to a checkpoint and to any of the warehouses.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, TypeGuard

import orjson

from airflow_provider_ai.core.ports import InvalidAnswerError, UnrenderableRecordError, Usage
from airflow_provider_ai.core.requests import reasons

MAX_DEPTH = 64  # orjson writes at most 254 levels; the checkpoint needs a few of its own
_CONTAINERS = {dict, list}
_MAX_TOKENS = 2**53
_TOKEN_CHARACTERS = 4  # OpenAI's rule of thumb for English: https://help.openai.com/en/articles/4936856


def to_json(value: object, *, sort_keys: bool = False) -> bytes:
    """JSON of record values: dates as ISO 8601, Decimal as an exact number, bytes as Base64, durations in seconds.

    NaN and infinity become null. UnrenderableRecordError for what has no JSON form.

    :param sort_keys: equal values give equal bytes
    """
    option = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(value, default=_plain, option=option)
    except (TypeError, RecursionError):
        raise UnrenderableRecordError(reasons.NOT_ENCODABLE) from None


def _plain(value: Any) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value)) if value.is_finite() else None
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time):  # subclasses and zoned times, which orjson does not take
        return value.isoformat() if value == value else None  # pandas' NaT is not itself
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars that orjson does not take
        return value.tolist()
    raise TypeError


def normalized(value: object) -> Any:
    """A setting as plain JSON values: tuples become lists. TypeError when it has none."""
    return orjson.loads(orjson.dumps(value))


def estimate_tokens(body: bytes) -> int:
    """Tokens of a body: one for every 4 characters, rounded up."""
    characters = len(body) if body.isascii() else len(body.decode())
    return -(-characters // _TOKEN_CHARACTERS)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; InvalidAnswerError when there is none."""
    try:
        answer = orjson.loads(body)
    except ValueError:
        raise InvalidAnswerError(reasons.NOT_JSON) from None
    if type(answer) is not dict:
        raise InvalidAnswerError(reasons.NOT_AN_OBJECT)
    return answer


def list_of(answer: Mapping[str, Any], name: str) -> list[Any]:
    """The list called ``name``; InvalidAnswerError when there is none."""
    value = answer.get(name)
    if type(value) is not list:
        raise InvalidAnswerError(reasons.NO_OUTPUTS)
    return value


def usage_of(answer: Mapping[str, Any]) -> Usage:
    """Token counts as OpenAI-compatible servers report them; 0 where there are none or they make no sense."""
    usage = answer.get("usage")
    if type(usage) is not dict:
        return Usage()
    return Usage(
        prompt_tokens=_tokens(usage.get("prompt_tokens")),
        completion_tokens=_tokens(usage.get("completion_tokens")),
    )


def _tokens(value: object) -> int:
    return value if is_int(value) and 0 <= value < _MAX_TOKENS else 0


def is_int(value: object) -> TypeGuard[int]:
    """Whether JSON gave an integer; true and false are none."""
    return type(value) is int


def may_hold_nul(body: bytes) -> bool:
    """Whether some text in a JSON body may hold U+0000: JSON can only write it as an escape."""
    return b"\\u0000" in body


def flaw(columns: Mapping[str, Any], *, nul: bool) -> str | None:
    """Why these output columns cannot be kept, or None. ``nul``: look for U+0000 (:func:`may_hold_nul`)."""
    for name, value in columns.items():
        if not name or name[0] == "_":
            return reasons.RESERVED_COLUMN
        kind = type(value)
        if kind is int and not fits_bigint(value):
            return reasons.NUMBER_TOO_LARGE
        if kind in _CONTAINERS and (found := _nested_flaw(value)) is not None:
            return found
    return reasons.NUL_CHARACTER if nul and _holds_nul(columns) else None


def _nested_flaw(value: Any) -> str | None:
    containers = [value]
    for _ in range(MAX_DEPTH):
        children = list(chain.from_iterable(map(_children, containers)))
        kinds = {*map(type, children)}
        if int in kinds and not all(fits_bigint(child) for child in children if type(child) is int):
            return reasons.NUMBER_TOO_LARGE
        if not kinds & _CONTAINERS:
            return None
        containers = [child for child in children if type(child) in _CONTAINERS]
    return reasons.TOO_DEEP


def fits_bigint(value: int) -> bool:
    """Whether an integer fits 64 signed bits."""
    return -(2**63) <= value < 2**63


def _children(value: Any) -> Any:
    return value.values() if type(value) is dict else value


def _holds_nul(columns: Mapping[str, Any]) -> bool:
    pending: list[Any] = [columns]
    while pending:
        value = pending.pop()
        if type(value) is str:
            if "\0" in value:
                return True
        elif type(value) is dict:
            pending += value
            pending += value.values()
        elif type(value) is list:
            pending += value
    return False
