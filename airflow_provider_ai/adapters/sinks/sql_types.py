"""SQL types for new columns, and the tables this package makes."""

from __future__ import annotations

from typing import Any

import pyarrow.types as pt
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from airflow_provider_ai.adapters.sinks.arrow_types import family_of, plain
from airflow_provider_ai.exceptions import SinkError

# MySQL's TEXT and BLOB end at 64 KiB, its DATETIME at whole seconds, and it indexes no unbounded text.
MYSQL = ("mysql", "mariadb")
# Its default character set may lack most characters, and its default order takes 'a' and 'A' for the same key.
TABLE_OPTIONS: dict[str, Any] = {
    f"{name}_{option}": value
    for name in MYSQL
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
TEXT = sa.Text().with_variant(mysql.LONGTEXT(), *MYSQL)
BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), *MYSQL)
KEY = sa.String(255).with_variant(sa.Text(), "postgresql", "sqlite")
_KEYS = ("_partition", "_record_key")


def for_field(field: Any) -> TypeEngine[Any]:
    """The type of a new column for an Arrow field. Lists and structs are JSON text."""
    if field.name in _KEYS:
        return KEY
    kind = plain(field.type)
    family = family_of(kind)
    if family is None:
        raise SinkError(f"column {field.name!r} of type {field.type} has no SQL type; a retry cannot help")
    return _NUMBERS.get(str(kind)) or _other(kind, family)


_NUMBERS: dict[str, TypeEngine[Any]] = {
    "bool": sa.Boolean(),
    "int8": sa.SmallInteger(),
    "uint8": sa.SmallInteger(),
    "int16": sa.SmallInteger(),
    "uint16": sa.Integer(),
    "int32": sa.Integer(),
    "uint32": sa.BigInteger(),
    "int64": sa.BigInteger(),
    "uint64": sa.Numeric(20, 0),
    "float": sa.REAL(),
    "double": sa.Double(),
}


def _other(kind: Any, family: str) -> TypeEngine[Any]:
    if pt.is_decimal(kind):
        return sa.Numeric(kind.precision, kind.scale)
    if family in ("timestamp", "instant"):
        return timestamp(zone=family == "instant")
    simple: dict[str, TypeEngine[Any]] = {"bytes": BYTES, "date": sa.Date(), "time": sa.Time()}
    return simple.get(family, TEXT)


def timestamp(*, zone: bool) -> TypeEngine[Any]:
    """A timestamp with microseconds."""
    return sa.DateTime(timezone=zone).with_variant(mysql.DATETIME(fsp=6), *MYSQL)
