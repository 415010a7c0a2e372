"""The search for marks finds them however they are written, and nothing in noise."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from cryptography.fernet import Fernet

from tests.support import canaries
from tests.support.canaries import Canaries
from tests.support.ministack import MiniStack
from tests.support.postgres import PostgresServer

KEY = Fernet.generate_key().decode()


def _arrow(text: str, compression: str) -> bytes:
    """A column of it in Arrow IPC, as checkpoints keep it."""
    sink = io.BytesIO()
    table = pa.table({"verdict": [text] * 50})
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


WRITTEN: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "utf-16": lambda text: text.encode("utf-16"),
    "json": lambda text: json.dumps({"a": text}).encode(),
    "json in json": lambda text: json.dumps(json.dumps({"a": text})).encode(),
    "repr of bytes": lambda text: repr(text.encode()).encode(),
    "percent": lambda text: urllib.parse.quote(f"/{text}").encode(),
    **{f"base64 at {n}": lambda text, n=n: base64.b64encode(b"x" * n + text.encode()) for n in range(3)},  # type: ignore[misc]
    "base64 for URLs of json": lambda text: base64.urlsafe_b64encode(json.dumps(text).encode()),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    "zlib": lambda text: zlib.compress(text.encode()),
    "gzip in base64": lambda text: base64.b64encode(gzip.compress(text.encode())),
    "zlib in hex": lambda text: zlib.compress(text.encode()).hex().encode(),
    "zstd in base64": lambda text: base64.b64encode(pa.compress(text.encode(), codec="zstd", asbytes=True)),
    "lz4": lambda text: pa.compress(text.encode(), codec="lz4", asbytes=True),
    "arrow with zstd": lambda text: _arrow(text, "zstd"),
    "arrow with lz4": lambda text: _arrow(text, "lz4"),
    "fernet": lambda text: Fernet(KEY).encrypt(json.dumps({"a": text}).encode()),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_mark_is_found(seed: int, how: str) -> None:
    """In the midst of other things; the other mark is not there, and the text without a mark has none."""
    marks = Canaries.of_seed(seed, "note", "other", fernet_key=KEY)
    noise = random.Random(seed).randbytes(20_000)
    places = {
        "with": noise + b" " + WRITTEN[how](f"coughs, {marks['note']} since days") + b" " + noise,
        "without": noise + b" " + WRITTEN[how]("coughs, cannery since days") + b" " + noise,
    }
    assert marks.found(places) == {"with": {"note"}}


def test_files_and_their_names(seed: int, tmp_path: Path) -> None:
    """A name is part of the place."""
    marks = Canaries.of_seed(seed, "id")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / marks["id"]).write_text("nothing")
    (tmp_path / "b").write_text("nothing")
    assert list(marks.found(canaries.files(tmp_path)).values()) == [{"id"}]


def test_tables(seed: int, postgres_server: PostgresServer) -> None:
    """Text, bytes and JSON of any table, as text and as bytes; each table once a form."""
    marks = Canaries.of_seed(seed, "a", "b", "c")
    url = postgres_server.url(postgres_server.create_database())
    values: list[Any] = [marks["a"], marks["b"].encode(), json.dumps({"x": marks["c"]})]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE held (a text, b bytea, c jsonb); CREATE TABLE empty (a text)")
        connection.execute("INSERT INTO held VALUES (%s, %s, %s)", values)
    found = marks.found(canaries.tables(url))
    assert found == {f"table held ({form})": {"a", "b", "c"} for form in ("text", "binary")}


def test_objects_and_messages(seed: int, ministack_server: MiniStack) -> None:
    """Bodies, keys and metadata of objects; bodies and attributes of messages, which stay where they are."""
    marks = Canaries.of_seed(seed, "note")
    mark = urllib.parse.quote(marks["note"])
    s3, sqs = ministack_server.client("s3"), ministack_server.client("sqs")
    bucket, queue = ministack_server.make_bucket(), f"marks-{seed}"
    s3.put_object(Bucket=bucket, Key="body", Body=marks["note"].encode())
    s3.put_object(Bucket=bucket, Key=f"key-{mark}", Body=b"")
    s3.put_object(Bucket=bucket, Key="metadata", Body=b"", Metadata={"x": mark})
    s3.put_object(Bucket=bucket, Key="none", Body=b"")
    assert len(marks.found(canaries.objects(s3, bucket))) == 3
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=marks["note"])
    attributes = {"x": {"DataType": "String", "StringValue": marks["note"]}}
    sqs.send_message(QueueUrl=url, MessageBody="none", MessageAttributes=attributes)
    for _ in range(2):
        assert len(marks.found(canaries.messages(sqs, queue))) == 2
