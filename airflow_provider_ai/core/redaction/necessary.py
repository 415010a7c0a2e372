"""What of a record may leave: the fields that are listed, as the rules leave them. Always a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction.redaction import Redaction
from airflow_provider_ai.core.requests import reasons
from airflow_provider_ai.core.requests.settings import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Necessary:
    """Fields and rules.

    :param allowed: the fields that may leave; None for all
    :param redaction: what is done to them; None for nothing
    :param id_column: names a record and is none of its fields, unless ``allowed`` has it
    :param keep_id: it stays beside the fields, as it is: for a job's payload, whose reply is matched by it
    :param strict: a field that is not allowed is an error, instead of being left out
    """

    allowed: tuple[str, ...] | None = None
    redaction: Redaction | None = None
    id_column: str | None = None
    keep_id: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.allowed is not None:
            object.__setattr__(self, "allowed", names("columns", self.allowed))
        if self.redaction is None:
            return
        rules = set(self.redaction.columns)
        unknown = [] if self.allowed is None else sorted(rules - set(self.allowed))
        require(not unknown, "redaction must name columns that are in columns", unknown)
        kept = self.keep_id and self.id_column in rules
        require(not kept, "redaction must not name the id column, which replies are matched by", self.id_column)

    @property
    def to_read(self) -> tuple[str, ...] | None:
        """The fields worth reading; None for all."""
        dropped = () if self.redaction is None else self.redaction.dropped
        return None if self.allowed is None else tuple(name for name in self.allowed if name not in dropped)

    def identity(self) -> dict[str, Any]:
        """Fields and rules as plain JSON."""
        rules = None if self.redaction is None else self.redaction.identity()
        return {"columns": None if self.allowed is None else sorted(self.allowed), "redaction": rules}

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What of the record leaves; UnrenderableRecordError with a word when it must not."""
        kept = self._allowed_part(record)
        left = kept if self.redaction is None else self.redaction.apply(kept)
        if self.keep_id and self.id_column is not None and self.id_column in record:
            left[self.id_column] = record[self.id_column]
        return left

    def payload(self, payload: object) -> Any:
        """Likewise for what a job is asked with: a record, or a list of them."""
        if isinstance(payload, Mapping):
            return self.record(payload)
        if isinstance(payload, Sequence) and not isinstance(payload, str | bytes | bytearray):
            return [self.payload(each) for each in payload]
        raise UnrenderableRecordError(reasons.NOT_RECORDS)

    def _allowed_part(self, record: Mapping[str, Any]) -> dict[str, Any]:
        allowed = self.allowed
        if allowed is None:
            return {name: value for name, value in record.items() if name != self.id_column}
        if self.strict and any(name not in allowed and name != self.id_column for name in record):
            raise UnrenderableRecordError(reasons.FIELD_NOT_ALLOWED)
        return {name: record[name] for name in allowed if name in record}


def listed_columns(request: object) -> tuple[str, ...] | None:
    """The columns that the author of a request has listed; None when there are none, or a prompt's are only derived."""
    told = is_dataclass(request) and any(each.name == "columns" and each.init for each in fields(request))
    columns = getattr(request, "columns", None) if told else None
    return None if columns is None else tuple(columns)
