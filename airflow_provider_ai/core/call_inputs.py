"""Between what the caller of a synchronous call gives and gets, and what a Request takes and gives back.

One record in, one output out; a list in, a list in the same order out. All records go out in one call. Whatever cannot
be sent is refused with a word of :mod:`airflow_provider_ai.core.requests.reasons`, never with data.

A caller of protocol ``json`` may name its records by an ``id`` of their own and finds it in front of their outputs. To
the other protocols ``id`` is a field like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from airflow_provider_ai.core.config import Protocol
from airflow_provider_ai.core.ports import Decoded, InvalidAnswerError, UnrenderableRecordError
from airflow_provider_ai.core.requests import reasons

_ID = "id"
_ID_TYPES = (int, str)  # exactly these: true is no id


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecords:
    """The records of one call, for :meth:`Request.encode` and :meth:`Request.decode`.

    :param ids: the record's own id, or else its position; distinct
    :param records: copies, so that the caller may change its own while a thread that was left behind still reads
    :param single: whether one record was given, and not a list
    """

    ids: tuple[int | str, ...] = field(repr=False)
    records: tuple[Mapping[str, Any], ...] = field(repr=False)
    single: bool


def records_of(inputs: object, *, protocol: Protocol) -> CallRecords:
    """``inputs`` (a mapping, or a list of mappings) as records; UnrenderableRecordError when they are none."""
    single = isinstance(inputs, Mapping)
    records = (_record(inputs),) if single else tuple(map(_record, _listed(inputs)))
    if not records:
        raise UnrenderableRecordError(reasons.EMPTY_INPUTS)
    if protocol == "openai-chat" and len(records) > 1:
        raise UnrenderableRecordError(reasons.TOO_MANY_RECORDS)
    ids = _ids(records) if protocol == "json" else tuple(range(len(records)))
    return CallRecords(ids=ids, records=records, single=single)


def output_of(decoded: Decoded, records: CallRecords, *, protocol: Protocol) -> Any:
    """The output columns of the one record, or a list of them.

    InvalidAnswerError, with the word of the first, when some record has no valid output: half an answer is none.
    """
    if len(decoded.outputs) != len(records.records):
        raise InvalidAnswerError(reasons.MISSING_OUTPUT)
    pairs = zip(map(_valid, decoded.outputs), records.records, strict=True)
    if protocol == "json":
        outputs = [{_ID: record[_ID], **output} if _ID in record else output for output, record in pairs]
    else:
        outputs = [output for output, _ in pairs]
    return outputs[0] if records.single else outputs


def _listed(inputs: object) -> Sequence[object]:
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes | bytearray | memoryview):
        return inputs
    raise UnrenderableRecordError(reasons.NOT_RECORDS)


def _record(given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise UnrenderableRecordError(reasons.NOT_RECORDS)
    return dict(given)


def _ids(records: Sequence[Mapping[str, Any]]) -> tuple[int | str, ...]:
    given = [record[_ID] for record in records if _ID in record]
    if not all(type(key) in _ID_TYPES for key in given):
        raise UnrenderableRecordError(reasons.INVALID_ID)
    taken = set(given)
    if len(taken) != len(given):
        raise UnrenderableRecordError(reasons.DUPLICATE_ID)
    beyond = count(len(records))  # for a record whose position is the id of another

    def position(index: int) -> int:
        return index if index not in taken else next(number for number in beyond if number not in taken)

    return tuple(record[_ID] if _ID in record else position(index) for index, record in enumerate(records))


def _valid(output: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(output, str):
        raise InvalidAnswerError(output)
    return output
