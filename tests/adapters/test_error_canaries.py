"""Errors of each adapter when it trips over a record: neither their text nor their traceback quotes it.

Each case first makes the foreign library say it (its own error has the canary), so that there is something to keep.
"""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.datasets import DatasetReader, plan_dataset
from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.adapters.json_lines import json_lines
from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.config import EndpointSettings, InputSettings, SinkSettings
from airflow_provider_ai.core.messages import decode_request, decode_result
from airflow_provider_ai.core.ports import InvalidAnswerError, PublishUnit, UnrenderableRecordError
from airflow_provider_ai.core.requests import JsonRequest, OpenAIChatRequest, OpenInferenceRequest
from airflow_provider_ai.core.rowset import RowSet
from tests.adapters.store.jobs import new_job
from tests.support.tls_peer import tls_peer

CANARY = "canary-4711"


def printed(work: Callable[[], object]) -> str:
    """The error that ``work`` ends in, as a log would print it, with everything it carries."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    raise AssertionError("it did not fail")


def _source_lines_aside(text: str) -> str:
    """Without the lines of this file that a traceback quotes."""
    return "\n".join(line for line in text.splitlines() if __file__ not in line and "CANARY" not in line)


def quiet(work: Callable[[], object]) -> None:
    assert CANARY not in _source_lines_aside(printed(work))


def _publish(url: str, column: pa.Array) -> None:
    sink = open_sink(SinkSettings(url=url, table="scores"))
    table = pa.table({"id": column, "_partition": pa.array(["p"] * len(column))})
    unit = PublishUnit(scope="s", partition="p", plan="plan", content="c", rows=len(column), run_id="r")
    try:
        sink.publish(unit, table.schema, table.to_batches())
    finally:
        sink.close()


def test_duckdb(tmp_path: Path) -> None:
    """A value that the column does not take."""
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE scores (id INTEGER, _partition VARCHAR)")
        with pytest.raises(duckdb.ConversionException, match=CANARY):
            connection.execute("INSERT INTO scores VALUES (?, 'p')", [CANARY])
    quiet(lambda: _publish(f"duckdb:///{path}", pa.array([CANARY])))


def test_sqlite(tmp_path: Path) -> None:
    """A constraint."""
    path = tmp_path / "w.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE scores (id TEXT CHECK (id <> '{CANARY}'), _partition TEXT)")
        with pytest.raises(sqlite3.IntegrityError, match=CANARY):
            connection.execute("INSERT INTO scores VALUES (?, 'p')", [CANARY])
    quiet(lambda: _publish(f"sqlite:///{path}", pa.array([CANARY])))


@pytest.mark.real
def test_postgresql(postgres_url: str) -> None:
    """A key that is there twice: PostgreSQL quotes it in the detail."""
    engine = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE scores (id text PRIMARY KEY, _partition text)")
        connection.exec_driver_sql(f"INSERT INTO scores VALUES ('{CANARY}', 'other')")
    with pytest.raises(sa.exc.IntegrityError, match=CANARY), engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO scores VALUES ('{CANARY}', 'p')")
    engine.dispose()
    quiet(lambda: _publish(postgres_url, pa.array([CANARY])))


def test_the_store(tmp_path: Path) -> None:
    """A statement with parameters that fails, which SQLAlchemy prints."""
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    store.prepare()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("DROP TABLE ai_jobs")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(sa.exc.OperationalError, match=CANARY), engine.begin() as bare:
        bare.execute(sa.text("INSERT INTO ai_jobs VALUES (:name)"), {"name": CANARY})
    engine.dispose()
    quiet(lambda: store.jobs().submit([new_job(group=CANARY)]))
    store.close()


def _read(folder: Path, name: str) -> None:
    manifest = plan_dataset(InputSettings(uri=str(folder / name), id_column="id"))
    for partition in manifest.partitions:
        list(DatasetReader().blocks(manifest, partition, done=RowSet(partition.rows)))


def test_datasets(tmp_path: Path) -> None:
    """Files whose rows cannot be parsed, of each format; and ids that are there twice, or not at all."""
    broken = {
        "broken.csv": f'id,name\n1,"{CANARY}\n2,{CANARY},{CANARY}\n',
        "ragged.csv": f"id,name\n1,a\n{CANARY},b,{CANARY}\n",
        "broken.jsonl": f'{{"id": 1}}\n{{"id": {CANARY}}}\n',
        "array.jsonl": f'{{"id": 1}}\n["{CANARY}"]\n',
        "broken.parquet": f"PAR1{CANARY}PAR1",
        "twice.csv": f"id,name\n{CANARY},a\n{CANARY},b\n",
        "null.jsonl": f'{{"id": null, "name": "{CANARY}"}}\n',
    }
    for name, text in broken.items():
        (tmp_path / name).write_text(text)
        quiet(lambda name=name: _read(tmp_path, name))  # type: ignore[misc]
    with pytest.raises(pa.ArrowInvalid, match=CANARY):
        pa_csv.read_csv(tmp_path / "ragged.csv")

    def lines() -> None:
        with json_lines(str(tmp_path / "broken.jsonl")) as found:
            list(found)

    quiet(lines)


def test_messages() -> None:
    """Of a queue that anybody may write into."""
    for body in (f'{{"{CANARY}": 1}}', f'"{CANARY}', f'{{"version": "{CANARY}"}}'):
        quiet(lambda body=body: decode_request(body.encode()))  # type: ignore[misc]
        quiet(lambda body=body: decode_result(body.encode()))  # type: ignore[misc]


@pytest.mark.parametrize(
    "request_",
    [JsonRequest(columns=["a"]), OpenInferenceRequest(columns=["a"]), OpenAIChatRequest(prompt="{{ record.a }}")],
)
def test_answers_and_records(request_: Any) -> None:
    """An answer that is none, and a record that cannot be sent."""
    for body in (f'"{CANARY}"', CANARY, f'{{"outputs": "{CANARY}", "choices": "{CANARY}"}}'):
        with pytest.raises(InvalidAnswerError):
            request_.decode(body.encode(), [1])
        quiet(lambda body=body: request_.decode(body.encode(), [1]))  # type: ignore[misc]
    for record in ({"b": CANARY}, {"a": f"{CANARY}\ud800"}):
        with pytest.raises(UnrenderableRecordError):
            request_.encode("m", [1], [record])
        quiet(lambda record=record: request_.encode("m", [1], [record]))  # type: ignore[misc]


def test_claim_checks() -> None:
    """A codec that fails on the data, and says so."""

    class Failing(IdentityCodec):
        name = "failing"

        def decode(self, data: bytes, *, context: Any) -> bytes:
            raise ValueError(data)

    contents = InlineOrClaimCheck(None, codec=Failing())
    packed = contents.pack(orjson.dumps({"name": CANARY}), kind="payload", job_id="j")
    quiet(lambda: contents.unpack(packed, kind="payload", job_id="j"))


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 {CANARY}\r\n\r\n",
        f"{CANARY}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {CANARY}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 11\r\n\r\n{CANARY}",
    ],
)
def test_endpoints(answer: str) -> None:
    """A server that says in its headers what it was asked."""

    async def post(url: str) -> None:
        settings = EndpointSettings(url=url, protocol="json", model="m")
        async with open_endpoint(settings, max_response_bytes=1000) as endpoint:
            await endpoint.post("/", CANARY.encode(), deadline_seconds=3)

    with tls_peer(None, answer=answer.encode()) as peer:
        quiet(lambda: asyncio.run(post(f"http://127.0.0.1:{peer.port}")))
        assert CANARY.encode() in peer.heard
