"""Looks for marks in whatever was left behind: as they are, encoded, escaped, compressed, or encrypted by Airflow.

Marks are made from a seed and have a letter beyond ASCII, so that what escapes it looks different. A place is bytes
with a name: a table, a file, a message. Streams within a place are unpacked wherever they begin, some levels deep.
"""

from __future__ import annotations

import base64
import json
import random
import re
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from cryptography.fernet import Fernet, InvalidToken
from psycopg import sql

DEPTH = 3  # Base64 in JSON in a compressed column, and one more
MOST_UNPACKED = 1 << 20
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")  # gzip is the same with another head
_EITHER = zlib.MAX_WBITS | 32
_FRAMES = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
_FERNET = re.compile(rb"gAAAAA[A-Za-z0-9_-]{40,}={0,2}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){16,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Canaries:
    """Marks by name.

    :param fernet_key: Airflow's, with which it encrypts what it keeps of triggers
    """

    marks: Mapping[str, str]
    fernet_key: str | None = None

    @classmethod
    def of_seed(cls, seed: int, *names: str, fernet_key: str | None = None) -> Canaries:
        """A mark for each name; the same seed makes the same ones."""
        digits = random.Random(seed)
        marks = {name: f"can\u00e5ry{name}{digits.getrandbits(64):016x}" for name in names}
        return cls(marks=marks, fernet_key=fernet_key)

    def __getitem__(self, name: str) -> str:
        return self.marks[name]

    def found(self, places: Mapping[str, bytes]) -> dict[str, set[str]]:
        """Place → names of the marks in it; places without one are left out."""
        forms = {name: tuple(_forms(mark)) for name, mark in self.marks.items()}
        found = {place: self._names_in(data, forms) for place, data in places.items()}
        return {place: names for place, names in found.items() if names}

    def _names_in(self, data: bytes, forms: Mapping[str, tuple[bytes, ...]], depth: int = DEPTH) -> set[str]:
        names = {name for name, written in forms.items() if any(form in data for form in written)}
        if depth:
            for inner in self._unpacked(data):
                names |= self._names_in(inner, forms, depth - 1)
        return names

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        yield from _compressed(data)
        yield from _decoded(data)
        if self.fernet_key is not None:
            for token in _FERNET.findall(data):
                try:
                    yield Fernet(self.fernet_key).decrypt(token)
                except InvalidToken:
                    continue


def _forms(mark: str) -> Iterator[bytes]:
    """How a text may stand in bytes without being compressed."""
    text = mark.encode()
    escaped = json.dumps(mark)[1:-1]
    yield text
    yield escaped.encode()
    yield json.dumps(escaped)[1:-1].encode()
    yield mark.encode("utf-16-le")
    yield mark.encode("latin-1")
    yield urllib.parse.quote(mark).encode()
    yield ascii(text)[2:-1].encode()
    for raw in (text, escaped.encode()):
        yield raw.hex().encode()
        yield raw.hex().upper().encode()
        for skipped in range(3):
            coded = base64.b64encode(b"\0" * skipped + raw)[(0, 2, 3)[skipped] :]
            inner = coded.rstrip(b"=")[:-1]  # its ends depend on what stands beside it
            yield inner
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _compressed(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in (match.start() for match in _ZLIB.finditer(data)):
        try:
            yield zlib.decompressobj(_EITHER).decompress(view[start:], MOST_UNPACKED)
        except zlib.error:
            continue
    for kind, magic in _FRAMES.items():
        start = data.find(magic)
        while start >= 0:
            yield _frame(view[start:], kind)
            start = data.find(magic, start + 1)


def _frame(data: memoryview, kind: str) -> bytes:
    """As much of it as can be unpacked: what follows a frame is none."""
    read = bytearray()
    try:
        stream = pa.input_stream(pa.py_buffer(data), compression=kind)
        while len(read) < MOST_UNPACKED and (part := stream.read(16)):
            read += part
    except OSError:
        pass
    return bytes(read)


def _decoded(data: bytes) -> Iterator[bytes]:
    """Base64 and hex within it, joined: a place may hold thousands of them."""
    runs = (run.translate(bytes.maketrans(b"-_", b"+/")) for run in _BASE64.findall(data))
    texts = [base64.b64decode(run[: len(run) // 4 * 4]) for run in runs]
    texts += [bytes.fromhex(run.decode()) for run in _HEX.findall(data)]
    if texts:
        yield b"\n".join(texts)


# --- places


def tables(url: str) -> dict[str, bytes]:
    """Every column of every row of every table of a PostgreSQL database, as bytes and as text."""
    held = {}
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT schemaname, tablename FROM pg_tables").fetchall()
        for schema, table in (each for each in found if each[0] not in ("pg_catalog", "information_schema")):
            name = sql.SQL("{}.{}").format(sql.Identifier(schema), sql.Identifier(table))
            for form in ("binary", "text"):
                statement = sql.SQL("COPY {} TO STDOUT (FORMAT {})").format(name, sql.SQL(form))
                with connection.cursor().copy(statement) as rows:
                    held[f"table {table} ({form})"] = b"".join(map(bytes, rows))
    return held


def files(*folders: Path) -> dict[str, bytes]:
    """Every file below the folders, its name included."""
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {f"file {path}": str(path).encode() + b"\n" + path.read_bytes() for path in found}


def objects(s3: Any, bucket: str) -> dict[str, bytes]:
    """Every object of a bucket, its key and metadata included."""
    held = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for key in (each["Key"] for each in page.get("Contents", [])):
            answer = s3.get_object(Bucket=bucket, Key=key)
            head = f"{key} {answer.get('Metadata')} {answer.get('ContentType')}\n".encode()
            held[f"object {bucket}/{key}"] = head + answer["Body"].read()
    return held


def messages(sqs: Any, queue: str, *, looks: int = 5) -> dict[str, bytes]:
    """What waits in a queue of SQS; it stays there."""
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    held = {}
    for _ in range(looks):
        asked = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0, "MessageAttributeNames": ["All"]}
        for message in sqs.receive_message(QueueUrl=url, **asked).get("Messages", []):
            held[f"message {queue}/{message['MessageId']}"] = json.dumps(message, default=str).encode()
    return held
