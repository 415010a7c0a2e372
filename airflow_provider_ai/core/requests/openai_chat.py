"""Protocol ``openai-chat``: one prompt, one completion, over ``/v1/chat/completions`` as OpenAI and vLLM speak it.

With an ``output_schema`` the answer must be a JSON object that fits it, and its properties become the columns; without
one the text becomes a single column. A refusal, a cut-off or a filtered answer is no output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from airflow_provider_ai.core.config import Protocol, require
from airflow_provider_ai.core.ports import Decoded, EncodedRequest, InvalidAnswerError
from airflow_provider_ai.core.requests import prompt as prompts
from airflow_provider_ai.core.requests import reasons, settings, values
from airflow_provider_ai.core.requests.output_schema import OutputSchema

_OURS = ("model", "messages", "n", "stream")  # set here, or changing the shape of the answer
_NO_OUTPUT = {"length": reasons.LENGTH, "content_filter": reasons.CONTENT_FILTER}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIChatRequest:
    """One completion per record.

    :param prompt: Jinja2 text of the user message, such as ``Summarize: {{ record.note }}``
    :param system: Jinja2 text of the system message; ``None`` for none
    :param output_schema: JSON Schema or Pydantic model class of the answer; sent as ``response_format``
    :param strict: ask the server to enforce the schema (OpenAI then wants ``additionalProperties: false`` and every
        property required); the answer is validated here in any case
    :param parameters: ``temperature``, ``max_tokens``, … as the API knows them
    :param output_column: column of the text when there is no schema
    :param path: below the endpoint's URL
    :param inputs: record, or records, of a synchronous call (Airflow: templated); no part of a batch
    """

    prompt: str
    system: str | None = None
    output_schema: Any = None
    strict: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    output_column: str = "response"
    path: str = "/v1/chat/completions"
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    _schema: OutputSchema | None = field(init=False, repr=False, compare=False)

    protocol: ClassVar[Protocol] = "openai-chat"

    def __post_init__(self) -> None:
        prompts.check("prompt", self.prompt)
        if self.system is not None:
            prompts.check("system", self.system)
        used = any(prompts.uses_record(text) for text in self._texts())
        require(used, "prompt must use a column, such as {{ record.note }}, or all records ask the same", self.prompt)
        require(isinstance(self.strict, bool), "strict must be true or false", self.strict)
        object.__setattr__(self, "_schema", OutputSchema.of(self.output_schema))
        taken = _OURS if self._schema is None else (*_OURS, "response_format")
        settings.require_parameters(self.parameters, reserved=taken)
        settings.require_output_columns(self.output_columns)
        settings.require_path(self.path)

    def _texts(self) -> tuple[str, ...]:
        return (self.prompt,) if self.system is None else (self.system, self.prompt)

    @property
    def records_per_request(self) -> int:
        """A chat completion answers one record."""
        return 1

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns the prompt reads; ``None`` when it takes the record as a whole."""
        used = [prompts.columns_used(text) for text in self._texts()]
        names: list[str] = []
        for columns in used:
            if columns is None:
                return None
            names.extend(columns)
        return tuple(dict.fromkeys(names))

    @property
    def output_columns(self) -> tuple[str, ...]:
        """Output columns known beforehand; a schema that does not forbid it may bring others."""
        return self._schema.columns() if self._schema else (self.output_column,)

    def identity(self) -> dict[str, Any]:
        """What decides the question that is asked; see :class:`airflow_provider_ai.core.ports.Request`."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "prompt": self.prompt,
            "system": self.system,
            "output_schema": self._schema.identity() if self._schema else None,
            "strict": self.strict,
            "parameters": values.normalized(self.parameters),
            "output_column": self.output_column,
        }

    def encode(self, model: str, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> EncodedRequest:
        """One call for one record. UnrenderableRecordError when the prompt cannot be rendered."""
        (record,) = records
        roles = ("user",) if self.system is None else ("system", "user")
        texts = (prompts.render(text, record) for text in self._texts())
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        request: dict[str, Any] = {"model": model, "messages": messages, **self.parameters}
        if self._schema is not None:
            request["response_format"] = _response_format(self._schema, strict=self.strict)
        body = values.to_json(request)
        tokens = values.estimate_tokens(body) + _completion_tokens(self.parameters)
        return EncodedRequest(path=self.path, body=body, estimated_tokens=tokens)

    def decode(self, body: bytes, ids: Sequence[Any]) -> Decoded:
        """The output of one record. InvalidAnswerError when the body is no completion."""
        answer = values.parse_object(body)
        choices = values.list_of(answer, "choices")
        choice = choices[0] if choices else None
        if type(choice) is not dict:
            raise InvalidAnswerError(reasons.NO_OUTPUTS)
        return Decoded(outputs=[self._output(choice)], usage=values.usage_of(answer))

    def _output(self, choice: Mapping[str, Any]) -> dict[str, Any] | str:
        return _no_text(choice) or self._columns(choice["message"]["content"])

    def _columns(self, text: str) -> dict[str, Any] | str:
        columns = {self.output_column: text} if self._schema is None else _object(text, self._schema)
        if isinstance(columns, str):
            return columns
        return values.flaw(columns, nul="\0" in text or "\\u0000" in text) or columns


def _no_text(choice: Mapping[str, Any]) -> str | None:
    """Why a choice holds no text, or None when it does."""
    message, finish = choice.get("message"), choice.get("finish_reason")
    if type(message) is not dict:
        return reasons.MISSING_OUTPUT
    if message.get("refusal"):
        return reasons.REFUSAL
    if isinstance(finish, str) and finish in _NO_OUTPUT:
        return _NO_OUTPUT[finish]
    content = message.get("content")
    if content is not None and type(content) is not str:
        return reasons.WRONG_TYPE
    return None if content and content.strip() else reasons.EMPTY


def _object(text: str, schema: OutputSchema) -> dict[str, Any] | str:
    try:
        value = orjson.loads(text)
    except ValueError:
        return reasons.NOT_JSON
    return schema.accept(value) if type(value) is dict else reasons.NOT_AN_OBJECT


def _response_format(schema: OutputSchema, *, strict: bool) -> dict[str, Any]:
    described = {"name": schema.name, "schema": orjson.Fragment(schema.text), "strict": strict}
    return {"type": "json_schema", "json_schema": described}


def _completion_tokens(parameters: Mapping[str, Any]) -> int:
    limits = (parameters.get("max_completion_tokens"), parameters.get("max_tokens"))
    return next((limit for limit in limits if values.is_int(limit) and limit > 0), 0)
