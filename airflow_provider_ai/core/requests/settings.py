"""Checks that the request classes share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.requests.values import is_int, normalized
from airflow_provider_ai.exceptions import SpecError


def names(what: str, value: object) -> tuple[str, ...]:
    """``value`` as a tuple of distinct, non-empty names; SpecError when it is not."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    given: list[Any] = list(value) if is_list else [value]  # type: ignore[call-overload]
    valid = is_list and bool(given) and all(isinstance(name, str) and name for name in given)
    require(valid, f"{what} must be a list of names", value)
    repeated = sorted({name for name in given if given.count(name) > 1})
    require(not repeated, f"{what} must name each column once", repeated)
    return tuple(given)


def require_path(path: object) -> None:
    """SpecError unless ``path`` can stand below an endpoint's URL."""
    require(isinstance(path, str) and path.startswith("/"), "path must start with '/'", path)


def require_count(what: str, value: object) -> None:
    """SpecError unless ``value`` is an integer ≥ 1."""
    require(is_int(value) and value >= 1, f"{what} must be an integer ≥ 1", value)


def require_output_columns(columns: Iterable[str]) -> None:
    """SpecError when an output column is known beforehand to be refused."""
    for name in columns:
        valid = isinstance(name, str) and bool(name) and not name.startswith("_")
        require(valid, "output columns must be names that do not start with '_' (kept for lineage)", name)


def require_parameters(parameters: object, *, reserved: Iterable[str] = ()) -> None:
    """SpecError unless ``parameters`` (None or a mapping) holds plain JSON values and no ``reserved`` name."""
    if parameters is None:
        return
    require(isinstance(parameters, Mapping), "parameters must be a mapping", parameters)
    try:
        plain = normalized(parameters)
    except TypeError:
        raise SpecError("parameters must hold plain JSON values only") from None
    taken = sorted(plain.keys() & set(reserved))
    require(not taken, "parameters must not set what the request itself sets", taken)
