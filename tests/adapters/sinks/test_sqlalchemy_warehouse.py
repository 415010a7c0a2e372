"""What a database without a sink of its own is told, and what goes into its columns, as far as no server is needed."""

from __future__ import annotations

import logging
import math

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from airflow_provider_ai.adapters.sinks import sql_types
from airflow_provider_ai.adapters.sinks.arrow_types import fit
from airflow_provider_ai.adapters.sinks.sqlalchemy_warehouse import _column


def test_mysql_is_told_to_keep_all_characters_and_to_tell_keys_apart() -> None:
    """Its defaults may be latin1, and take 'a' and 'A' for the same record."""
    table = sa.Table("scores", sa.MetaData(), sa.Column("_record_key", sql_types.KEY), **sql_types.TABLE_OPTIONS)
    ddl = str(CreateTable(table).compile(dialect=mysql.dialect()))
    assert "CHARSET=utf8mb4" in ddl
    assert "COLLATE utf8mb4_bin" in ddl


@pytest.mark.parametrize("kind", [mysql.LONGBLOB(), mysql.VARBINARY(8), sa.LargeBinary()])
def test_binary_columns_of_every_dialect_take_bytes(kind: sa.types.TypeEngine) -> None:
    """MySQL's are not SQLAlchemy's LargeBinary."""
    assert _column({"name": "image", "type": kind}, finite=False).accepts == pa.binary()


def test_numbers_without_nan_take_null_for_it_and_the_log_says_where(caplog: pytest.LogCaptureFixture) -> None:
    """One such answer must not hold up a whole partition."""
    column = _column({"name": "score", "type": mysql.DOUBLE()}, finite=True)
    numbers = pa.array([math.nan, math.inf, None, 0.5])
    with caplog.at_level(logging.WARNING):
        stored = fit(pa.field("score", pa.float64()), column).convert(numbers)
    assert stored.to_pylist() == [None, None, None, 0.5]
    assert "'score'" in caplog.text
