"""Protocol ``json``: plain records in, plain records out, matched by id.

It posts ``{"model": m, "inputs": [{"id": <id>, …columns}]}`` and expects ``{"outputs": [{"id": <id>, …columns}]}`` in
any order. Ids are compared by type and value as JSON gives them: the integer 1 is not the text "1".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from airflow_provider_ai.core.config import Protocol
from airflow_provider_ai.core.ports import Decoded, EncodedRequest, UnrenderableRecordError
from airflow_provider_ai.core.requests import reasons, settings, values
from airflow_provider_ai.core.requests.output_schema import OutputSchema

_PLAIN_IDS = {int, str}


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonRequest:
    """Plain JSON. NaN and infinity are sent as null; the answer's ``id`` is no output column.

    :param columns: input columns to send, in this order; ``None`` for the whole record
    :param records_per_request: most records in one call
    :param path: below the endpoint's URL
    :param output_schema: JSON Schema or Pydantic model class that the output of a record, without its id, must fit
    :param inputs: record, or records, of a synchronous call (Airflow: templated); no part of a batch
    """

    columns: Sequence[str] | None = None
    records_per_request: int = 1
    path: str = "/predict"
    output_schema: Any = None
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    _schema: OutputSchema | None = field(init=False, repr=False, compare=False)

    protocol: ClassVar[Protocol] = "json"

    def __post_init__(self) -> None:
        if self.columns is not None:
            object.__setattr__(self, "columns", settings.names("columns", self.columns))
        settings.require_count("records_per_request", self.records_per_request)
        settings.require_path(self.path)
        object.__setattr__(self, "_schema", OutputSchema.of(self.output_schema))
        settings.require_output_columns(self.output_columns)

    @property
    def output_columns(self) -> tuple[str, ...]:
        """Output columns known beforehand; the answers may hold others."""
        return self._schema.columns() if self._schema else ()

    def identity(self) -> dict[str, Any]:
        """What decides the question that is asked; see :class:`airflow_provider_ai.core.ports.Request`."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "columns": None if self.columns is None else list(self.columns),
            "output_schema": self._schema.identity() if self._schema else None,
        }

    def encode(self, model: str, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> EncodedRequest:
        """One call for these records. UnrenderableRecordError when one of them cannot be sent."""
        body = values.to_json({"model": model, "inputs": self._inputs(ids, records)})
        return EncodedRequest(path=self.path, body=body, estimated_tokens=values.estimate_tokens(body))

    def _inputs(self, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        names = self.columns
        if names is None:
            _refuse_id_clash(ids, records)
            return [{"id": key, **record} for key, record in zip(ids, records, strict=True)]
        if "id" in names:
            _refuse_id_clash(ids, records)
        try:
            return [_selected(key, record, names) for key, record in zip(ids, records, strict=True)]
        except KeyError:
            raise UnrenderableRecordError(reasons.MISSING_FIELD) from None

    def decode(self, body: bytes, ids: Sequence[Any]) -> Decoded:
        """Outputs in the order of ``ids``. InvalidAnswerError when the body is no answer at all."""
        answer = values.parse_object(body)
        sent = _as_json(ids)
        positions = {key: position for position, key in enumerate(sent)}
        nul = values.may_hold_nul(body)
        results: list[dict[str, Any] | str | None] = [None] * len(sent)
        lost: str = reasons.MISSING_OUTPUT
        for item in values.list_of(answer, "outputs"):
            if type(item) is not dict:
                lost = reasons.NOT_AN_OBJECT
                continue
            position = _position(positions, sent, item.pop("id", None))
            if position is None:
                lost = reasons.UNKNOWN_ID
            elif results[position] is None:
                results[position] = self._accepted(item, nul)
            else:
                results[position] = reasons.DUPLICATE_OUTPUT
        return Decoded(outputs=[lost if item is None else item for item in results], usage=values.usage_of(answer))

    def _accepted(self, item: dict[str, Any], nul: bool) -> dict[str, Any] | str:
        if self._schema is not None:
            checked = self._schema.accept(item)
            if isinstance(checked, str):
                return checked
            item = checked
        return values.flaw(item, nul=nul) or item


def _selected(key: Any, record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    item = {"id": key}
    for name in names:  # twice as fast as a comprehension
        item[name] = record[name]
    return item


def _refuse_id_clash(ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> None:
    if any("id" in record and record["id"] != key for key, record in zip(ids, records, strict=True)):
        raise UnrenderableRecordError(reasons.ID_CLASH)


def _as_json(ids: Sequence[Any]) -> Sequence[Any]:
    """Ids as a JSON parser would give them back."""
    if {*map(type, ids)} <= _PLAIN_IDS:
        return ids
    plain: list[Any] = orjson.loads(values.to_json(list(ids)))
    return plain


def _position(positions: Mapping[Any, int], sent: Sequence[Any], key: Any) -> int | None:
    try:
        position = positions.get(key)
    except TypeError:  # a list or an object instead of an id
        return None
    return position if position is not None and type(sent[position]) is type(key) else None
