"""What an output must look like: a JSON Schema or a Pydantic model, compiled once for each text.

The settings hold the schema's text only, so they can be pickled and compared; nothing is ever fetched for a ``$ref``.
A failed validation yields a word: the messages of the validators quote the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.requests import reasons
from airflow_provider_ai.core.requests.values import normalized
from airflow_provider_ai.exceptions import SpecError

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")  # in OpenAI's schema names


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """``text``: the JSON Schema; ``model``: the Pydantic class it comes from, or None."""

    text: bytes
    model: Any = None

    @classmethod
    def of(cls, given: object) -> OutputSchema | None:
        """From a setting: None, a JSON Schema as a mapping, or a Pydantic model class. SpecError for anything else."""
        if given is None:
            return None
        if isinstance(given, type) and hasattr(given, "model_json_schema"):
            schema = cls(text=_model_text(given), model=given)
        else:
            require(isinstance(given, Mapping), "output_schema must be a JSON schema or a Pydantic model class", given)
            schema = cls(text=_mapping_text(given))
            _validator(schema.text)
        kind = schema.as_json().get("type", "object")
        require(kind == "object", "output_schema must describe an object (its properties are the columns)", kind)
        return schema

    @property
    def name(self) -> str:
        """What a server is told the schema is called."""
        return _FORBIDDEN.sub("_", self.model.__name__)[:64] if self.model is not None else "output"

    def as_json(self) -> dict[str, Any]:
        """The JSON Schema as plain values."""
        schema: dict[str, Any] = orjson.loads(self.text)
        return schema

    def columns(self) -> tuple[str, ...]:
        """Output columns the schema names. There may be others unless it forbids them."""
        if self.model is not None:
            return (*self.model.model_fields, *self.model.model_computed_fields)
        return tuple(self.as_json().get("properties", {}))

    def identity(self) -> dict[str, Any]:
        """What decides the output. A model's validators are code and no part of it: recompute after changing them."""
        return {"json_schema": self.as_json(), "fields": None if self.model is None else list(self.columns())}

    def accept(self, value: dict[str, Any]) -> dict[str, Any] | str:
        """The validated output columns, or the reason why there are none."""
        try:
            if self.model is not None:
                return _dumped(self.model, value)
            return value if _validator(self.text).is_valid(value) else reasons.SCHEMA_MISMATCH
        except Exception:  # noqa: BLE001 - validators are foreign code on hostile data; a failure is no valid output
            return reasons.SCHEMA_MISMATCH


def _dumped(model: Any, value: dict[str, Any]) -> dict[str, Any] | str:
    output = orjson.loads(model.model_validate(value).model_dump_json(warnings=False))  # they would quote values
    return output if type(output) is dict else reasons.SCHEMA_MISMATCH


def _model_text(model: Any) -> bytes:
    try:
        return orjson.dumps(model.model_json_schema())
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__} while making its JSON schema"
        raise SpecError(f"output_schema {model.__name__} cannot be used: {reason}") from None


def _mapping_text(schema: object) -> bytes:
    try:
        return orjson.dumps(normalized(schema))
    except TypeError as error:
        raise SpecError(f"output_schema must hold plain JSON values only: {error}") from None


@lru_cache(maxsize=64)
def _validator(text: bytes) -> Any:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    schema = orjson.loads(text)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise SpecError(f"output_schema is no valid JSON schema: {error.message} at {error.json_path}") from None
    for reference in _references(schema):
        _resolve(schema, reference)
    return kind(schema, registry=Registry())


def _resolve(schema: dict[str, Any], reference: str) -> None:
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    base = resource.id() or ""
    try:
        Registry().with_resource(base, resource).resolver(base).lookup(reference)
    except Unresolvable:
        raise SpecError(f"output_schema must hold everything it refers to, got $ref {reference!r}") from None


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(value)
