"""Sealed segments: the outcomes of a log as one compact Arrow IPC file (zstd), named by its own checksum.

``good-{writer}-{number}-{sha256[:16]}.arrow`` holds rows with an output, ``bad-…`` quarantined rows. Being named by
content, a segment cannot be half replaced, and one that fails its checksum is refused by name. The Arrow schema
metadata says which row ranges it covers and which logs it replaces, so a crash between sealing and deleting counts
nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from airflow_provider_ai.core.arrow_arrays import (
    array_of,
    int64_array,
    int64_from,
    number_array,
    numbers_of,
    text_array,
)
from airflow_provider_ai.core.envelope_mark import is_envelope
from airflow_provider_ai.core.outcomes import OUTPUT_PREFIX, Quarantined, Succeeded
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import CorruptCheckpointError

_META = b"airflow_provider_ai"
_JSON_FIELD = {b"encoding": b"json"}
_TIMESTAMP = pa.timestamp("us", tz="UTC")


def good_table(outcomes: Sequence[Succeeded]) -> pa.Table:
    """Rows with an output, ascending by row number; output columns are named ``out:<name>``."""
    rows: list[int] = []
    keys: list[str] = []
    ids: list[Any] = []
    outputs: list[dict[str, Any]] = []
    facts: list[tuple[int, int, int, int]] = []
    for outcome in outcomes:
        rows.extend(outcome.rows)
        keys.extend(outcome.keys)
        ids.extend(outcome.ids)
        outputs.extend(outcome.outputs)
        facts.extend(_facts(outcome))
    instants, attempts, prompt, completion = np.array(facts, dtype=np.int64).reshape(-1, 4).T
    columns = {
        "row": int64_from(rows, len(rows)),
        "key": text_array(keys),
        "id": _column(ids),
        "inferred_at": number_array(instants, _TIMESTAMP),
        "attempts": int64_array(attempts).cast(pa.int32()),
        "prompt_tokens": int64_array(prompt),
        "completion_tokens": int64_array(completion),
    }
    for name in dict.fromkeys(name for output in outputs for name in output):
        columns[OUTPUT_PREFIX + name] = _column([output.get(name) for output in outputs])
    fields = [pa.field(name, array.type, metadata=_encoding(name, outputs, array)) for name, array in columns.items()]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields)).sort_by("row")


def bad_table(outcomes: Sequence[Quarantined]) -> pa.Table:
    """Quarantined rows, ascending by row number."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.row)
    columns = {
        "row": int64_from((o.row for o in ordered), len(ordered)),
        "key": text_array([o.key for o in ordered]),
        "error_class": text_array([o.error_class for o in ordered]),
        "status": array_of([o.status for o in ordered]).cast(pa.int32()),
        "attempts": array_of([o.attempts for o in ordered]).cast(pa.int32()),
        "round": array_of([o.round for o in ordered]).cast(pa.int32()),
        "quarantined_at": number_array(np.array([o.quarantined_at for o in ordered], dtype=np.int64), _TIMESTAMP),
    }
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def quarantined(table: pa.Table) -> list[Quarantined]:
    """The inverse of :func:`bad_table`."""
    table = table.set_column(6, "quarantined_at", table["quarantined_at"].cast(pa.int64()))
    return [Quarantined(**row) for row in table.to_pylist()]


def to_bytes(table: pa.Table, *, replaces: Iterable[str]) -> bytes:
    """The Arrow IPC file of a table, with its row ranges and the logs it replaces in the schema metadata."""
    last = table["row"][-1].as_py() if len(table) else -1
    covered = RowSet(last + 1)
    covered.add(numbers_of(table["row"]))
    meta = json.dumps({"rows": covered.ranges(), "replaces": list(replaces)}, separators=(",", ":")).encode()
    table = table.replace_schema_metadata({_META: meta})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """Read what :func:`to_bytes` made."""
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        return reader.read_all()


def metadata(data: bytes) -> dict[str, Any]:
    """``rows`` (ranges ``[start, end)``), ``replaces`` (log names) and ``columns`` of a segment, without its data."""
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        schema = reader.schema
        meta: dict[str, Any] = json.loads(schema.metadata[_META])
    meta["columns"] = output_columns(schema)
    return meta


def output_columns(schema: pa.Schema) -> list[list[str]]:
    """``[[name, Arrow type as text or "json"], …]`` of the output columns of a segment."""
    found = [field for field in schema if field.name.startswith(OUTPUT_PREFIX)]
    return [[field.name[len(OUTPUT_PREFIX) :], "json" if _is_json(field) else str(field.type)] for field in found]


def segment_name(kind: str, stem: str, stored: bytes) -> str:
    """The name that says what a segment's stored bytes must hash to."""
    return f"{kind}-{stem}-{_checksum(stored)}.arrow"


def name_stem(name: str) -> str:
    """The part of a segment's name before the checksum."""
    return name.rsplit("-", 1)[0]


def check_name(name: str, stored: bytes, *, where: str) -> None:
    """CorruptCheckpointError, naming the file, when the stored bytes are not the ones the name promises."""
    expected = name.removesuffix(".arrow").rsplit("-", 1)[-1]
    if _checksum(stored) != expected:
        raise CorruptCheckpointError(
            f"checkpoint segment {where}/{name} is corrupt: its bytes do not match the checksum in its name. "
            "Restore it from a backup, or delete it: its records will then be called (and paid for) again"
        )


def _checksum(stored: bytes) -> str:
    """Of what stays when the data key of an encrypted segment is wrapped by another key: so does its name, then."""
    lasting: bytes | memoryview = stored
    if is_envelope(stored):
        from airflow_provider_ai.core.envelope import lasting_part

        lasting = lasting_part(stored)
    return hashlib.sha256(lasting).hexdigest()[:16]


def _facts(outcome: Succeeded) -> list[tuple[int, int, int, int]]:
    """Per record: time, attempts and its share of the call's tokens (shares add up to the call's usage)."""
    count = len(outcome.rows)
    prompt, more_prompt = divmod(outcome.usage.prompt_tokens, count)
    completion, more_completion = divmod(outcome.usage.completion_tokens, count)
    return [
        (outcome.inferred_at, outcome.attempts, prompt + (i < more_prompt), completion + (i < more_completion))
        for i in range(count)
    ]


def _column(values: list[Any]) -> pa.Array:
    """Typed by its values; JSON text where they are objects or do not agree on a type."""
    if not any(isinstance(value, dict) for value in values):
        try:
            array = array_of(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return _json_column(values)
        return _json_column(values) if _nested_objects(array.type) else array
    return _json_column(values)


def _nested_objects(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_struct(kind))


def _json_column(values: list[Any]) -> pa.Array:
    return array_of([None if value is None else orjson.dumps(value).decode() for value in values]).cast(pa.string())


def _encoding(name: str, outputs: Sequence[dict[str, Any]], array: pa.Array) -> dict[bytes, bytes] | None:
    """Marks JSON text, so that a segment whose values are plain strings is not taken for one."""
    if not name.startswith(OUTPUT_PREFIX) or not pa.types.is_string(array.type):
        return None
    plain = name[len(OUTPUT_PREFIX) :]
    texts = all(isinstance(output.get(plain), str | None) for output in outputs)
    return None if texts else _JSON_FIELD


def _is_json(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"encoding") == b"json"
