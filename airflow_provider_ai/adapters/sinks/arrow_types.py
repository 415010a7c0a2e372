"""Arrow values into the columns of a warehouse: which types may go where, and conversions that lose nothing or fail.

Pure: no database is known here. A :class:`Column` says which Arrow type a column takes; :func:`fit` says how the values
of a field become that type, or that they cannot. A conversion is checked on the values themselves (an int64 that
fits an integer column is fine, one that does not is an error), and its errors name columns and types, never values.
"""

from __future__ import annotations

import logging
import uuid
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from airflow_provider_ai.exceptions import SinkError

log = logging.getLogger(__name__)

Convert = Callable[[Any], Any]
"""pyarrow.Array → pyarrow.Array of the same length."""

UTC = pa.timestamp("us", tz="UTC")
NAIVE = pa.timestamp("us")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MOST_DIGITS = 38

# What may become what when the values allow it. Same family is always allowed, and so is any scalar into text.
_WIDER = {
    ("bool", "int"),
    ("int", "float"),
    ("int", "decimal"),
    ("float", "int"),
    ("decimal", "int"),
    ("date", "timestamp"),
    ("instant", "timestamp"),  # as UTC, which is what a column without a zone means here
}
_SCALARS = {"bool", "int", "float", "decimal", "date", "timestamp", "instant", "time"}
_NESTED = {"list", "struct", "map"}


class LossyError(Exception):
    """These values do not fit. Carries nothing: the caller knows the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of an existing table.

    :param type_name: as the warehouse spells it, for messages
    :param accepts: the Arrow type to give it; ``None`` when nothing can be put there
    :param json: takes JSON text, and Arrow lists and structs as such
    :param open_scale: a numeric column without precision, which takes decimals as they are
    :param encode: last step from ``accepts`` to what the driver is given
    :param sql_type: SQLAlchemy's idea of the type, where the driver is used through SQLAlchemy
    """

    name: str
    type_name: str
    accepts: Any
    json: bool = False
    open_scale: bool = False
    encode: Convert | None = None
    sql_type: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How one field of the rows becomes one column of the table."""

    field: Any
    column: Column
    steps: tuple[Convert, ...]

    @property
    def wire_type(self) -> Any:
        """The Arrow type after conversion."""
        return self.convert(pa.nulls(0, self.field.type)).type

    def convert(self, array: Any) -> Any:
        """The values as the column takes them. SinkError naming the column and both types when some do not fit."""
        try:
            for step in self.steps:
                array = step(array)
            return array
        except (LossyError, pa.ArrowException):
            raise misfit(self.field, self.column, "some values do not fit without loss") from None


def misfit(field: Any, column: Column, why: str) -> SinkError:
    """The error of a field that cannot go into an existing column."""
    return SinkError(
        f"column {column.name!r} of the table is {column.type_name}, the rows bring {field.type}: {why}. "
        "Alter the column or publish into another table; a retry then publishes without calling the model"
    )


def fit(field: Any, column: Column) -> Fit:
    """How ``field`` goes into ``column``. SinkError when no value of its type can."""
    source = plain(field.type)
    steps: list[Convert] = [] if source.equals(field.type) else [lambda array: _plain(array, source)]
    steps += _steps(field, source, column)
    if column.encode is not None:
        steps.append(column.encode)
    return Fit(field=field, column=column, steps=tuple(steps))


def _steps(field: Any, source: Any, column: Column) -> list[Convert]:
    if pt.is_null(field.type) and column.accepts is not None:
        return [lambda array: pa.nulls(len(array), column.accepts)]
    family = family_of(source)
    if column.json and family in (*_NESTED, "text"):
        return [json_text] if family in _NESTED else [_valid_json]
    target = source if column.open_scale and family == "decimal" else column.accepts
    if target is None or family is None or not _may_become(family, source, target):
        raise misfit(field, column, "a type that it does not take")
    if family in _NESTED and family_of(target) == "text":
        return [json_text]
    return [] if source.equals(target) else [lambda array: lossless(array, target)]


def _may_become(family: str, source: Any, target: Any) -> bool:
    wanted = family_of(target)
    if family == "list" and wanted == "list":
        inner = family_of(source.value_type)
        return inner is not None and _may_become(inner, source.value_type, target.value_type)
    if family in ("struct", "map") and wanted == family:
        return bool(source.equals(target))
    if wanted == "text":
        return family in _SCALARS or family in _NESTED or family == "text"
    return family == wanted or (family, wanted) in _WIDER


def family_of(kind: Any) -> str | None:
    """What sort of values a plain Arrow type holds; ``None`` for those no warehouse takes (durations, intervals)."""
    if pt.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "instant"
    tests = {
        "bool": pt.is_boolean,
        "int": pt.is_integer,
        "float": pt.is_floating,
        "decimal": pt.is_decimal,
        "text": pt.is_string,
        "bytes": pt.is_binary,
        "date": pt.is_date,
        "time": pt.is_time,
        "list": pt.is_list,
        "struct": pt.is_struct,
        "map": pt.is_map,
    }
    return next((name for name, test in tests.items() if test(kind)), None)


def plain(kind: Any) -> Any:
    """The type without the ways Arrow has of storing the same values: large, view, dictionary, fixed size, extension.

    Null becomes text: a column without a value in this run may have one in the next, and text takes any of them.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pt.is_dictionary(kind):
        return plain(kind.value_type)
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([pa.field(inner.name, plain(inner.type)) for inner in kind])
    return _plain_scalar(kind)


def _plain_scalar(kind: Any) -> Any:
    if pt.is_null(kind) or str(kind) in ("large_string", "string_view"):
        return pa.string()
    if str(kind) in ("large_binary", "binary_view") or pt.is_fixed_size_binary(kind):
        return pa.binary()
    if pt.is_float16(kind):
        return pa.float32()
    if pt.is_date64(kind):
        return pa.date32()
    if pt.is_decimal(kind) and kind.bit_width != 128 and kind.precision <= _MOST_DIGITS:
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def _plain(array: Any, target: Any) -> Any:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array.cast(target)


def lossless(array: Any, target: Any) -> Any:
    """``array`` cast to ``target``. LossyError or ArrowException when a value would change."""
    if pt.is_list(array.type):
        lossless(array.flatten(), target.value_type)
        return array.cast(target, safe=False)
    source = array.type
    if pt.is_floating(source) and pt.is_floating(target):
        return _floats(array, target)
    if pt.is_integer(source) and pt.is_decimal(target):
        array = array.cast(pa.decimal128(min(_MOST_DIGITS, 20 + target.scale), target.scale))
    if pt.is_timestamp(source) and pt.is_timestamp(target) and source.tz is not None:
        instants = array.cast(pa.timestamp(target.unit, source.tz)).cast(pa.int64())
        return instants.cast(target)
    return array.cast(target)


def _floats(array: Any, target: Any) -> Any:
    result = array.cast(target, safe=False)
    same = pc.or_(pc.equal(result.cast(array.type), array), pc.is_nan(array))
    if pc.all(same).as_py() is False:
        raise LossyError
    return result


def json_text(array: Any) -> Any:
    """Lists, structs and maps as JSON text. JSON has no NaN and no infinity: they become null. Bytes become base64."""
    return pa.array([None if value is None else _dumps(value) for value in array.to_pylist()], pa.string())


def _dumps(value: object) -> str:
    return orjson.dumps(value, default=_json_default).decode()


def _json_default(value: object) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _valid_json(array: Any) -> Any:
    """Text as it is, when every value is JSON. LossyError otherwise."""
    try:
        for value in array.to_pylist():
            if value is not None:
                orjson.loads(value)
        return array
    except orjson.JSONDecodeError:
        raise LossyError from None


def uuid_bytes(array: Any) -> Any:
    """UUIDs as text → 16 bytes each. LossyError for text that is none."""
    try:
        values = [None if value is None else uuid.UUID(value).bytes for value in array.to_pylist()]
        return pa.array(values, pa.binary())
    except ValueError:
        raise LossyError from None


def without_nul(column: str) -> Convert:
    """U+0000 in text → U+FFFD, for servers that cannot store it: one such answer must not hold up a whole partition."""

    def convert(array: Any) -> Any:
        content = array.buffers()[2]
        if content is None or b"\0" not in content.to_pybytes():
            return array
        result = pc.replace_substring(array, "\0", _REPLACEMENT)
        if not result.equals(array):
            log.warning("column %r: U+0000 stored as U+FFFD, the warehouse cannot hold it", column)
        return result

    return convert


def without_nan(column: str) -> Convert:
    """NaN and infinity → null, for servers whose numbers know neither: see :func:`without_nul`."""

    def convert(array: Any) -> Any:
        result = pc.if_else(pc.is_finite(array), array, None)
        if result.null_count > array.null_count:
            log.warning("column %r: NaN and infinity stored as null, the warehouse cannot hold them", column)
        return result

    return convert


def without_json_nul(array: Any) -> Any:
    """The same for JSON text, where the character is escaped."""
    return pa.array([_json_without_nul(value) for value in array.to_pylist()], pa.string())


def _json_without_nul(value: str | None) -> str | None:
    if value is None or "\\u0000" not in value:
        return value
    return _dumps(_replaced(orjson.loads(value)))


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", _REPLACEMENT)
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {_replaced(name): _replaced(item) for name, item in value.items()}
    return value
